//! humidor: DHT11/DHT22 readings from small ARM boards, over MQTT, into a log that keeps what it
//! acknowledged.
//!
//! One binary plays both roles. A reading's way through it, which is also the order of the modules:
//!
//! ```text
//! board (node)                                          broker
//! gpio ─edges→ dht ─measurement→ node: judge → outbox ═ MQTT ═> broker: connection → recorder → store
//!  ↑ sim                               session ←── PUBACK ──────────────┘ after the commit      │
//!                                                              tail · export · db ←─────────────┘
//! ```
//!
//! - [`board`] knows which line of which chip a pin is; [`gpio`] is the border to the pins, [`sim`]
//!   plays sensors behind the same border.
//! - [`dht`] is pure: edges to pulses to a 40-bit frame to a measurement, or a named fault.
//! - [`node`] samples, judges, keeps (SQLite) and delivers (rumqttc).
//! - [`wire`] has topics and payloads, one truth for both roles.
//! - [`broker`] owns the sockets, commits before it acknowledges, and lets rumqttd's router fan out.
//! - [`store`] is the log; nothing else knows its SQL.
//! - [`web`] shows the log and the boards over HTTP.
//! - [`cli`] is the command line, [`config`] makes typed settings of it, [`app`] runs the commands, [`exit`] has the codes.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod reading;

pub mod board;
pub mod gpio;
pub mod sim;

pub mod dht;

pub mod wire;

pub mod mqtt;

pub mod node;

pub mod broker;

pub mod store;

pub mod web;

pub mod accept;
pub mod bounded_file;
pub mod clock;
pub mod export_format;
pub mod health;
pub mod shutdown;
pub mod tls;

pub mod app;
pub mod cli;
pub mod config;
pub mod exit;
