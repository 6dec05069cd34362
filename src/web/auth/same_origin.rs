//! Protection of the operator's browser: refuses requests by another host name (DNS rebinding) or from another site's
//! page, and sends the headers that forbid framing and foreign scripts.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::web::http_error::HttpError;

/// Scripts, styles and connections only of this broker, and nothing inline: markup in a node's name would stay
/// text even if the page forgot to escape it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Host names of this broker. A request's `Host` header has to be one of them, or an IP address.
#[derive(Debug, Clone, Default)]
pub struct HostNames(Arc<[String]>);

impl HostNames {
    /// `localhost`, this machine's own name with and without `.local`, and `more`.
    pub fn new(own: &str, more: &[String]) -> Self {
        let own = own.to_ascii_lowercase();
        let names = [String::from("localhost"), format!("{own}.local"), own];
        let more = more.iter().map(|name| name.to_ascii_lowercase());
        Self(names.into_iter().chain(more).filter(|name| !name.is_empty()).collect())
    }

    /// Whether a `Host` header names this broker. An IP address always does: after DNS rebinding the header holds
    /// the other site's name.
    fn contains(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

/// A `Host` without its port.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// Answers 421 to another host name and 403 to a change from another site's page; adds the security headers to every
/// response.
pub async fn protect(State(names): State<HostNames>, request: Request, next: Next) -> Response {
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

fn check(names: &HostNames, request: &Request) -> Result<(), HttpError> {
    // A probe uses any name, and its answer holds nothing to protect.
    if ["/healthz", "/readyz"].contains(&request.uri().path()) {
        return Ok(());
    }
    let text =
        |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).or(request.uri().authority().map(Authority::as_str));
    match host {
        Some(host) if names.contains(host) => {}
        _ => {
            return Err(HttpError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "unknown host name; use the broker's IP address, or add the name to HUMIDOR_HTTP_HOSTS",
            ));
        }
    }
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if !is_safe && !is_same_origin(request.headers(), host) {
        return Err(HttpError::new(
            StatusCode::FORBIDDEN,
            "the request came from another site's page; only the broker's own page may send it",
        ));
    }
    Ok(())
}

/// Whether a request comes from a page of this broker, or from a program that is no browser.
pub fn is_same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site"))
        && site != "same-origin"
        && site != "none"
    {
        return false;
    }
    let authority = |url: &'_ str| -> Option<String> {
        let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"))?;
        Some(rest.split('/').next().unwrap_or(rest).to_owned())
    };
    text(header::ORIGIN).is_none_or(|origin| authority(origin).as_deref() == host)
        && text(header::REFERER).is_none_or(|page| authority(page).as_deref() == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_known_name() {
        let names = HostNames::new("Box-3", &["plant.example.org".to_owned()]);
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
            assert!(names.contains(good), "{good}");
        }
        for bad in [
            "",
            ":8080",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "box-3:x",
        ] {
            assert!(!names.contains(bad), "{bad}");
        }
    }

    #[test]
    fn another_sites_page_is_not_the_same_origin() {
        let page = |pairs: &[(&'static str, &str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            is_same_origin(&headers.collect(), Some("127.0.0.1:8080"))
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
