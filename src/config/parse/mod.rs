//! Parsers of one value's text, which know of no setting.

mod choice;
mod duration;
mod list;
mod size;

pub use choice::{choice, nearest, not_one_of};
pub use duration::{age, duration, interval};
pub use list::list;
pub use size::size;
