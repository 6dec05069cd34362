//! The board's role: sample, keep, deliver.
//!
//! ```text
//! line → dht::decode → judge → outbox (SQLite) → session ═ MQTT QoS 1 ═> broker
//!                                  └──── deleted on PUBACK ────┘
//! ```

mod address;
mod judge;
pub mod lines;
mod outbox;
mod run;
mod sampler;
mod session;
mod window;

pub use address::{AddressError, BrokerAddress};
pub use judge::{Hold, Judge, Verdict};
pub use lines::LinesError;
pub use outbox::{OUTBOX_FILE, Outbox, OutboxKind, Waiting};
pub use run::{Backend, Node, NodeConfig, NodeError, SensorConfig};
pub use sampler::{LISTEN, SETTLE, Sensor};
