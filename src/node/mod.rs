//! The board's role: sample, keep, deliver.
//!
//! ```text
//! line → dht::decode → judge → outbox (SQLite) → session ═ MQTT QoS 1 ═> broker
//!                                  └──── deleted on PUBACK ────┘
//! ```

mod judge;
mod outbox;
mod run;
mod sampler;
mod session;

pub use judge::{Hold, Judge, Verdict};
pub use outbox::{OUTBOX_FILE, Outbox, OutboxKind, Waiting};
pub use run::{Backend, Node, NodeConfig, NodeError, SensorConfig};
pub use session::BrokerAddress;
