//! rumqttd's stock broker, as a peer: in this process, on a port from the system.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

use super::wait_until;

/// The stock broker of this process. It has no shutdown, so it lives as long as the process.
pub fn stock_broker() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let server = ServerSettings {
            name: "stock".to_owned(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: None,
            next_connection_delay_ms: 0,
            connections: ConnectionSettings {
                connection_timeout_ms: 60_000,
                max_payload_size: 20 * 1024,
                max_inflight_count: 100,
                auth: None,
                external_auth: None,
                dynamic_filters: true,
            },
        };
        let router = RouterConfig {
            max_connections: 2000,
            max_outgoing_packet_count: 200,
            max_segment_size: 1024 * 1024,
            max_segment_count: 10,
            ..RouterConfig::default()
        };
        let v4 = Some(HashMap::from([("stock".to_owned(), server)]));
        let mut broker = Broker::new(Config { router, v4, ..Config::default() });
        std::thread::spawn(move || broker.start().expect("the stock broker starts"));
        let mut address = None;
        wait_until("the stock broker listens", || {
            address = listening();
            address.is_some()
        });
        address.expect("it listens")
    })
}

/// The address at which this process listens: the broker takes port 0 and does not tell which one it got.
fn listening() -> Option<SocketAddr> {
    let own: HashSet<String> = std::fs::read_dir("/proc/self/fd")
        .ok()?
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
    sockets.lines().find_map(|line| {
        // proc(5): sl, local_address, rem_address, st, …, inode in the tenth column. State 0A is LISTEN.
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        if *state != "0A" || !own.contains(*inode) {
            return None;
        }
        let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
        Some((Ipv4Addr::LOCALHOST, port).into())
    })
}
