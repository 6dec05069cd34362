//! Sessions: their subscriptions, their outbound queues, and the leases of client ids.
//!
//! `inflight`, `queue` → `session` → `shared` → `subscriptions` → `registry` → `lease`

pub(in crate::broker) mod inflight;
pub(in crate::broker) mod lease;
pub(in crate::broker) mod queue;
pub(in crate::broker) mod registry;
#[allow(clippy::module_inception)] // the room's central type
pub(in crate::broker) mod session;
pub(in crate::broker) mod shared;
pub(in crate::broker) mod subscriptions;
