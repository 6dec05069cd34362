//! Middleware: attaches an [`Identity`] to each request, and refuses requests that need the read permission.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::authenticator::Authenticator;
use super::identity::Identity;
use crate::web::server::{Holder, Peer};

/// Adds the [`Identity`] to the request's extensions, or answers 401 or 429.
pub async fn authenticate(
    State(authenticator): State<Authenticator>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    mut request: Request,
    next: Next,
) -> Response {
    match authenticator.identify(request.version(), &headers, peer).await {
        Ok(identity) => {
            let holder = Holder(Arc::clone(&identity.holder));
            request.extensions_mut().insert(identity);
            let mut answer = next.run(request).await;
            answer.extensions_mut().insert(holder);
            answer
        }
        Err(error) => error.into_response(),
    }
}

/// Answers 401 or 403 when the [`Identity`] may not read. [`authenticate`] has to run before it.
pub async fn require_read(request: Request, next: Next) -> Response {
    match request.extensions().get::<Identity>() {
        Some(identity) if !identity.may_read => identity.refuse("read the log and the boards"),
        Some(_) => next.run(request).await,
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
