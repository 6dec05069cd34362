//! `/mqtt`: the WebSocket handshake for MQTT (MQTT 5.0 §6, RFC 6455 §4.2). Afterwards the broker treats the client
//! like one on the MQTT port: the same limits, the same login.

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::byte_stream::ByteStream;
use crate::broker::{Handoff, Incoming, Stream};
use crate::web::auth::Authenticator;
use crate::web::auth::host_names::HostNames;
use crate::web::auth::same_origin::{is_own_origin, is_same_origin};
use crate::web::http_error::HttpError;
use crate::web::server::Peer;

/// The subprotocol of MQTT over WebSocket ([MQTT-6.0.0-3]).
const SUBPROTOCOL: &str = "mqtt";
/// The only version of the WebSocket protocol (RFC 6455 §4.1).
const WEBSOCKET_VERSION: &str = "13";
/// Hashed with the client's key (RFC 6455 §1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[derive(Clone)]
struct MqttState {
    authenticator: Authenticator,
    names: HostNames,
    handoff: Handoff,
}

/// The route of the handshake. Pages of `names` may connect, too; `handoff` takes the client's stream to the broker.
pub fn routes(authenticator: Authenticator, names: HostNames, handoff: Handoff) -> Router {
    Router::new().route("/mqtt", get(mqtt)).with_state(MqttState { authenticator, names, handoff })
}

/// Upgrades a request to an MQTT connection: 101.
///
/// Cookies are ignored; the client logs in with CONNECT. Where MQTT needs no login, the page of any site open in the
/// plant could connect through its visitor's browser. There only the broker's own pages may connect.
async fn mqtt(
    State(state): State<MqttState>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
) -> Result<Response, HttpError> {
    let headers = request.headers();
    if state.authenticator.refuses_remote(request.version(), headers, peer) {
        return Err(HttpError::new(
            StatusCode::FORBIDDEN,
            "the broker has no users, so only clients on its own machine may connect; add a user, or see HUMIDOR_ANONYMOUS",
        ));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if state.authenticator.admits_anonymous() && !is_same_origin(headers, host) {
        return Err(HttpError::new(
            StatusCode::FORBIDDEN,
            "the broker admits clients without a login, so a page of another site may not connect; see HUMIDOR_ANONYMOUS",
        ));
    }
    if !is_own_origin(&state.names, headers, host) {
        return Err(HttpError::new(
            StatusCode::FORBIDDEN,
            "a page of another site may not connect; add the page's host name to HUMIDOR_HTTP_HOSTS",
        ));
    }
    let accept = match accept(request.method(), request.version(), headers) {
        Ok(accept) => accept,
        Err(error) => {
            let supported = [
                (UPGRADE, HeaderValue::from_static("websocket")),
                (SEC_WEBSOCKET_VERSION, HeaderValue::from_static(WEBSOCKET_VERSION)),
            ];
            return Ok((supported, error).into_response());
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let stream = async {
        let upgraded = upgrade.await.map_err(std::io::Error::other)?;
        Ok(Box::new(ByteStream::new(TokioIo::new(upgraded))) as Box<dyn Stream>)
    };
    let arrival = Incoming { peer, over: "WebSocket", stream: Box::pin(stream) };
    state
        .handoff
        .hand_over(arrival)
        .await
        .map_err(|ending| HttpError::unavailable(ending.to_string()))?;
    let upgraded = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
        (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, upgraded).into_response())
}

/// Checks a handshake and returns its `Sec-WebSocket-Accept` (RFC 6455 §4.2.2).
///
/// # Errors
/// 426 when the request is no WebSocket upgrade of version 13, 400 without a valid key or the subprotocol `mqtt`.
fn accept(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<HeaderValue, HttpError> {
    let upgrades = lists(headers, &CONNECTION, |item| item.eq_ignore_ascii_case("upgrade"))
        && lists(headers, &UPGRADE, |item| item.eq_ignore_ascii_case("websocket"));
    if method != Method::GET || version != Version::HTTP_11 || !upgrades {
        return Err(HttpError::new(
            StatusCode::UPGRADE_REQUIRED,
            "this address is for MQTT over WebSocket; connect an MQTT client to it",
        ));
    }
    if !lists(headers, &SEC_WEBSOCKET_VERSION, |item| item == WEBSOCKET_VERSION) {
        let error = "only version 13 of the WebSocket protocol is supported";
        return Err(HttpError::new(StatusCode::UPGRADE_REQUIRED, error));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(HttpError::bad_request(&"`Sec-WebSocket-Key` must be 16 bytes in base64"));
    }
    // The subprotocol is case-sensitive (RFC 6455 §4.1).
    if !lists(headers, &SEC_WEBSOCKET_PROTOCOL, |item| item == SUBPROTOCOL) {
        return Err(HttpError::bad_request(&"`Sec-WebSocket-Protocol` must contain `mqtt`"));
    }
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_GUID.as_bytes()].concat());
    HeaderValue::try_from(STANDARD.encode(hash)).map_err(|error| HttpError::bad_request(&error))
}

/// Whether `wanted` accepts an item of the comma-separated lists in these headers.
fn lists(headers: &HeaderMap, name: &HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| wanted(item.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 5] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "mqttv3.1, mqtt"),
    ];

    fn answer(changed: (&str, &str)) -> Result<HeaderValue, StatusCode> {
        let pairs = GOOD.iter().filter(|(name, _)| *name != changed.0).chain([&changed]);
        let pairs = pairs.filter(|(_, value)| !value.is_empty());
        let headers = pairs.map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        });
        accept(&Method::GET, Version::HTTP_11, &headers.collect())
            .map_err(|error| error.into_response().status())
    }

    #[test]
    fn the_accept_is_that_of_the_rfc() {
        // RFC 6455 §1.3
        assert_eq!(answer(GOOD[0]).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_malformed_handshake_is_refused() {
        for (name, value, status) in [
            ("connection", "keep-alive", StatusCode::UPGRADE_REQUIRED),
            ("upgrade", "h2c", StatusCode::UPGRADE_REQUIRED),
            ("sec-websocket-version", "8", StatusCode::UPGRADE_REQUIRED),
            ("sec-websocket-key", "", StatusCode::BAD_REQUEST),
            ("sec-websocket-key", "c2hvcnQ=", StatusCode::BAD_REQUEST),
            ("sec-websocket-key", "************************", StatusCode::BAD_REQUEST),
            ("sec-websocket-protocol", "", StatusCode::BAD_REQUEST),
            ("sec-websocket-protocol", "MQTT", StatusCode::BAD_REQUEST),
            ("sec-websocket-protocol", "wamp", StatusCode::BAD_REQUEST),
        ] {
            assert_eq!(answer((name, value)), Err(status), "{name}: {value}");
        }
    }
}
