//! The broker's role: what a client sends is checked, committed, acknowledged and passed on, in this
//! order.
//!
//! ```text
//! socket → door → connection → client → publication ─ records, changes ─→ recorder → store (commit)
//!                                ↑                                           │ committed
//!                                ├── PUBACK ←────────────────────────────────┤
//!                                │                                           ↓
//! subscribers ←─── outflow ←─────┼──── live messages ←──────────── router (rumqttd)
//!                                └──── what waits for persistent sessions ←─ store
//! ```
//!
//! rumqttd acknowledges a publish before it is even appended in memory, so the sockets, the packets
//! and the acknowledgements are ours, and its router does what it is good at: fan-out to
//! subscribers.

mod access;
mod alarm;
mod alarms;
mod carrier;
mod claim;
mod client;
mod connection;
mod copies;
mod counters;
mod delivering;
mod door;
mod envelope;
mod flights;
mod grants;
mod inbox;
mod insider;
mod intake;
mod keeping;
mod ledger;
mod limits;
mod lobby;
mod login;
mod opening;
mod outflow;
mod pace;
mod packet;
#[cfg(any(test, fuzzing))]
pub mod probe;
mod publication;
mod recorder;
mod reload;
mod reply;
mod retained;
mod router;
mod routes;
mod rules;
mod run;
mod session;
mod sessions;
mod staging;
mod subscribing;
mod sys;
mod tls;
mod traffic;
mod tree;
mod upkeep;
mod users;
mod will;

pub use access::{Access, AccessConfig, AccessError, Anonymous, NotAdmitted, Password};
pub use alarm::{Alarm, AlarmConfig, AlarmRule, Change, Now, Quantity, Seen, Side};
pub use alarms::{AlarmState, Alarms};
pub use carrier::Stream;
pub use counters::Counters;
pub use door::{Arrival, Handshake, SideDoor, TCP_KEEPALIVE};
pub use grants::Grants;
pub use insider::{Ending, Heard, Insider, Load};
pub use limits::Limits;
pub use login::LoginError;
pub use packet::PACKET_MAX_BYTES;
pub use recorder::Live;
pub use rules::{ROLES, Role, Rule};
pub use run::{Broker, BrokerConfig, BrokerError};
pub use tls::TlsConfig;
pub use users::{Directory, USERS_FILE, UsersError, check_name, hash, is_world_readable};
