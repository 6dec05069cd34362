//! What the packet target and the program `mutate` share: a second opinion on each MQTT frame, and the memory that
//! judging it takes.

mod differences;
pub mod memory;
pub mod mutation;
pub mod oracle;
