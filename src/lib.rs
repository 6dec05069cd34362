//! humidor: stores DHT11/DHT22 readings from small ARM boards, sent over MQTT. Every acknowledged reading is in the
//! log.
//!
//! One binary has both roles. The way of a reading, which is also the order of the modules:
//!
//! ```text
//! board (node)                                                      broker
//! gpio ─edges→ dht ─measurement→ node: plausibility → outbox ═ MQTT ═> broker: connection → commit → store
//!  ↑ sim                                    session ←── PUBACK ──────────────┘ after the commit     │
//!                                                                web · tail · export · db ←─────────┘
//! ```
//!
//! - [`board`] maps a pin to a line of a chip; [`gpio`] reads and drives lines; [`sim`] simulates sensors behind the
//!   traits of [`gpio`].
//! - [`dht`] is pure: it decodes edges into pulses, a 40-bit frame and a measurement, or a named fault.
//! - [`node`] samples sensors, checks plausibility, stores readings in an outbox (SQLite) and delivers them (rumqttc).
//! - [`wire`] defines topics and payloads, once for both roles.
//! - [`mqtt`] has topics, filters and messages as types, and the broker's codec (rumqttd's behind a strict check).
//! - [`broker`] serves MQTT clients: it commits before it acknowledges, and delivers to subscribers.
//! - [`store`] is the log; only this room knows its SQL.
//! - [`upstream`] forwards the log to a PostgreSQL database (tokio-postgres), where one is set.
//! - [`web`] serves the page, the API and the metrics over HTTP.
//! - [`cli`] parses the command line, [`config`] makes typed settings of it, [`app`] runs the commands, [`exit`] has the
//!   exit codes.

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

pub mod upstream;

pub mod web;

pub mod accept;
pub mod bounded_file;
pub mod clock;
pub mod export_format;
pub mod health;
pub mod shutdown;
pub mod throttled_log;
pub mod timeline;
pub mod tls;
pub mod visible_text;

pub mod app;
pub mod cli;
pub mod config;
pub mod exit;
