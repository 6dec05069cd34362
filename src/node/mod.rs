//! The board's role: sample, keep, deliver.
//!
//! ```text
//! line → dht::decode → judge → outbox (SQLite) → session ═ MQTT QoS 1 ═> broker
//!                                  └──── deleted on PUBACK ────┘
//! inputs · outputs ⇄ switches ⇄ session
//! ```

mod address;
mod announce;
mod delivery;
mod forget;
mod inputs;
mod judge;
pub mod lines;
mod outbox;
mod outputs;
mod run;
mod sampler;
mod session;
mod switches;
mod tunnel;
mod window;

pub use address::{AddressError, BrokerAddress};
pub use announce::device_id;
pub use forget::{Forget, ForgetError, Forgotten};
pub use judge::{Hold, Judge, Verdict};
pub use lines::LinesError;
pub use outbox::{OUTBOX_FILE, Outbox, OutboxKind, Waiting};
pub use outputs::Safety;
pub use run::{Backend, InputConfig, Node, NodeConfig, NodeError, OutputConfig, SensorConfig};
pub use sampler::{LISTEN, SETTLE, Sensor};
pub use tunnel::{TlsFiles, TunnelError};
