//! The boards: which line of which chip a pin is, and what else is connected to it.
//!
//! A pin is written as the user sees it (header number, the SoC's name) and becomes a chip's label
//! and a line offset. Labels, because a chip's number depends on the order in which drivers start:
//! the Raspberry Pi 5's header moved from gpiochip4 to gpiochip0 with kernel 6.6.45.
//!
//! A new board is an entry in `boards`, with its lines in a table beside `raspberry_pi` and `orange_pi`.

mod boards;
mod orange_pi;
mod pin;
mod raspberry_pi;
mod recognise;

pub use boards::{BOARDS, Board, NoSuchPin};
pub use pin::{BoardPin, Place};
pub use recognise::{Recognised, recognise};
