//! The board's role: sample, keep, deliver.
//!
//! ```text
//! line → dht::decode → judge → outbox (SQLite) → session ═ MQTT QoS 1 ═> broker
//!                                  └──── deleted on PUBACK ────┘
//! inputs · outputs ⇄ switches ⇄ session
//! ```

mod address;
mod delivery;
mod discovery;
mod forget;
mod io;
mod run;
mod sampling;

pub use address::{AddressError, BrokerAddress};
pub use delivery::outbox::{OUTBOX_FILE, Outbox, OutboxKind, Waiting};
pub use delivery::tunnel::{TlsFiles, TunnelError};
pub use discovery::device_id;
pub use forget::{Forget, ForgetError, Forgotten};
pub use io::lines::{Lines, LinesError};
pub use io::outputs::Safety;
pub use run::{Backend, InputConfig, Node, NodeConfig, NodeError, OutputConfig, SensorConfig};
pub use sampling::plausibility::{Hold, Judge, Verdict};
pub use sampling::sampler::{LISTEN, SETTLE, Sensor};
