//! A board without a board: edge trains with known faults, weather, and a line that plays both.
//!
//! The demo runs on it, and so do the tests of everything above the pins. All of it is a function
//! of a seed and a time, so that what was seen once can be seen again.

pub mod faults;
pub mod history;
pub mod line;
pub mod world;

pub use line::{Behaviour, SimLine};
