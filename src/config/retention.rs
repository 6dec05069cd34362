//! Ages and sizes: what the log may keep.

use super::layers::Layers;
use super::parse::{age, size};
use crate::store::Retention;

/// Least size of the log in bytes: below it there is hardly room for a day.
const MAX_DB_MIN_BYTES: u64 = 16 * 1024 * 1024;
/// SQLite's own limit is larger, every file system's smaller.
const MAX_DB_MAX_BYTES: u64 = 1 << 47;

/// What the log may keep.
pub fn retention(layers: &mut Layers) -> Option<Retention> {
    let keep_raw = layers.need("keep_raw", age);
    let max_bytes = layers.need("max_db", |text| {
        let bytes = size(text)?;
        if (MAX_DB_MIN_BYTES..=MAX_DB_MAX_BYTES).contains(&bytes) {
            Ok(bytes)
        } else {
            Err(format!("`{text}` is not between 16MiB and 128TiB"))
        }
    });
    Some(Retention { keep_raw: keep_raw?, max_bytes: max_bytes? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_too_small_to_live_with_is_refused() {
        let layers = |value: &str| Layers::new(&[("max_db", value.to_owned())], []);
        assert!(retention(&mut layers("8MiB")).is_none());
        assert_eq!(retention(&mut layers("16MiB")).unwrap().max_bytes, 16 << 20);
    }
}
