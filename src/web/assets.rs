//! The page's files, compiled into the binary: no folder to mount, and nothing loaded from another host.
//!
//! `uPlot.iife.min.js` is uPlot 1.6.32 (MIT, `assets/uPlot.LICENSE`) from its npm package `uplot`, SHA-256
//! `19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f`.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type and content of each file.
const FILES: [(&str, &str, &[u8]); 10] = [
    ("/", "text/html; charset=utf-8", include_bytes!("assets/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_bytes!("assets/style.css")),
    ("/app.js", SCRIPT, include_bytes!("assets/app.js")),
    ("/chart.js", SCRIPT, include_bytes!("assets/chart.js")),
    ("/first.js", SCRIPT, include_bytes!("assets/first.js")),
    ("/state.js", SCRIPT, include_bytes!("assets/state.js")),
    ("/text.js", SCRIPT, include_bytes!("assets/text.js")),
    ("/view.js", SCRIPT, include_bytes!("assets/view.js")),
    ("/uPlot.iife.min.js", SCRIPT, include_bytes!("assets/uPlot.iife.min.js")),
    ("/api/v1/openapi.json", "application/json", include_bytes!("assets/openapi.json")),
];

/// Routes of the files. They contain no data of the plant and need no login.
pub fn routes() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        let etag = etag(content);
        router
            .route(path, get(async move |headers: HeaderMap| file(&headers, kind, content, &etag)))
    })
}

fn file(headers: &HeaderMap, kind: &'static str, content: &'static [u8], etag: &str) -> Response {
    let cached = headers.get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == etag.as_bytes());
    // The browser asks each time: after an update it never mixes files of two versions.
    let caching = [(ETAG, etag.to_owned()), (CACHE_CONTROL, "no-cache".to_owned())];
    if cached {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(CONTENT_TYPE, kind)], Bytes::from_static(content)).into_response()
}

fn etag(content: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most bytes of a first visit, without headers.
    const TRANSFER_MAX_BYTES: usize = 120 * 1024;

    #[test]
    fn a_first_visit_is_small_and_loads_nothing_from_other_hosts() {
        let page = FILES.iter().filter(|(path, ..)| !path.starts_with("/api/"));
        assert!(page.map(|(.., content)| content.len()).sum::<usize>() <= TRANSFER_MAX_BYTES);
        for (path, kind, content) in FILES {
            let text = std::str::from_utf8(content).unwrap();
            let elsewhere = text.match_indices("://").filter(|(at, _)| {
                // XML namespaces and the address in uPlot's licence line are names, never loaded.
                let rest = &text[at + 3..];
                // No page loads from a broker's address.
                !text[..*at].ends_with("mqtt")
                    && !rest.starts_with("www.w3.org/")
                    && !rest.starts_with("github.com/leeoniya/uPlot")
            });
            assert_eq!(elsewhere.count(), 0, "{path}");
            if kind == SCRIPT && !path.contains("uPlot") {
                assert!(!text.contains("innerHTML") && !text.contains("eval("), "{path}");
            }
        }
    }

    #[test]
    fn the_chart_library_is_the_named_release() {
        let (.., content) = FILES.iter().find(|(path, ..)| path.contains("uPlot")).unwrap();
        assert_eq!(content.len(), 51_081);
        assert!(content.starts_with(b"/*! https://github.com/leeoniya/uPlot (v1.6.32) */"));
    }
}
