//! Commits: the classification of a PUBLISH, batches, and the writer thread.

pub(in crate::broker) mod batch;
pub(in crate::broker) mod classify;
pub(in crate::broker) mod group_commit;
pub(in crate::broker) mod live;
pub(in crate::broker) mod logged_topics;
pub(in crate::broker) mod lost_numbers;
pub(in crate::broker) mod maintenance_schedule;
pub(in crate::broker) mod onward;
pub(in crate::broker) mod persist;
pub(in crate::broker) mod series_quota;
