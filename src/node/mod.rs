//! The board's role: read sensors, store readings until the broker has acknowledged them, switch outputs.
//!
//! ```text
//! sampling: line → dht::decode → plausibility → delivery: outbox → session ═ MQTT QoS 1 ═> broker
//!                                                            ↑ removed on PUBACK ←────────────┘
//! io: inputs · outputs ⇄ switches ⇄ delivery: session
//! ```
//!
//! - `config` has the typed settings, `address` a broker's address, `brokers` the list of them.
//! - `sampling` decides when a sensor is read and whether a measurement is plausible.
//! - `io` opens lines, reads inputs and drives outputs.
//! - `discovery` describes the node to Home Assistant.
//! - `delivery` has the outbox and the MQTT session. It and `forget` alone use rumqttc.
//! - `health` says how the node is.
//! - `run` starts and ends all of it.

mod address;
mod brokers;
mod config;
mod delivery;
mod discovery;
mod forget;
mod health;
mod io;
mod run;
mod sampling;

pub use address::{AddressError, BrokerAddress};
pub use brokers::{BROKERS_MAX, Brokers, BrokersError};
pub use config::{
    Backend, DeliveryTimes, InputConfig, LINES_PER_KIND_MAX, NodeConfig, OutputConfig, Safety,
    SensorConfig, TlsFiles,
};
pub use delivery::login_trial::{LOGIN_TIMEOUT, LoginTrial};
pub use delivery::outbox::{OUTBOX_FILE, Outbox, OutboxKind};
pub use delivery::tunnel::TunnelError;
pub use forget::{Forget, ForgetError, Forgotten};
pub use health::NodeHealth;
pub use io::lines::{Lines, LinesError, OpenLines};
pub use io::outputs::Output;
pub use run::{Node, NodeError};
pub use sampling::sampler::{LISTEN, SETTLE, Sensor};
