//! What is watched for in committed readings, and what is said about it.

pub(in crate::broker) mod rule;
pub(in crate::broker) mod watch;
