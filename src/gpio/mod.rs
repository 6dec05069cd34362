//! The border to the pins: what a line can do, and the ways to reach one.
//!
//! Everything above this module works on [`Edge`]s, so that a simulated sensor and a real one run
//! the same decoder, sampler and session.
//!
//! - [`cdev`] reaches lines through `/dev/gpiochipN`, on every board.
//! - [`digital`] has inputs and outputs beside the sensors.
//! - [`rppal`] reads sensors through the Raspberry Pi's memory-mapped registers.
//! - [`iio`] takes readings from the kernel's own dht11 driver, where an overlay bound it.
//! - [`chips`] finds the chips, [`poll`] makes edges by polling a line, [`realtime`] keeps the polls
//!   close together.

pub mod cdev;
pub mod chips;
pub mod digital;
pub mod iio;
mod line;
mod pin;
pub mod poll;
pub mod realtime;
pub mod rppal;

pub use line::{CONSUMER, Line, LineError};
pub use pin::{LineAddress, Pin, PinError};

// The types of `Line`'s exchange.
pub use crate::dht::{Edge, Level};
