//! Lines of the board: which line a configured pin is, and the inputs and outputs on lines.

pub mod debounce;
pub mod inputs;
pub mod lines;
pub mod outputs;
pub mod switches;
