//! The queue for the upstream database: operations in the order of their commits, and what is asked of the forwarder.

pub(in crate::store) mod identity;
pub(in crate::store) mod operation;
pub(in crate::store) mod progress;
pub(in crate::store) mod queue;
pub(in crate::store) mod reader;

#[cfg(test)]
mod tests;
