//! What any request may cost: bytes of its body and time until its answer begins.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Largest body of a request, in bytes. A login or a command is far smaller.
pub const BODY_MAX_BYTES: usize = 16 * 1024;
/// Longest time from a request's headers to its answer's.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Bounds every request of `router`.
pub fn bounded(router: Router) -> Router {
    router.layer(DefaultBodyLimit::max(BODY_MAX_BYTES)).layer(axum::middleware::from_fn(within))
}

async fn within(request: Request, next: Next) -> Response {
    tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await.unwrap_or_else(|_| {
        (StatusCode::GATEWAY_TIMEOUT, "no answer in time; try again\n").into_response()
    })
}
