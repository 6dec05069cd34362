//! Protection of the operator's browser: refuses requests by another host name (DNS rebinding) or from another site's
//! page, and sends the headers that forbid framing and foreign scripts.

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::host_names::HostNames;
use super::refusal_page;
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

/// Answers 421 to another host name and 403 to a change from another site's page; adds the security headers to every
/// response.
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
