//! Values of which the type itself knows how they are written.

use std::fmt::Display;
use std::str::FromStr;

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
