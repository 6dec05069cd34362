//! From readings to acknowledgements: the outbox on the disk and the MQTT session that empties it.

pub mod back_off;
pub mod client;
pub mod frames;
pub mod history;
pub mod inbound;
pub mod inflight;
pub mod lanes;
pub mod login_trial;
pub mod outbox;
pub mod outbox_file;
pub mod publish;
pub mod publishing;
pub mod selection;
pub mod session;
pub mod subscriptions;
pub mod traffic;
pub mod tunnel;
pub mod vitals;
