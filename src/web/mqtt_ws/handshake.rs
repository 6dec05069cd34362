//! `/mqtt`: MQTT over WebSocket (MQTT 5.0 §6, RFC 6455 §4.2). The handshake is answered here; what comes after it goes
//! through the broker's door like any other client, to its limits and its login.

use axum::extract::{Extension, Request, State};
use axum::http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::byte_stream::WebSocket;
use crate::broker::{Arrival, Stream};
use crate::web::Web;
use crate::web::auth::same_origin::is_same_origin;
use crate::web::http_error::HttpError;
use crate::web::server::Peer;

/// [MQTT-6.0.0-3]
const SUBPROTOCOL: &str = "mqtt";
/// RFC 6455 §4.1
const VERSION: &str = "13";
/// RFC 6455 §1.3
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Turns a request into an MQTT connection.
///
/// Cookies mean nothing here: who somebody is, CONNECT says. But where a name is not asked for, the page of any site
/// that somebody in the plant looks at could come in through their browser, so there only pages of this broker may.
pub async fn mqtt(
    State(web): State<Web>,
    Extension(Peer(peer)): Extension<Peer>,
    mut request: Request,
) -> Result<Response, HttpError> {
    let headers = request.headers();
    if web.authenticator.refuses_remote(headers, peer) {
        return Err(HttpError::new(
            StatusCode::FORBIDDEN,
            "only clients on this machine may connect while there is no user; see HUMIDOR_ANONYMOUS",
        ));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if web.authenticator.admits_anonymous() && !is_same_origin(headers, host) {
        return Err(HttpError::new(
            StatusCode::FORBIDDEN,
            "another site's page may connect only where clients have to log in",
        ));
    }
    let accept = match accept(request.method(), request.version(), headers) {
        Ok(accept) => accept,
        Err(error) => {
            let how = [
                (UPGRADE, HeaderValue::from_static("websocket")),
                (SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION)),
            ];
            return Ok((how, error).into_response());
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let stream = async {
        let upgraded = upgrade.await.map_err(std::io::Error::other)?;
        Ok(Box::new(WebSocket::new(TokioIo::new(upgraded))) as Box<dyn Stream>)
    };
    let arrival = Arrival { peer, over: "WebSocket", stream: Box::pin(stream) };
    web.side_door
        .hand(arrival)
        .await
        .map_err(|ending| HttpError::unavailable(ending.to_string()))?;
    let answer = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
        (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, answer).into_response())
}

/// Checks a handshake; the value is its `Sec-WebSocket-Accept` (RFC 6455 §4.2.2).
fn accept(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<HeaderValue, HttpError> {
    let upgrades = lists(headers, &CONNECTION, |word| word.eq_ignore_ascii_case("upgrade"))
        && lists(headers, &UPGRADE, |word| word.eq_ignore_ascii_case("websocket"));
    if method != Method::GET || version != Version::HTTP_11 || !upgrades {
        return Err(HttpError::new(
            StatusCode::UPGRADE_REQUIRED,
            "here is MQTT over WebSocket; connect an MQTT client to it",
        ));
    }
    if !lists(headers, &SEC_WEBSOCKET_VERSION, |word| word == VERSION) {
        let error = "only version 13 of the WebSocket protocol is spoken here";
        return Err(HttpError::new(StatusCode::UPGRADE_REQUIRED, error));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(HttpError::bad_request(&"Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    // Case counts (RFC 6455 §4.1).
    if !lists(headers, &SEC_WEBSOCKET_PROTOCOL, |word| word == SUBPROTOCOL) {
        return Err(HttpError::bad_request(
            &"ask for the subprotocol `mqtt` (Sec-WebSocket-Protocol)",
        ));
    }
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat());
    HeaderValue::try_from(STANDARD.encode(hash)).map_err(|error| HttpError::bad_request(&error))
}

/// Whether a word of the lists in these headers is right.
fn lists(headers: &HeaderMap, name: &HeaderName, right: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|word| right(word.trim()))
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
    fn what_is_no_handshake_of_mqtt_is_refused() {
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
