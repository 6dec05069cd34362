//! Parsers of one value's text, which know of no setting and of no part of the program.

mod address;
mod choice;
mod duration;
mod list;
mod number;
mod plain;
mod size;
mod time;

pub use address::{host_names, listen, listen_or_off};
pub use choice::{choice, nearest, not_one_of};
pub use duration::{age, duration, interval};
pub use list::list;
pub use number::{number, number_or_none, share};
pub use plain::plain;
pub use size::size;
pub use time::time;
