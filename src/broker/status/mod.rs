//! The broker's status in `$SYS`, and the local client.

pub(in crate::broker) mod local_client;
pub(in crate::broker) mod sys;
