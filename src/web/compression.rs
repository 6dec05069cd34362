//! Compresses answers for clients that take gzip. The numbers of a chart shrink to a fifth.

use std::io::Write;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, VARY,
};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::task::spawn_blocking;

use super::http_error::HttpError;

/// A smaller answer fits into one packet as it is, in bytes.
const SMALLEST_BYTES: u64 = 1_024;

/// Middleware: compresses JSON of which the length is known; streams go as they are.
pub async fn compress_json(request: Request, next: Next) -> Response {
    let accepted = accepts_gzip(request.headers());
    let response = next.run(request).await;
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let length = response.body().size_hint().exact();
    if !is_json || length.is_none_or(|length| length < SMALLEST_BYTES) {
        return response;
    }
    let (mut parts, mut body) = response.into_parts();
    parts.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if accepted {
        let stopping = || HttpError::unavailable("the broker is stopping").into_response();
        // It is in memory already.
        let Ok(bytes) = to_bytes(body, usize::MAX).await else { return stopping() };
        // A board takes some ms, in which others are served.
        let packed = spawn_blocking(move || gzip(&bytes, Compression::fast()));
        let Ok(packed) = packed.await else { return stopping() };
        parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        parts.headers.remove(CONTENT_LENGTH);
        body = Body::from(packed);
    }
    Response::from_parts(parts, body)
}

/// Whether the client takes gzip (RFC 9110 §12.5.3); `gzip;q=0` says that it does not.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
    })
}

/// `content`, compressed.
pub fn gzip(content: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("a vector takes every write")
}
