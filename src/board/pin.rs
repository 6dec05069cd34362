//! One line of a board: its place, its name, and what else is connected to it.

use std::fmt;

/// The place of a line on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Pin of the main header, from 1.
    Header(u8),
    /// Another place, without a pin number.
    Elsewhere(&'static str),
}

/// One line of a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoardPin {
    /// Its place on the board.
    pub place: Place,
    /// The SoC's name for it: `GPIO4`, `PA6`.
    pub name: &'static str,
    /// Label of its chip, if that is not the board's main one.
    pub(super) chip: Option<&'static str>,
    /// Line offset on the chip.
    pub offset: u32,
    /// Its other functions, as printed on pinout cards.
    pub functions: &'static str,
    /// The reason to use another line, where there is one.
    pub reserved: Option<&'static str>,
}

impl fmt::Display for BoardPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Header(number) => write!(f, "{number} ({})", self.name),
            Place::Elsewhere(place) => write!(f, "{} ({place})", self.name),
        }
    }
}
