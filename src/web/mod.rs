//! The operator's side over HTTP: the page, the API, live events, metrics, probes, and MQTT over WebSocket.
//!
//! ```text
//! socket → server (bounds) → same_origin → authenticate ─→ require_read → turns → api · metrics · live ← log_reader, feed
//!                               │               └────────→ assets · about · session · switch an output
//!                               ├→ probes
//!                               └→ mqtt_ws (handshake → byte stream) → the broker
//! ```
//!
//! Each room has a router with a state of its own. Imports point from here through `metrics`, `mqtt_ws` and `api` to
//! `live`, from there to `log_reader`, `turns` and `auth`, and from all of them to `compression`, `http_error` and `server`, never
//! back; `server` uses `admission`.

mod admission;
mod api;
mod assets;
mod auth;
mod compression;
mod http_error;
mod live;
mod log_reader;
mod metrics;
mod mqtt_ws;
mod probes;
mod server;
mod turns;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::sync::broadcast;

pub use auth::Guests;
pub use server::serve;

use crate::broker::{Access, Alarms, Counters, Handoff, Live, LocalClient};
use crate::clock;
use crate::shutdown::Shutdown;

/// Settings of the HTTP port.
#[derive(Debug, Clone, Default)]
pub struct WebConfig {
    /// What a client may do without a login.
    pub guests: Guests,
    /// Further host names of this broker, besides its addresses and its own name.
    pub hosts: Vec<String>,
}

/// The parts of a running broker that the web needs.
pub struct Sources {
    /// Path of the log's file.
    pub database: PathBuf,
    /// The broker's address for boards, where it is known.
    pub mqtt_host: Option<IpAddr>,
    /// Where it listens for MQTT.
    pub mqtt: SocketAddr,
    /// Counters of the writer, and the cause while it cannot commit.
    pub counters: Arc<Counters>,
    /// Committed records.
    pub live: broadcast::Receiver<Live>,
    /// Subscribes to the boards' messages and publishes commands to outputs.
    pub local_client: LocalClient,
    /// The users and their permissions.
    pub access: Access,
    /// The alarms.
    pub alarms: Alarms,
    /// Takes MQTT clients that connect over WebSocket.
    pub mqtt_handoff: Handoff,
}

/// The routes while the broker starts: its probes, and 503 for everything else.
pub fn starting(counters: Arc<Counters>) -> Router {
    let routes = probes::routes(counters)
        .fallback(|| async { http_error::HttpError::unavailable("the broker is starting") });
    server::bounded(routes)
}

/// The routes of the HTTP port, for [`serve`]. Starts the tasks of the live feed, which end at `shutdown`.
pub fn router(config: &WebConfig, sources: Sources, shutdown: Shutdown) -> Router {
    let Sources {
        database,
        mqtt_host,
        mqtt,
        counters,
        live,
        local_client,
        access,
        alarms,
        mqtt_handoff,
    } = sources;
    let started_ms = clock::unix_ms();
    let run: Arc<str> = format!("{started_ms:x}").into();
    let (log, turns) = (log_reader::LogReader::new(database), turns::Turns::default());
    let feed = live::feed::Feed::start(live, local_client.clone(), shutdown.clone());
    let authenticator = auth::Authenticator::new(config.guests, access);
    let api = api::ApiState {
        run: Arc::clone(&run),
        started_ms,
        mqtt_host,
        mqtt,
        log: log.clone(),
        turns: turns.clone(),
        feed: feed.clone(),
        alarms: alarms.clone(),
        counters: Arc::clone(&counters),
        local_client: local_client.clone(),
        authenticator: authenticator.clone(),
        exports: api::ExportLimit::default(),
    };
    let metrics = metrics::MetricsState {
        started_ms,
        log,
        feed: feed.clone(),
        alarms,
        local_client,
        counters: Arc::clone(&counters),
    };

    let readable = api::read_routes(api.clone())
        .merge(metrics::routes(metrics))
        .layer(from_fn(compression::compress_json))
        .layer(from_fn_with_state(turns, turns::in_turn))
        .merge(live::events::routes(run, feed, shutdown))
        .layer(from_fn(auth::require_read));
    let authenticated = readable
        .merge(api::routes(api))
        .merge(auth::routes(authenticator.clone()))
        .merge(assets::routes())
        .layer(from_fn_with_state(authenticator.clone(), auth::authenticate));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let names = auth::host_names::HostNames::new(host.trim(), &config.hosts);
    // The last router answers unknown paths.
    let routes = probes::routes(counters)
        .merge(mqtt_ws::routes(authenticator, names.clone(), mqtt_handoff))
        .merge(authenticated)
        .fallback(auth::refusal_page::not_found)
        .layer(from_fn_with_state(names, auth::same_origin::protect));
    server::bounded(routes)
}
