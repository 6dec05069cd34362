//! `/api/v1/session`: log in and log out.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::http::header::{FORWARDED, HeaderMap, HeaderName, ORIGIN, RETRY_AFTER, SET_COOKIE};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;

use super::authenticator::{Authenticator, COOKIE_NAME, login_error, session_tokens};
use crate::broker::NotAdmitted;
use crate::web::http_error::HttpError;
use crate::web::server::Peer;

/// `Retry-After` when too many logins wait or were wrong, in seconds.
const RETRY_AFTER_BUSY_S: &str = "60";

/// The route of the login session.
pub fn routes(authenticator: Authenticator) -> Router {
    Router::new().route("/api/v1/session", post(log_in).delete(log_out)).with_state(authenticator)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    name: String,
    password: String,
}

/// Opens a session: 204 with a cookie, or 401 or 429.
async fn log_in(
    State(authenticator): State<Authenticator>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Response, HttpError> {
    let Json(Login { name, password }) = body?;
    if !authenticator.has_users() {
        return Err(HttpError::new(
            StatusCode::UNAUTHORIZED,
            "this broker has no users; create one with `humidor user add --role admin NAME`",
        ));
    }
    let permissions = match authenticator.check(peer, &headers, &name, &password).await {
        Ok(permissions) => permissions,
        Err(refusal @ NotAdmitted::Busy) => {
            let headers = [(RETRY_AFTER, RETRY_AFTER_BUSY_S)];
            return Ok((headers, login_error(refusal)).into_response());
        }
        Err(refusal) => return Err(login_error(refusal)),
    };
    let token = authenticator
        .sessions
        .open(name.into(), permissions)
        .map_err(|_| HttpError::unavailable("the system has no random bytes; try again later"))?;
    let secure = if came_over_tls(&headers) { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={token}; HttpOnly; SameSite=Strict; Path=/{secure}");
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Whether the page was loaded over TLS, by what its browser or a proxy says: then the cookie is for TLS only. One who
/// lies about it harms its own session.
fn came_over_tls(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, fits: fn(&str) -> bool| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(fits)
    };
    has(ORIGIN, |origin| origin.starts_with("https://"))
        || has(HeaderName::from_static("x-forwarded-proto"), |proto| proto == "https")
        || has(FORWARDED, |forwarded| forwarded.to_ascii_lowercase().contains("proto=https"))
}

/// Ends the session, if there is one: 204.
async fn log_out(State(authenticator): State<Authenticator>, headers: HeaderMap) -> Response {
    for token in session_tokens(&headers) {
        authenticator.sessions.close(token);
    }
    let cookie = format!("{COOKIE_NAME}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}
