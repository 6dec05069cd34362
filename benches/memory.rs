//! Resident memory of each broker, idle and with 1,000 connections: `cargo bench --bench memory`. Prints one line of JSON
//! a broker.

mod load;
mod measure;
mod peers;
#[path = "../tests/support/mod.rs"]
mod support;

use load::Socket;
use measure::process::resident_mb;
use measure::round;
use peers::Broker;
use serde_json::json;

const CONNECTIONS: usize = 1000;
/// Enough for a CONNACK.
const INBOUND_BYTES: usize = 64;

fn main() {
    peers::serve_if_asked();
    for broker in Broker::all() {
        let data = measure::folder();
        let running = broker.start(data.path());
        let idle = resident_mb(running.target.pid);
        let connect = |number| {
            Socket::connect(running.target.address, &format!("idle-{number}"), INBOUND_BYTES)
        };
        let connections: Vec<_> = (0..CONNECTIONS).map(connect).collect();
        println!(
            "{}",
            json!({
                "bench": "memory", "broker": broker.name, "idle_mb": round(idle, 1), "connections": connections.len(),
                "with_connections_mb": round(resident_mb(running.target.pid), 1),
            })
        );
    }
}
