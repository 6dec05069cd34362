//! The page's files, compiled into the binary: no folder to mount, and nothing loaded from another host. `build.rs` has
//! compressed them: the binary is smaller by two thirds of them, and a browser gets them as they are.
//!
//! `uPlot.iife.min.js` is uPlot 1.6.32 (MIT, `assets/uPlot.LICENSE`) from its npm package `uplot`, SHA-256
//! `19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::read::GzDecoder;

use super::compression::accepts_gzip;

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! compressed {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))
    };
}

/// Path, content type and content of each file, compressed by gzip.
const FILES: [(&str, &str, &[u8]); 12] = [
    ("/", "text/html; charset=utf-8", compressed!("index.html")),
    ("/style.css", "text/css; charset=utf-8", compressed!("style.css")),
    ("/app.js", SCRIPT, compressed!("app.js")),
    ("/chart.js", SCRIPT, compressed!("chart.js")),
    ("/first.js", SCRIPT, compressed!("first.js")),
    ("/state.js", SCRIPT, compressed!("state.js")),
    ("/text.js", SCRIPT, compressed!("text.js")),
    ("/upstream.js", SCRIPT, compressed!("upstream.js")),
    ("/versions.js", SCRIPT, compressed!("versions.js")),
    ("/view.js", SCRIPT, compressed!("view.js")),
    ("/uPlot.iife.min.js", SCRIPT, compressed!("uPlot.iife.min.js")),
    ("/api/v1/openapi.json", "application/json", compressed!("openapi.json")),
];

/// Their contents that a client has asked for without gzip: 0.2 MB if it was all of them.
static PLAIN: [OnceLock<Bytes>; FILES.len()] = [const { OnceLock::new() }; FILES.len()];

/// Routes of the files. They contain no data of the plant and need no login.
pub fn routes() -> Router {
    FILES.into_iter().enumerate().fold(Router::new(), |router, (index, (path, ..))| {
        router.route(path, get(async move |headers: HeaderMap| file(&headers, index)))
    })
}

fn file(headers: &HeaderMap, index: usize) -> Response {
    let (_, kind, compressed) = FILES[index];
    let etag = etag(compressed);
    // A proxy that compresses marks the tag as weak.
    let cached = headers
        .get(IF_NONE_MATCH)
        .and_then(|tag| tag.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    // The browser asks each time: after an update it never mixes files of two versions. The tag is that of the content,
    // compressed or not.
    let caching = [
        (ETAG, format!("W/{etag}")),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (VARY, "accept-encoding".to_owned()),
    ];
    if cached {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let kind = [(CONTENT_TYPE, kind)];
    if accepts_gzip(headers) {
        let body = Bytes::from_static(compressed);
        return (caching, kind, [(CONTENT_ENCODING, "gzip")], body).into_response();
    }
    // Kept: whoever asks for it again and again would else take the processor from everybody.
    let content = PLAIN[index].get_or_init(|| plain(compressed).into());
    (caching, kind, content.clone()).into_response()
}

/// A file of [`FILES`] for a client that takes no gzip: a script by hand, seldom a browser.
fn plain(compressed: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    GzDecoder::new(compressed)
        .read_to_end(&mut content)
        .expect("what build.rs compressed decompresses");
    content
}

fn etag(compressed: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    compressed.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use axum::body::HttpBody;
    use axum::http::header::ACCEPT_ENCODING;

    use super::*;

    /// Most bytes of a first visit, without headers.
    const TRANSFER_MAX_BYTES: usize = 64 * 1024;

    #[test]
    fn a_file_is_compressed_for_those_who_take_it_and_not_sent_again() {
        let answer = |pairs: &[(axum::http::HeaderName, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            file(&headers.collect(), 1)
        };
        for accept in ["gzip", "br, GZIP;q=0.5", "deflate,gzip"] {
            let packed = answer(&[(ACCEPT_ENCODING, accept)]);
            assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip", "{accept}");
        }
        for accept in ["", "identity", "gzip;q=0", "gzip; q=0.0", "br"] {
            let plain = answer(&[(ACCEPT_ENCODING, accept)]);
            assert!(!plain.headers().contains_key(CONTENT_ENCODING), "{accept}");
            let length = include_bytes!("assets/style.css").len();
            assert_eq!(plain.into_body().size_hint().exact(), Some(length as u64), "{accept}");
        }
        assert_eq!(plain(FILES[1].2), include_bytes!("assets/style.css"));
        let tag = etag(FILES[1].2);
        for sent in [tag.clone(), format!("W/{tag}"), format!("\"other\", W/{tag}")] {
            let headers = [(IF_NONE_MATCH, sent.parse().unwrap())].into_iter().collect();
            assert_eq!(file(&headers, 1).status(), StatusCode::NOT_MODIFIED, "{sent}");
        }
        assert_eq!(answer(&[(IF_NONE_MATCH, "\"other\"")]).status(), StatusCode::OK);
    }

    #[test]
    fn every_address_of_the_page_is_relative_so_that_it_may_be_below_a_prefix() {
        for (path, _, compressed) in FILES.iter().filter(|(path, ..)| !path.starts_with("/api/")) {
            let text = String::from_utf8(plain(compressed)).unwrap();
            for absolute in ["href=\"/", "src=\"/", "(\"/", "(`/", "= `/", "url(/"] {
                assert!(!text.contains(absolute), "{path}: {absolute}");
            }
        }
    }

    #[test]
    fn a_first_visit_is_small_and_loads_nothing_from_other_hosts() {
        let page = FILES.iter().filter(|(path, ..)| !path.starts_with("/api/"));
        let bytes: usize = page.map(|(.., compressed)| compressed.len()).sum();
        assert!(bytes <= TRANSFER_MAX_BYTES, "{bytes}");
        for (path, kind, compressed) in FILES {
            let text = String::from_utf8(plain(compressed)).unwrap();
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
        let (.., compressed) = FILES.iter().find(|(path, ..)| path.contains("uPlot")).unwrap();
        let content = plain(compressed);
        assert_eq!(content.len(), 51_081);
        assert!(content.starts_with(b"/*! https://github.com/leeoniya/uPlot (v1.6.32) */"));
    }
}
