//! The answer to a refused request, as its client reads it: a page for a browser, JSON for a program.

use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::response::{Html, IntoResponse, Response};

use crate::web::http_error::HttpError;

/// To a program that asks for another host name.
pub const UNKNOWN_HOST: &str =
    "unknown host name; use the broker's IP address, or add the name to HUMIDOR_HTTP_HOSTS";
/// The style of the page. Whoever changes it puts its hash into the policy of `same_origin`.
pub const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:40em;margin:2em auto;padding:0 1em;word-break:keep-all;overflow-wrap:anywhere}h1{font-size:1.3em}li{margin:.5em 0}code{font-size:.85em}a{color:inherit}";
/// Longest name that the page repeats, in characters.
const NAME_MAX_CHARS: usize = 253;

/// To a program that asks for a path which is not there.
const NOTHING_HERE: &str = "nothing is at this path; the API is at /api/v1/, and a proxy that leads here below a prefix has to take the prefix off";

/// Answers a request for a path that is not there.
pub async fn not_found(headers: HeaderMap) -> Response {
    answer(HttpError::not_found(NOTHING_HERE), &headers)
}

/// A page where the request asks for one, and its host name or its path is the cause; else the error as it is.
pub fn answer(error: HttpError, headers: &HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let korean = text(header::ACCEPT_LANGUAGE).starts_with("ko");
    let page = match error.status() {
        _ if !text(header::ACCEPT).contains("text/html") => return error.into_response(),
        StatusCode::MISDIRECTED_REQUEST => unknown_host(text(header::HOST), korean),
        StatusCode::NOT_FOUND => nothing_here(korean),
        _ => return error.into_response(),
    };
    (error.status(), Html(page)).into_response()
}

fn unknown_host(host: &str, korean: bool) -> String {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    // Only what the setting takes is repeated: nothing of a request becomes markup.
    let is_name = (1..=NAME_MAX_CHARS).contains(&name.len()) && name.chars().all(fits);
    // One of digits would be an address.
    let is_word = |first: &str| first.bytes().any(|b| b.is_ascii_alphabetic());
    let short = name.split_once('.').filter(|(first, _)| is_name && is_word(first));
    let short = short.zip(port.parse::<u16>().ok()).map(|((first, _), port)| {
        // Such a name is the local network's own.
        let address = format!("<a href=\"http://{first}:{port}/\">http://{first}:{port}/</a>");
        if korean {
            format!("공유기가 붙인 이름이라면 뒷부분을 빼고 접속할 수도 있습니다. {address}")
        } else {
            format!("If your router gave it the name, its first part alone may do: {address}")
        }
    });
    let short = short.as_deref().unwrap_or_default();
    let name = match (is_name, korean) {
        (true, _) => name,
        (false, true) => "이름",
        (false, false) => "NAME",
    };
    let setting = format!("<code>HUMIDOR_HTTP_HOSTS={name}</code>");
    if korean {
        page(
            true,
            "브로커가 이 이름을 모릅니다",
            "다른 사이트가 이 페이지를 몰래 읽지 못하도록 브로커는 아는 이름에만 응답합니다.",
            &[
                "브로커의 IP 주소로 접속합니다. 예: http://192.168.1.20:8080/",
                short,
                &format!("또는 브로커에 다음 설정을 추가하고 다시 시작합니다. {setting}"),
            ],
        )
    } else {
        page(
            false,
            "The broker does not know this name",
            "It answers only to names that it knows, so that no other site can read this page through your browser.",
            &[
                "Use the broker's IP address, such as http://192.168.1.20:8080/",
                short,
                &format!("Or set this on the broker, and start it again: {setting}"),
            ],
        )
    }
}

fn nothing_here(korean: bool) -> String {
    if korean {
        page(
            true,
            "이 주소에는 아무것도 없습니다",
            "humidor 페이지는 브로커 주소의 최상위 경로에 있습니다.",
            &[
                "경로 없이 접속합니다. 예: http://192.168.1.20:8080/",
                "프록시의 하위 경로로 접속했다면 프록시가 그 경로를 떼고 전달해야 합니다.",
            ],
        )
    } else {
        page(
            false,
            "There is nothing at this address",
            "The page of humidor is at the root of the broker's address.",
            &[
                "Leave the path out, as in http://192.168.1.20:8080/",
                "If a proxy leads here below a prefix, the proxy has to take the prefix off.",
            ],
        )
    }
}

/// An empty item is left out.
fn page(korean: bool, title: &str, text: &str, items: &[&str]) -> String {
    let language = if korean { "ko" } else { "en" };
    let items: Vec<&str> = items.iter().copied().filter(|item| !item.is_empty()).collect();
    let items = items.join("</li>\n<li>");
    format!(
        "<!doctype html>\n<html lang=\"{language}\"><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>humidor</title>\n<style>{STYLE}</style>\n\
         <main><h1>{title}</h1>\n<p>{text}</p>\n<ul><li>{items}</li></ul></main></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_repeats_a_host_name_and_nothing_else() {
        assert!(
            unknown_host("plant.example:8080", false).contains("HUMIDOR_HTTP_HOSTS=plant.example<")
        );
        for host in ["<script>", "a\"b", "", "🏠.example", &"x".repeat(300)] {
            assert!(unknown_host(host, false).contains("HUMIDOR_HTTP_HOSTS=NAME<"), "{host}");
            assert!(!unknown_host(host, false).contains("href"), "{host}");
        }
        assert!(unknown_host("pi.fritz.box", false).contains("<a href=\"http://pi:80/\">"));
        for host in [
            ".example",
            "10.0.0.1.example",
            "pi.example:8080\">",
            "pi.example:",
            "pi.example:99999",
        ] {
            assert!(!unknown_host(host, false).contains("href"), "{host}");
        }
        assert!(unknown_host("plant.example", true).contains("lang=\"ko\""));
    }
}
