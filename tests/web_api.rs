//! The HTTP side: what is answered, to whom, and what is refused.

mod support;

use std::net::SocketAddr;

use support::http::get;
use support::{Process, broker};

fn web(data: &std::path::Path, more: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let (process, mqtt) = broker(data, "127.0.0.1:0", more);
    let line = process.said("listening for HTTP");
    let address = line.rsplit("address=").next().expect("the line has an address").trim();
    (process, mqtt, address.parse().expect("an address"))
}

#[test]
fn a_broker_that_can_commit_is_healthy_and_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _, http) = web(folder.path(), &[]);
    assert_eq!(get(http, "/healthz").status, 200);
    assert_eq!(get(http, "/readyz").status, 200);
    assert_eq!(get(http, "/nothing").status, 404);
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn http_can_be_off() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _) = broker(folder.path(), "127.0.0.1:0", &["--http-listen", "off"]);
    assert_eq!(broker.terminate(), Some(0));
}
