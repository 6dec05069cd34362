//! What travels over MQTT: topics and payloads, one truth for the node that sends and the broker
//! that stores. The full text is in `docs/PROTOCOL.md`.

mod board;
mod discovery;
mod numbers;
mod payload;
mod switch;
mod topic;

pub use board::BoardTopic;
pub use discovery::{
    BROKER_DEVICE_ID, Component, Device, Discovery, DiscoveryError, Platform,
    is_device_description, node_device_id,
};
pub use numbers::{NearNumber, NumberError, Numbers, near_number, numbers};
pub use payload::{Health, PayloadError, ReadCounts, Telemetry};
pub use switch::{Command, CommandError, FOR_MAX_MS, Switch, Wanted};
pub use topic::{
    BROKER_STATUS, CLIENT_ID_PREFIX, HEALTHS, NodeTopics, OFFLINE, ONLINE, STATUSES, SYS_BROKER,
    alarm_topic, is_brokers_own, is_command, is_ours, is_reserved_id, is_status_of, status_source,
    telemetry_source,
};
