//! Sessions: their subscriptions, their outbound queues, and the leases of client ids.
//!
//! `inflight`, `hold_back` → `outbound_queue` → `state` → `shared_subscriptions` → `subscriptions` → `registry` → `take_over`

pub(in crate::broker) mod contested;
pub(in crate::broker) mod hold_back;
pub(in crate::broker) mod inflight;
pub(in crate::broker) mod outbound_queue;
pub(in crate::broker) mod registry;
pub(in crate::broker) mod shared_subscriptions;
pub(in crate::broker) mod state;
pub(in crate::broker) mod subscriptions;
pub(in crate::broker) mod take_over;
