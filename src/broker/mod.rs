//! The broker's role: a client's message is checked, committed, delivered and acknowledged, in this order.
//!
//! ```text
//! socket → listener → connection → client ─── batch ───→ writer → store (commit)
//!                        ↑  ↑                             │ committed
//!                        │  └── PUBACK ←── delivered ←────┤
//!                        │                                ↓
//! subscriber's socket ←──┴── outbound side ←── queue ←── fan-out (subscription index)
//!                                 ↑
//!                                 └── messages that wait for persistent sessions ←── store
//! ```
//!
//! rumqttd's broker acknowledges a message before it is stored. So sockets, sessions, deliveries and acknowledgements
//! are in this room, and only the codec of rumqttd is used, behind the strict check of [`crate::mqtt::codec`].

mod access;
mod alarm;
mod commit;
mod config;
mod connection;
mod context;
mod counters;
mod delivery;
mod error;
mod forget;
mod listener;
mod near_numbers;
mod net;
mod open_log;
mod run;
mod session;
mod status;

pub use access::acl::{ROLES, Role, Rule};
pub use access::permissions::Permissions;
pub use access::users::{
    Directory, HAD_USERS_FILE, KNOWN_CLIENTS_FILE, USERS_FILE, UsersError, check_name, hash,
    is_world_readable, new_id,
};
pub use access::{
    Access, AccessConfig, AccessError, Anonymous, BOARDS_USER, NotAdmitted, Password,
    RefusedClient, UserOfBoards,
};
pub use alarm::config::{AlarmConfig, AlarmRule, Quantity, Side};
pub use alarm::rule::{Alarm, Change, Now, Seen};
pub use alarm::state::{AlarmState, Alarms};
pub use commit::live::Live;
pub use config::BrokerConfig;
pub use context::Stopping;
pub use counters::{Counters, Stage};
pub use error::BrokerError;
pub use listener::{Handoff, Handshake, Incoming};
pub use near_numbers::{NearMiss, NearNumbers};
pub use net::limits::{Limits, origin};
pub use net::tls::TlsConfig;
pub use net::transport::Stream;
pub use run::{Broker, Listening};
pub use status::local_client::{Load, LocalClient, LocalMessage, Loss};
