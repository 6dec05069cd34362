//! `/healthz` and `/readyz` for an orchestrator's probes. Both work without a login and tell no more than a probe
//! needs.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::broker::Counters;

/// Routes of both probes.
pub fn routes(counters: Arc<Counters>) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(counters)
}

/// 200 while the process runs.
async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 while the broker acknowledges readings; 503 with the cause while the log cannot commit.
async fn readyz(State(counters): State<Arc<Counters>>) -> Response {
    match counters.blocked() {
        None => "ready\n".into_response(),
        Some(cause) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("cannot commit: {cause}\n")).into_response()
        }
    }
}
