//! `/healthz` and `/readyz`: what an orchestrator asks. Neither needs a login, and neither tells more than
//! it needs to.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::web::Web;

/// The process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether readings are acknowledged; 503 while the log cannot commit.
pub async fn readyz(State(web): State<Web>) -> Response {
    match web.counters.blocked() {
        None => "ready\n".into_response(),
        Some(cause) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("cannot commit: {cause}\n")).into_response()
        }
    }
}
