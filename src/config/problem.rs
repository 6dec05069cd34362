//! The mistakes in a configuration, which a user reads all at once.

use std::fmt;

/// One mistake, as a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub String);

/// All mistakes of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [Problem(only)] => write!(f, "the configuration is wrong: {only}"),
            many => {
                write!(f, "the configuration has {} mistakes:", many.len())?;
                many.iter().try_for_each(|Problem(text)| write!(f, "\n  - {text}"))
            }
        }
    }
}
