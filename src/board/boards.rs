//! The known boards, and the line of a pin on each.

use super::pin::{BoardPin, Place};
use super::{orange_pi, raspberry_pi};
use crate::gpio::{LineAddress, Pin};

/// Most pins offered in place of one that does not exist.
const NEAR_PINS: usize = 4;

/// One board, or several with the same header.
#[derive(Debug, PartialEq, Eq)]
pub struct Board {
    /// The word of `HUMIDOR_BOARD`.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// `compatible` strings of its device trees.
    pub compatible: &'static [&'static str],
    /// Label of the chip with the header's lines.
    pub chip: &'static str,
    /// Pins of the main header.
    pub header_pins: u8,
    /// Its lines.
    pub pins: &'static [BoardPin],
}

/// The boards we know.
pub const BOARDS: &[Board] = &[
    Board {
        id: "raspberry-pi-4",
        name: "Raspberry Pi 4",
        compatible: &["raspberrypi,4-model-b", "raspberrypi,400", "raspberrypi,4-compute-module"],
        chip: "pinctrl-bcm2711",
        header_pins: 40,
        pins: raspberry_pi::PINS,
    },
    Board {
        id: "raspberry-pi-3",
        name: "Raspberry Pi 3",
        compatible: &[
            "raspberrypi,3-model-b",
            "raspberrypi,3-model-b-plus",
            "raspberrypi,3-model-a-plus",
            "raspberrypi,model-zero-2-w",
        ],
        chip: "pinctrl-bcm2835",
        header_pins: 40,
        pins: raspberry_pi::PINS,
    },
    Board {
        id: "raspberry-pi-5",
        name: "Raspberry Pi 5",
        compatible: &["raspberrypi,5-model-b", "raspberrypi,500"],
        chip: "pinctrl-rp1",
        header_pins: 40,
        pins: raspberry_pi::PINS,
    },
    Board {
        id: "orange-pi-zero",
        name: "Orange Pi Zero",
        compatible: &["xunlong,orangepi-zero"],
        chip: "1c20800.pinctrl",
        header_pins: 26,
        pins: orange_pi::ZERO,
    },
    Board {
        id: "orange-pi-zero-2",
        name: "Orange Pi Zero 2",
        compatible: &["xunlong,orangepi-zero2"],
        chip: "300b000.pinctrl",
        header_pins: 26,
        pins: orange_pi::ZERO_2,
    },
    Board {
        id: "orange-pi-zero-3",
        name: "Orange Pi Zero 3",
        compatible: &["xunlong,orangepi-zero3"],
        chip: "300b000.pinctrl",
        header_pins: 26,
        pins: orange_pi::ZERO_2,
    },
];

/// A pin that a board does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchPin {
    /// The header has no such pin, or no line on it.
    #[error("the {board} has no line on `{pin}`{power}; near it: {near}")]
    NotOnBoard {
        /// The board's name.
        board: &'static str,
        /// The pin as written.
        pin: String,
        /// The supply on the pin instead of a line, with a comma before it; empty for none.
        power: String,
        /// Pins that exist.
        near: String,
    },
    /// No known board has such a pin.
    #[error("no known board has a line on `{pin}`{power}; near it on the {board}: {near}")]
    NotAnywhere {
        /// The pin as written.
        pin: String,
        /// The supply on the pin instead of a line, with a comma before it; empty for none.
        power: String,
        /// The board that `near` is of.
        board: &'static str,
        /// Pins that exist.
        near: String,
    },
    /// The pin needs a board, and there is none.
    #[error(
        "`{pin}` means a line only on a known board, and this one was not recognised ({why}): set HUMIDOR_BOARD to one of {known}, or write chip:line as `humidor gpio list` shows them; HUMIDOR_GPIO=sim simulates sensors"
    )]
    NoBoard {
        /// The pin as written.
        pin: String,
        /// Why there is no board.
        why: String,
        /// The known boards' ids.
        known: String,
    },
}

impl Board {
    /// The board of this `HUMIDOR_BOARD`.
    #[must_use]
    pub fn by_id(id: &str) -> Option<&'static Self> {
        BOARDS.iter().find(|board| board.id == id)
    }

    /// The board that another spelling of its name probably means: `rpi4`, `Orange Pi Zero3`, `pi zero 2 w`.
    #[must_use]
    pub fn near(name: &str) -> Option<&'static Self> {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = plain.to_ascii_lowercase();
        let after = |starts: &[&str]| starts.iter().find_map(|start| plain.strip_prefix(start));
        let id = if matches!(plain.as_str(), "zero3" | "zero3w" | "pizero3") {
            // No other family has one.
            "orange-pi-zero-3"
        } else if let Some(model) = after(&["orangepi", "orange", "opi"]) {
            let model = model.trim_start_matches("pi").trim_start_matches("zero");
            match model.trim_start_matches('z').trim_end_matches(char::is_alphabetic) {
                "" => "orange-pi-zero",
                "2" => "orange-pi-zero-2",
                "3" => "orange-pi-zero-3",
                _ => return None,
            }
        } else {
            let model = after(&["raspberrypi", "raspberry", "raspi", "rpi", "pi"])?;
            match model.trim_start_matches("model").trim_start_matches("cm") {
                "zero2" | "zero2w" | "02w" => "raspberry-pi-3",
                model if model.starts_with('3') => "raspberry-pi-3",
                model if model.starts_with('4') => "raspberry-pi-4",
                model if model.starts_with('5') => "raspberry-pi-5",
                _ => return None,
            }
        };
        Self::by_id(id)
    }

    /// A board to compare a pin with that none of them has: the first one with names of this form.
    fn alike(pin: &Pin) -> &'static Self {
        let of_bank = matches!(pin, Pin::Named(name) if name.starts_with('P'));
        let alike = BOARDS.iter().find(|board| of_bank == board.id.starts_with("orange"));
        alike.unwrap_or(&BOARDS[0])
    }

    /// Whether any known board has this pin. A `chip:line` may be there on boards that are not known.
    ///
    /// # Errors
    /// [`NoSuchPin::NotAnywhere`] with pins near it.
    pub fn any_has(pin: &Pin) -> Result<(), NoSuchPin> {
        if BOARDS.iter().any(|board| board.resolve(pin).is_ok()) {
            return Ok(());
        }
        let alike = Self::alike(pin);
        Err(NoSuchPin::NotAnywhere {
            pin: pin.to_string(),
            power: alike.power_on(pin),
            board: alike.name,
            near: alike.near_pins(pin),
        })
    }

    /// The supply on a pin, with a comma before it; empty for none.
    fn power_on(&self, pin: &Pin) -> String {
        match pin {
            Pin::Header(number) => self.power(*number).map(|power| format!(", which is {power}")),
            _ => None,
        }
        .unwrap_or_default()
    }

    /// The ids of all boards.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        BOARDS.iter().map(|board| board.id)
    }

    /// The line of `pin`, and its entry in the table. A `chip:line` needs no entry.
    ///
    /// # Errors
    /// [`NoSuchPin::NotOnBoard`] with the pins near it.
    pub fn resolve(
        &self,
        pin: &Pin,
    ) -> Result<(LineAddress, Option<&'static BoardPin>), NoSuchPin> {
        let found = match pin {
            Pin::Header(number) => self.pins.iter().find(|p| p.place == Place::Header(*number)),
            Pin::Named(name) => self.pins.iter().find(|p| p.name == name),
            Pin::Line { chip, offset } => {
                let address = LineAddress { chip: chip.clone(), offset: *offset };
                let known = self.pins.iter().find(|p| self.address(p) == address);
                return Ok((address, known));
            }
        };
        match found {
            Some(found) => Ok((self.address(found), Some(found))),
            None => Err(NoSuchPin::NotOnBoard {
                board: self.name,
                pin: pin.to_string(),
                power: self.power_on(pin),
                near: self.near_pins(pin),
            }),
        }
    }

    /// The line of one of the board's own pins.
    #[must_use]
    pub fn address(&self, pin: &BoardPin) -> LineAddress {
        LineAddress { chip: pin.chip.unwrap_or(self.chip).to_owned(), offset: pin.offset }
    }

    /// The supply on a header pin without a line. Both headers begin with the layout of the first
    /// Raspberry Pi's 26 pins.
    #[must_use]
    pub const fn power(&self, header: u8) -> Option<&'static str> {
        if header > self.header_pins {
            return None;
        }
        match header {
            1 | 17 => Some("3.3 V"),
            2 | 4 => Some("5 V"),
            6 | 9 | 14 | 20 | 25 | 30 | 34 | 39 => Some("ground"),
            _ => None,
        }
    }

    fn near_pins(&self, pin: &Pin) -> String {
        let number = |name: &str| {
            let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
            let bank = &name[..name.len() - digits.len()];
            (bank.to_owned(), digits.parse::<u32>().unwrap_or_default())
        };
        let mut pins: Vec<(u32, &BoardPin)> = self
            .pins
            .iter()
            .filter(|candidate| candidate.reserved.is_none())
            .map(|candidate| {
                let distance = match (pin, candidate.place) {
                    (Pin::Header(wanted), Place::Header(header)) => {
                        u32::from(wanted.abs_diff(header))
                    }
                    (Pin::Named(wanted), _) => {
                        let ((bank, wanted), (own, offered)) =
                            (number(wanted), number(candidate.name));
                        // Any pin of the same bank is nearer than one of another.
                        wanted.abs_diff(offered) + if bank == own { 0 } else { 1_000 }
                    }
                    _ => u32::MAX,
                };
                (distance, candidate)
            })
            .collect();
        pins.sort_by_key(|(distance, _)| *distance);
        let near: Vec<String> =
            pins.iter().take(NEAR_PINS).map(|(_, candidate)| candidate.to_string()).collect();
        near.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn resolve(board: &str, pin: &str) -> Result<LineAddress, NoSuchPin> {
        Board::by_id(board).unwrap().resolve(&pin.parse().unwrap()).map(|(address, _)| address)
    }

    #[test]
    fn every_spelling_of_a_pin_is_the_same_line() {
        for (board, spellings) in [
            ("raspberry-pi-4", ["7", "GPIO4", "pinctrl-bcm2711:4"]),
            ("raspberry-pi-5", ["7", "gpio4", "pinctrl-rp1:4"]),
            ("orange-pi-zero", ["7", "PA6", "1c20800.pinctrl:6"]),
            ("orange-pi-zero", ["8", "pg6", "1c20800.pinctrl:198"]),
            ("orange-pi-zero-3", ["7", "PC9", "300b000.pinctrl:73"]),
        ] {
            let lines: HashSet<_> =
                spellings.iter().map(|pin| resolve(board, pin).unwrap()).collect();
            assert_eq!(lines.len(), 1, "{board}: {lines:?}");
        }
    }

    #[test]
    fn a_pin_that_does_not_exist_is_refused_with_the_near_ones() {
        let message = |board, pin| resolve(board, pin).unwrap_err().to_string();
        let ground = message("orange-pi-zero", "9");
        assert!(ground.contains("which is ground"), "{ground}");
        assert!(ground.contains("8 (PG6)") && ground.contains("10 (PG7)"), "{ground}");
        let name = message("orange-pi-zero", "PA5");
        assert!(name.contains("7 (PA6)"), "{name}");
        let foreign = message("raspberry-pi-4", "PA6");
        assert!(foreign.contains("Raspberry Pi 4") && foreign.contains("GPIO6"), "{foreign}");
        assert!(resolve("orange-pi-zero", "27").is_err());
    }

    #[test]
    fn another_spelling_of_a_board_gets_its_id() {
        for (written, id) in [
            ("orangepi-zero3", "orange-pi-zero-3"),
            ("Orange Pi Zero 3", "orange-pi-zero-3"),
            ("opi-zero", "orange-pi-zero"),
            ("orangepizero2w", "orange-pi-zero-2"),
            ("opiz3", "orange-pi-zero-3"),
            ("rpi4", "raspberry-pi-4"),
            ("pi4", "raspberry-pi-4"),
            ("raspberrypi,4-model-b", "raspberry-pi-4"),
            ("RaspberryPi 5", "raspberry-pi-5"),
            ("raspi3b+", "raspberry-pi-3"),
            ("pi zero 2 w", "raspberry-pi-3"),
            ("cm4", ""),
            ("beaglebone", ""),
            ("orange-pi-5", ""),
            ("🍊", ""),
        ] {
            assert_eq!(Board::near(written).map_or("", |board| board.id), id, "{written}");
        }
    }

    #[test]
    fn a_pin_that_no_board_has_is_refused_without_a_board() {
        for (pin, part) in [
            ("GPIO99", "GPIO27"),
            ("6", "ground"),
            ("1", "3.3 V"),
            ("4", "5 V"),
            ("PZ1", "PL"),
            ("PA99", "PA19"),
        ] {
            let error = Board::any_has(&pin.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(part) || pin == "PZ1", "{part} in {error}");
        }
        for pin in ["7", "40", "GPIO4", "PA6", "PC9", "some.chip:400"] {
            assert_eq!(Board::any_has(&pin.parse().unwrap()), Ok(()), "{pin}");
        }
    }

    #[test]
    fn the_tables_hold_together() {
        for board in BOARDS {
            let (mut places, mut names, mut lines) =
                (HashSet::new(), HashSet::new(), HashSet::new());
            for pin in board.pins {
                assert!(names.insert(pin.name), "{} {}", board.id, pin.name);
                assert!(lines.insert(board.address(pin)), "{} {}", board.id, pin.name);
                assert_eq!(pin.name.parse::<Pin>(), Ok(Pin::Named(pin.name.to_owned())));
                if let Place::Header(number) = pin.place {
                    assert!(number <= board.header_pins && places.insert(number));
                    assert_eq!(board.power(number), None, "{} {number}", board.id);
                }
                // Allwinner: 32 lines a bank, PL alone on its chip. Raspberry Pi: the number itself.
                let number: u32 = pin.name.trim_start_matches(char::is_alphabetic).parse().unwrap();
                let bank = match pin.name.as_bytes() {
                    [b'G', ..] | [b'P', b'L', ..] => 0,
                    [b'P', bank, ..] => u32::from(bank - b'A'),
                    _ => panic!("{}", pin.name),
                };
                assert_eq!(pin.offset, bank * 32 + number, "{} {}", board.id, pin.name);
            }
            let used = (1..=board.header_pins)
                .filter(|n| places.contains(n) || board.power(*n).is_some())
                .count();
            assert_eq!(used, usize::from(board.header_pins), "{}: a pin is unexplained", board.id);
        }
        let ids: HashSet<_> = Board::ids().collect();
        assert_eq!(ids.len(), BOARDS.len());
    }

    #[test]
    fn a_reserved_line_says_why_however_it_is_written() {
        let zero = Board::by_id("orange-pi-zero").unwrap();
        for pin in ["PA17", "1c20800.pinctrl:17"] {
            let (_, known) = zero.resolve(&pin.parse().unwrap()).unwrap();
            assert!(known.unwrap().reserved.unwrap().contains("LED"));
        }
        let unknown = zero.resolve(&"gpio-dhtsim:4".parse().unwrap()).unwrap();
        assert_eq!(unknown.1, None);
    }
}
