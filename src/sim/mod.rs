//! A board without a board: lines that implement [`gpio`](crate::gpio)'s traits.
//!
//! The demo runs on it, and so do the tests of everything above the pins. A sensor's readings and its faults are
//! functions of a seed and a time, so that a run can be repeated.

pub mod digital;
pub mod faults;
pub mod history;
pub mod line;
pub mod world;

pub use digital::{SimInput, SimOutput};
pub use line::{Behaviour, SimLine};
