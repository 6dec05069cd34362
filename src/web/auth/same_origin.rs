//! Protection of the operator's browser: refuses requests by another host name (DNS rebinding) or from another site's
//! page, and sends the headers that forbid framing and foreign scripts.

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;

use super::host_names::{HostNames, name_of};
use super::refusal_page;
use crate::web::http_error::HttpError;

/// Scripts, styles and connections only of this broker, and nothing inline: markup in a node's name would stay
/// text even if the page forgot to escape it. The hash is that of [`refusal_page::STYLE`]: under a name that is refused
/// no file is to be had.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-2C5x0DYNYChxLA3U51+uHGKeOHBwjGkT3pDZYDMfFjo='; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
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

/// Answers 400 to a request without one clear `Host`, 421 to another host name and 403 to a change from another site's
/// page; adds the security headers to every response.
pub async fn protect(State(names): State<HostNames>, request: Request, next: Next) -> Response {
    let mut response = match check(&names, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => refusal_page::answer(error, request.headers()),
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
    let host = host_of(request)?;
    // A probe uses any name, and its answer holds nothing to protect.
    if ["/healthz", "/readyz"].contains(&request.uri().path()) {
        return Ok(());
    }
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
        return Err(HttpError::bad_request(&"a request of HTTP/1.1 needs a `Host` header"));
    }
    match host {
        Some(host) if names.contains(host) => {}
        Some(host) if !host.is_empty() && name_of(host).is_none() => {
            return Err(HttpError::bad_request(
                &"`Host` is neither a name nor an address, with or without a port",
            ));
        }
        _ => {
            return Err(HttpError::new(
                StatusCode::MISDIRECTED_REQUEST,
                refusal_page::UNKNOWN_HOST,
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

/// The host that a request asks for. A proxy before the broker, or a check behind this one, might look at another one
/// of two.
///
/// # Errors
/// 400 where there are two `Host` headers, or the request line names another host (RFC 9112 §3.2).
fn host_of(request: &Request) -> Result<Option<&str>, HttpError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    // A name has no other characters: what cannot be shown is malformed.
    let host = hosts.next().map(|value| value.to_str().unwrap_or("?"));
    if hosts.next().is_some() {
        return Err(HttpError::bad_request(&"a request has only one `Host` header"));
    }
    let target = request.uri().authority().map(Authority::as_str);
    match (host, target) {
        (Some(host), Some(target)) if !host.eq_ignore_ascii_case(target) => {
            Err(HttpError::bad_request(&"the request line and `Host` name two hosts"))
        }
        (host, target) => Ok(host.or(target)),
    }
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
    text(header::ORIGIN).is_none_or(|origin| is_at(origin, host))
        && text(header::REFERER).is_none_or(|page| is_at(page, host))
}

/// Whether a page's address is at `host`. A browser leaves the port of the scheme out; a proxy may write it into `Host`.
fn is_at(page: &str, host: Option<&str>) -> bool {
    let port = if page.starts_with("https:") { ":443" } else { ":80" };
    let (Some(page), Some(host)) = (authority(page), host) else { return false };
    page == host || host.strip_suffix(port) == Some(page) && name_of(host).is_some()
}

/// Whether a request comes from a page of the host that it asks for, whatever its port, or of one of `names`, or from a
/// program, which need not name an origin.
pub fn is_own_origin(names: &HostNames, headers: &HeaderMap, host: Option<&str>) -> bool {
    let host = host.and_then(name_of);
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok().and_then(authority);
        let is_host = |origin| {
            name_of(origin)
                .is_some_and(|name| host.is_some_and(|host| name.eq_ignore_ascii_case(host)))
        };
        origin.is_some_and(|origin| is_host(origin) || names.lists(origin))
    })
}

/// Host and port of a page's address.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"))?;
    rest.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_host_or_of_a_known_name_is_an_own_origin() {
        let names = HostNames::new("box-3", &["dashboards.example".to_owned()]);
        let own = |origins: &[&str], host| {
            let headers =
                origins.iter().map(|origin| (header::ORIGIN, origin.parse().unwrap())).collect();
            is_own_origin(&names, &headers, host)
        };
        let host = Some("plant.example:8080");
        assert!(own(&[], host) && own(&[], None));
        for origin in [
            "http://plant.example:8080",
            "https://Plant.example",
            "https://dashboards.example",
            "http://dashboards.example:3000",
            "http://box-3.local",
        ] {
            assert!(own(&[origin], host), "{origin}");
        }
        for origin in [
            "",
            "null",
            "plant.example:8080",
            "file://plant.example",
            "http://evil.example",
            "http://plant.example.evil.example",
            "http://plant.example@evil.example",
            "http://192.168.1.20",
            "http://evil.local",
        ] {
            assert!(!own(&[origin], host), "{origin}");
        }
        assert!(!own(&["http://plant.example:8080", "http://evil.example"], host));
        assert!(!own(&["http://plant.example:8080"], None));
    }

    #[test]
    fn the_policy_has_the_hash_of_the_refusals_style() {
        use base64::Engine;
        let hash = ring::digest::digest(&ring::digest::SHA256, refusal_page::STYLE.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(hash);
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
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
        let at = |origin: &str, host| {
            let headers = [(header::ORIGIN, origin.parse().unwrap())];
            is_same_origin(&headers.into_iter().collect(), Some(host))
        };
        for (origin, host) in [
            ("http://plant.example", "plant.example:80"),
            ("https://plant.example", "plant.example:443"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert!(at(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://plant.example", "plant.example:443"),
            ("https://plant.example", "plant.example:80"),
            ("http://plant.example", "plant.example:8080"),
            ("http://plant.example:80", "plant.example:80:80"),
            ("http://plant", "plant.example:80"),
            ("", ":80"),
            ("http://", ":80"),
        ] {
            assert!(!at(origin, host), "{origin} {host}");
        }
    }
}
