//! The operator's side over HTTP: a page, an API, metrics, and whether the broker is well.
//!
//! ```text
//! socket → server (bounds) → guard (whose page?) → entry (who?) → api · export · events · metrics · page
//!                                                                  ↑       ↑        ↑
//!                                                               database (readers)  feed ← recorder, boards
//! ```
//!
//! MQTT over WebSocket comes in here too: past the guard, mqtt (handshake) → websocket (bytes) → the broker's door.

mod api;
mod assets;
mod auth;
mod http_error;
mod live;
mod log_reader;
mod metrics;
mod mqtt_ws;
mod probes;
mod server;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, broadcast};

pub use auth::Guests;
pub use server::{Peer, serve};

use crate::broker::{Access, Alarms, Counters, Insider, Live, SideDoor};
use crate::clock;
use crate::shutdown::Shutdown;

/// What the operator decides.
#[derive(Debug, Clone, Default)]
pub struct WebConfig {
    /// What those may do who have not logged in.
    pub guests: Guests,
    /// Further names that this broker is called by.
    pub hosts: Vec<String>,
}

/// What of the broker the pages are made of.
pub struct Sources {
    /// The log.
    pub database: PathBuf,
    /// The recorder's own word on how it is.
    pub counters: Arc<Counters>,
    /// Committed records.
    pub live: broadcast::Receiver<Live>,
    /// Hears the boards, tells outputs.
    pub insider: Insider,
    /// Who the users are.
    pub access: Access,
    /// How the alarms are.
    pub alarms: Alarms,
    /// Takes MQTT clients that come by WebSocket.
    pub side_door: SideDoor,
}

/// What every request is answered from.
#[derive(Clone)]
struct Web {
    /// Tells this run of the broker from others.
    run: Arc<str>,
    started_ms: i64,
    log_reader: log_reader::LogReader,
    counters: Arc<Counters>,
    insider: Insider,
    feed: live::feed::Feed,
    authenticator: auth::Authenticator,
    exports: Arc<Semaphore>,
    alarms: Alarms,
    side_door: SideDoor,
}

/// Everything that is served, for [`serve`].
pub fn router(config: &WebConfig, sources: Sources, shutdown: Shutdown) -> Router {
    let Sources { database, counters, live, insider, access, alarms, side_door } = sources;
    let started_ms = clock::unix_ms();
    let web = Web {
        run: format!("{started_ms:x}").into(),
        started_ms,
        log_reader: log_reader::LogReader::new(database),
        counters: Arc::clone(&counters),
        feed: live::feed::Feed::start(live, insider.clone(), shutdown.clone()),
        insider,
        authenticator: auth::Authenticator::new(config.guests, access),
        exports: api::export::places(),
        alarms,
        side_door,
    };
    let authenticator = web.authenticator.clone();
    let events = live::events::routes(Arc::clone(&web.run), web.feed.clone(), shutdown);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let names = auth::same_origin::HostNames::new(host.trim(), &config.hosts);
    let for_readers = Router::new()
        .route("/api/v1/nodes", get(api::nodes))
        .route("/api/v1/sensors", get(api::sensors))
        .route("/api/v1/latest", get(api::latest))
        .route("/api/v1/series", get(api::series))
        .route("/api/v1/export", get(api::export::export))
        .route("/api/v1/outputs", get(api::outputs))
        .route("/api/v1/alarms", get(api::alarms))
        .route("/metrics", get(metrics::metrics))
        .with_state(web.clone())
        .merge(events)
        .layer(axum::middleware::from_fn(auth::require_read));
    let routes = Router::new()
        .merge(assets::routes())
        .route("/api/v1/about", get(api::about))
        .route("/api/v1/outputs/{node}/{output}", post(api::switch))
        .with_state(web.clone());
    let routes = for_readers
        .merge(auth::routes(authenticator.clone()))
        .merge(routes)
        .layer(axum::middleware::from_fn_with_state(authenticator, auth::authenticate))
        .route("/mqtt", get(mqtt_ws::handshake::mqtt).with_state(web));
    // An unknown path gets the fallback of the last router.
    let routes = probes::routes(counters)
        .merge(routes)
        .layer(axum::middleware::from_fn_with_state(names, auth::same_origin::protect));
    server::bounded(routes)
}
