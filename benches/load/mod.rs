//! A load generator that leaves the processors to the broker: one thread, prebuilt frames of which a few bytes are
//! patched, one read and one write for all that a socket has. No runtime and no MQTT library: it knows the lengths of the
//! frames that it gets, so it counts acknowledgements and deliveries without decoding them.
//!
//! [`closed_loop`] keeps a number of publishes in flight and counts; [`open_loop`] publishes at times fixed in advance.
//! Both say how much CPU they took themselves and how much the broker took, so that a reader sees whether the generator
//! held the broker back.

#![allow(dead_code, unused_imports)] // every bench uses its part

mod closed_loop;
mod frame;
mod open_loop;
mod publisher;
mod readiness;
mod socket;
mod subscriber;

use std::net::SocketAddr;

pub use closed_loop::{Load, Throughput, closed_loop};
pub use open_loop::{Latencies, Rate, open_loop};
pub use socket::Socket;

/// The broker that takes the load.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub address: SocketAddr,
    /// Its process, whose CPU time is read.
    pub pid: u32,
}
