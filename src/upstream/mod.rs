//! Forwards the log to a PostgreSQL database, which survives the board: see `docs/UPSTREAM.md`.
//!
//! ```text
//! store (queue, in the commit's transaction) → forwarder → batch ═ PostgreSQL, synchronous ═> committed → PUBACK, if it waits
//!                                                  ↑ cursor: what PostgreSQL says it has, in every session
//! ```

mod address;
mod batch;
mod columns;
mod config;
mod connect;
mod copy;
mod cursor;
mod fault;
mod forwarder;
mod forwarding;
mod operator;
mod pace;
mod schema;
mod tls;
mod transfer;

pub use address::{AddressError, UpstreamAddress};
pub use config::{Acknowledge, Secret, Target, UpstreamConfig};
pub use fault::{Fault, Kind};
pub use forwarder::{Forwarder, Upstream};
pub use forwarding::{Forwarding, UpstreamStatus};
pub use operator::{ForwardedLog, gaps, logs, migrate};
