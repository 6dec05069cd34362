//! `/healthz` and `/readyz` for the probes of orchestrators and proxies. Both work without a login, with any `Host` or none,
//! and tell no more than a probe needs: where PostgreSQL is and what it says is told on the broker's own machine only.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::auth::is_local;
use super::server::Peer;
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
async fn readyz(
    State(counters): State<Arc<Counters>>,
    Extension(Peer(peer)): Extension<Peer>,
    version: Version,
    headers: HeaderMap,
) -> Response {
    let awaited = counters.awaited().map(|cause| {
        let is_told = is_local(version, &headers, peer);
        format!(
            "PostgreSQL is awaited{}",
            if is_told { format!(": {cause}") } else { String::new() }
        )
    });
    let cause = match (counters.blocked().or(awaited), counters.stage()) {
        (Some(cause), _) => format!("cannot commit: {cause}\n"),
        (None, Stage::Opening) => "starting\n".to_owned(),
        (None, Stage::Checking | Stage::Checked) => return "ready\n".into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, cause).into_response()
}
