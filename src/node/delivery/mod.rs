//! From readings to acknowledgements: the outbox on the disk and the MQTT session that empties it.

pub mod client;
pub mod inflight;
pub mod outbox;
pub mod publish;
pub mod session;
pub mod tunnel;
