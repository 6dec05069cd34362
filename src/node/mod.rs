//! The board's role: sample, keep, deliver.
//!
//! ```text
//! line → dht::decode → judge → outbox (SQLite) → session ═ MQTT QoS 1 ═> broker
//!                                  └──── deleted on PUBACK ────┘
//! inputs · outputs ⇄ switches ⇄ session
//! ```

mod address;
mod config;
mod delivery;
mod discovery;
mod forget;
mod io;
mod run;
mod sampling;

pub use address::{AddressError, BrokerAddress};
pub use config::{
    Backend, InputConfig, LINES_PER_KIND_MAX, NodeConfig, OutputConfig, Safety, SensorConfig,
    TlsFiles,
};
pub use delivery::outbox::{OUTBOX_FILE, Outbox, OutboxKind};
pub use delivery::tunnel::TunnelError;
pub use forget::{Forget, ForgetError, Forgotten};
pub use io::lines::{Lines, LinesError};
pub use run::{Node, NodeError};
pub use sampling::sampler::{LISTEN, SETTLE, Sensor};
