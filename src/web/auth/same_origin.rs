//! What a browser of the plant might be tricked into: other hosts' names for this address (DNS rebinding),
//! requests from other sites' pages, pages inside other pages, scripts from elsewhere.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::web::http_error::HttpError;

/// Everything from here, nothing inline, nowhere else to: a node's name with markup in it would stay text
/// even if the page forgot to treat it so.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Names that a request may call this broker by, besides addresses.
#[derive(Debug, Clone, Default)]
pub struct Names(Arc<[String]>);

impl Names {
    /// `localhost`, this machine's own name, and `more`.
    pub fn new(own: &str, more: &[String]) -> Self {
        let own = own.to_ascii_lowercase();
        let names = [String::from("localhost"), format!("{own}.local"), own];
        let more = more.iter().map(|name| name.to_ascii_lowercase());
        Self(names.into_iter().chain(more).filter(|name| !name.is_empty()).collect())
    }

    /// Whether a `Host` header names this broker. An address always does: no name server can turn another
    /// site's name into one.
    fn has(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// Refuses what came by another's name or from another's page, and says on every answer what a browser may do
/// with it.
pub async fn guard(State(names): State<Names>, request: Request, next: Next) -> Response {
    let mut response = match check(&names, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn check(names: &Names, request: &Request) -> Result<(), HttpError> {
    // Probes call by whatever address they have, and are told nothing worth protecting.
    if ["/healthz", "/readyz"].contains(&request.uri().path()) {
        return Ok(());
    }
    let text =
        |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).or(request.uri().authority().map(Authority::as_str));
    match host {
        Some(host) if names.has(host) => {}
        _ => {
            return Err(HttpError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "this broker is not known by that name; call it by its address, or name it in HUMIDOR_HTTP_HOSTS",
            ));
        }
    }
    let reading = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if !reading && !is_own_page(request.headers(), host) {
        return Err(HttpError::new(StatusCode::FORBIDDEN, "that came from another site's page"));
    }
    Ok(())
}

/// Whether a request comes from a page of this broker, or from no page at all.
pub fn is_own_page(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site"))
        && site != "same-origin"
        && site != "none"
    {
        return false;
    }
    text(header::ORIGIN).is_none_or(|origin| {
        let authority = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        authority.is_some() && authority == host
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_known_name() {
        let names = Names::new("Box-3", &["plant.example.org".to_owned()]);
        for good in [
            "127.0.0.1:8080",
            "192.168.1.20",
            "[::1]:8080",
            "[fe80::1]",
            "localhost:8080",
            "LOCALHOST",
            "box-3:8080",
            "box-3.local",
            "plant.example.org",
        ] {
            assert!(names.has(good), "{good}");
        }
        for bad in [
            "",
            ":8080",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "box-3:x",
        ] {
            assert!(!names.has(bad), "{bad}");
        }
    }

    #[test]
    fn another_sites_page_changes_nothing() {
        let page = |pairs: &[(&'static str, &str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            is_own_page(&headers.collect(), Some("127.0.0.1:8080"))
        };
        assert!(page(&[]));
        assert!(page(&[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")]));
        for other in [
            "null",
            "",
            "http://127.0.0.1:9090",
            "http://evil.example",
            "http://127.0.0.1:8080.evil",
        ] {
            assert!(!page(&[("origin", other)]), "{other}");
        }
        assert!(!page(&[("sec-fetch-site", "cross-site")]));
        assert!(!page(&[("sec-fetch-site", "same-site")]));
    }
}
