//! What MQTT asks a server to keep over a restart.

pub(in crate::store) mod queue;
pub(in crate::store) mod retained;
pub(in crate::store) mod sessions;
