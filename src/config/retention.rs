//! What the log may keep, from the settings.

use super::layers::Layers;
use super::settings::{KEEP_RAW, MAX_DB};
use crate::store::Retention;

pub(super) fn retention(layers: &mut Layers) -> Option<Retention> {
    let (keep_raw, max_bytes) = (layers.need(&KEEP_RAW), layers.need(&MAX_DB));
    Some(Retention { keep_raw: keep_raw?, max_bytes: max_bytes? })
}
