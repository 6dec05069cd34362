//! The operator's side over HTTP: whether the broker is well, what it stored, and a page to look at.

mod limits;
mod ready;
mod server;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

pub use server::{Peer, serve};

use crate::broker::{Alarms, Counters};

/// What the pages and answers are made of.
#[derive(Debug, Clone)]
pub struct Web {
    /// The recorder's own word on how it is.
    pub counters: Arc<Counters>,
    /// How the alarms are.
    pub alarms: Alarms,
}

/// Everything that is served, for [`serve`].
pub fn router(web: Web) -> Router {
    let routes = Router::new()
        .route("/healthz", get(ready::healthz))
        .route("/readyz", get(ready::readyz))
        .with_state(web);
    limits::bounded(routes)
}
