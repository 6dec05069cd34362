//! `/healthz` and `/readyz` for the probes of orchestrators and proxies. Both work without a login, with any `Host`, in
//! HTTP/1.0 also without one, and tell no more than a probe needs.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::broker::{Counters, Stage};

/// Routes of both probes.
pub fn routes(counters: Arc<Counters>) -> Router {
    // HAProxy asks with OPTIONS where nobody told it otherwise.
    Router::new()
        .route("/healthz", get(healthz).options(healthz))
        .route("/readyz", get(readyz).options(readyz))
        .with_state(counters)
}

/// 200 while the process runs, with the stage of its start.
async fn healthz(State(counters): State<Arc<Counters>>) -> &'static str {
    match counters.stage() {
        Stage::Opening => "starting\n",
        Stage::Checking => "ok, checking the log\n",
        Stage::Checked => "ok\n",
    }
}

/// 200 while the broker acknowledges readings; 503 with the cause while it starts or the log cannot commit.
async fn readyz(State(counters): State<Arc<Counters>>) -> Response {
    let awaited = counters.awaited().map(|cause| format!("PostgreSQL is awaited: {cause}"));
    let cause = match (counters.blocked().or(awaited), counters.stage()) {
        (Some(cause), _) => format!("cannot commit: {cause}\n"),
        (None, Stage::Opening) => "starting\n".to_owned(),
        (None, Stage::Checking | Stage::Checked) => return "ready\n".into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, cause).into_response()
}
