//! Live data: committed readings and board states as server-sent events.

pub mod boards;
pub mod events;
pub mod feed;
pub mod visible;
