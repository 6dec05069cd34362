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
mod commit;
mod connection;
mod context;
mod counters;
mod delivery;
mod listener;
mod net;
mod run;
mod session;
mod status;

pub use access::acl::{ROLES, Role, Rule};
pub use access::login_attempts::LoginError;
pub use access::permissions::Permissions;
pub use access::users::{Directory, USERS_FILE, UsersError, check_name, hash, is_world_readable};
pub use access::{Access, AccessConfig, AccessError, Anonymous, NotAdmitted, Password};
pub use alarm::rule::{Alarm, AlarmConfig, AlarmRule, Change, Now, Quantity, Seen, Side};
pub use alarm::watch::{AlarmState, Alarms};
pub use commit::group_commit::Live;
pub use context::Stopping;
pub use counters::Counters;
pub use listener::{Handoff, Handshake, Incoming};
pub use net::limits::Limits;
pub use net::tls::TlsConfig;
pub use net::transport::Stream;
pub use run::{Broker, BrokerConfig, BrokerError};
pub use status::local_client::{Load, LocalClient, LocalMessage};
