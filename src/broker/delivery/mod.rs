//! Who gets a message, and what waits for whom.

pub(in crate::broker) mod copies;
pub(in crate::broker) mod envelope;
pub(in crate::broker) mod inbox;
pub(in crate::broker) mod ledger;
pub(in crate::broker) mod outbound;
pub(in crate::broker) mod publication;
pub(in crate::broker) mod replay;
pub(in crate::broker) mod retained;
pub(in crate::broker) mod router;
pub(in crate::broker) mod subscriptions;
