//! The answer to a refused request, as its client reads it: a page for a browser, JSON for a program.

use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::response::{Html, IntoResponse, Response};

use crate::web::http_error::HttpError;

/// To a program that asks for another host name.
pub const UNKNOWN_HOST: &str =
    "unknown host name; use the broker's IP address, or add the name to HUMIDOR_HTTP_HOSTS";
/// Longest name that the page repeats, in characters.
const NAME_MAX_CHARS: usize = 253;

/// A page where the request asks for one and its host name is the cause; else the error as it is.
pub fn answer(error: HttpError, headers: &HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_page = text(header::ACCEPT).contains("text/html");
    if error.status() != StatusCode::MISDIRECTED_REQUEST || !is_page {
        return error.into_response();
    }
    let page = page(text(header::HOST), text(header::ACCEPT_LANGUAGE).starts_with("ko"));
    (error.status(), Html(page)).into_response()
}

fn page(host: &str, korean: bool) -> String {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    // Only what the setting takes is repeated: nothing of a request becomes markup.
    let is_name = (1..=NAME_MAX_CHARS).contains(&name.len()) && name.chars().all(fits);
    let name = match (is_name, korean) {
        (true, _) => name,
        (false, true) => "이름",
        (false, false) => "NAME",
    };
    let (language, title, text, address, setting) = if korean {
        (
            "ko",
            "브로커가 이 이름을 모릅니다",
            "다른 사이트가 이 페이지를 몰래 읽지 못하도록 브로커는 아는 이름에만 응답합니다.",
            "브로커의 IP 주소로 접속합니다. 예: http://192.168.1.20:8080/",
            "또는 브로커에 다음 설정을 추가하고 다시 시작합니다.",
        )
    } else {
        (
            "en",
            "The broker does not know this name",
            "It answers only to names that it knows, so that no other site can read this page through your browser.",
            "Use the broker's IP address, such as http://192.168.1.20:8080/",
            "Or set this on the broker, and start it again:",
        )
    };
    format!(
        "<!doctype html>\n<html lang=\"{language}\"><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>humidor</title>\n\
         <main><h1>{title}</h1>\n<p>{text}</p>\n<ul><li>{address}</li>\n\
         <li>{setting} <code>HUMIDOR_HTTP_HOSTS={name}</code></li></ul></main></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_repeats_a_host_name_and_nothing_else() {
        assert!(page("plant.example:8080", false).contains("HUMIDOR_HTTP_HOSTS=plant.example<"));
        for host in ["<script>", "a\"b", "", "🏠.example", &"x".repeat(300)] {
            assert!(page(host, false).contains("HUMIDOR_HTTP_HOSTS=NAME<"), "{host}");
        }
        assert!(page("plant.example", true).contains("lang=\"ko\""));
    }
}
