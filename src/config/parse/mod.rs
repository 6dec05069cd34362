//! Parsers of one value's text, which know of no setting and of no part of the program.

mod address;
mod choice;
mod duration;
mod list;
mod number;
mod size;
mod time;

use std::fmt::Display;
use std::str::FromStr;

pub use address::{host_names, listen, listen_or_off};
pub use choice::{choice, nearest, not_one_of};
pub use duration::{age, duration, interval};
pub use list::{both, list, list_of};
pub use number::{number, number_or_none, share};
pub use size::size;
pub use time::time;

/// A value by its own `FromStr`. Any text is a path or a `String`.
///
/// # Errors
/// Its error as text.
pub fn plain<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err: Display>,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}
