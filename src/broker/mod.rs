//! The broker's role: what a client sends is checked, committed, acknowledged and passed on, in this
//! order.
//!
//! ```text
//! socket → door → connection → client → intake ─ records ─→ recorder → store (commit)
//!                                ↑                             │ committed
//!                                ├── PUBACK ←──────────────────┤
//!                                │                             ↓
//! subscribers ←──────────────────┴──── messages ←───── router (rumqttd)
//! ```
//!
//! rumqttd acknowledges a publish before it is even appended in memory, so the sockets, the packets
//! and the acknowledgements are ours, and its router does what it is good at: fan-out to
//! subscribers.

mod access;
mod carrier;
mod client;
mod connection;
mod door;
mod insider;
mod intake;
mod ledger;
mod packet;
mod recorder;
mod router;
mod run;
mod sessions;

pub use insider::{Heard, Insider};
pub use recorder::{Counters, Live};
pub use run::{Broker, BrokerConfig, BrokerError};
