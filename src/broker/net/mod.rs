//! Connections below MQTT: admission, limits, shares, rates, streams, TLS.

pub(in crate::broker) mod admission;
pub(in crate::broker) mod buffers;
pub(in crate::broker) mod limits;
pub(in crate::broker) mod rate_limit;
pub(in crate::broker) mod reload;
pub(in crate::broker) mod shares;
pub(in crate::broker) mod tls;
pub(in crate::broker) mod token_bucket;
pub(in crate::broker) mod transport;
pub(in crate::broker) mod turns;
mod without_login;
