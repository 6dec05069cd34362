//! `/metrics` for Prometheus. Each scrape builds a registry from the broker's counters, the log and the boards.

mod boards;
mod clients;
mod store;
mod text_format;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

use self::boards::{register_alarms, register_boards, register_sensors};
use self::clients::{register_clients, register_losses, register_process};
use self::store::{register_store, register_upstream};
use self::text_format::text;
use crate::broker::{Alarms, Counters, LocalClient};
use crate::clock;
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;
use crate::web::live::feed::Feed;
use crate::web::log_reader::LogReader;
use crate::web::turns::Turn;

/// The sources of the metrics.
#[derive(Clone)]
pub struct MetricsState {
    /// When this run of the broker began, Unix ms UTC.
    pub started_ms: i64,
    /// The log.
    pub log: LogReader,
    /// The boards, and the open event streams.
    pub feed: Feed,
    /// The alarms.
    pub alarms: Alarms,
    /// The broker's load.
    pub local_client: LocalClient,
    /// Counters of the writer.
    pub counters: Arc<Counters>,
}

/// The route of the metrics.
pub fn routes(state: MetricsState) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(state)
}

/// All metrics in Prometheus' text format.
async fn metrics(
    State(state): State<MetricsState>,
    Extension(identity): Extension<Identity>,
    Extension(turn): Extension<Turn>,
) -> Result<Response, HttpError> {
    let (overview, quick_stats) =
        state.log.read(&turn, |log| Ok((log.overview()?, log.quick_stats()?))).await?;
    let mut registry = Registry::with_prefix("humidor");
    // Numbers of the broker are reports in `$SYS` over MQTT; each group of them has the rule of one report.
    if identity.may_read_report("uptime") {
        register_process(&mut registry, state.started_ms);
    }
    if identity.may_read_report("store/readings") {
        register_store(&mut registry, &state.counters, &quick_stats, &identity);
        if let Some(forwarding) = state.counters.upstream() {
            register_upstream(&mut registry, &forwarding.status());
        }
    }
    if identity.may_read_report("clients/connected") {
        register_clients(&mut registry, &state.local_client, &state.feed);
    }
    if identity.may_read_report("publish/messages/dropped") {
        let (total, mut by_client) = state.local_client.losses();
        by_client.retain(|loss| identity.may_read_topic(&loss.topic));
        register_losses(&mut registry, total, by_client);
    }
    register_alarms(&mut registry, &state.alarms, &identity);
    register_sensors(&mut registry, &overview, clock::unix_ms(), &identity);
    register_boards(&mut registry, &state.feed, &identity);
    let text = text(&registry)
        .map_err(|fmt::Error| HttpError::unavailable("the broker cannot encode its metrics"))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
