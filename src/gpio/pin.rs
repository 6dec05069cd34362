//! How a user writes a pin: `7` (header pin), `GPIO4` or `PA6` (the `SoC`'s name), `pinctrl-bcm2711:4`.

use std::fmt;
use std::str::FromStr;

/// Pins of the largest header we know (Raspberry Pi's).
const HEADER_PINS: u8 = 40;
/// Lines of the largest bank or chip we know of (bcm2712's 54, Allwinner's 32 a bank), with room.
const LINES_MAX: u32 = 512;

/// A pin as written; which line it is depends on the board.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pin {
    /// Number on the board's header, from 1.
    Header(u8),
    /// Name of the `SoC`'s line: `GPIO17`, `PA6`.
    Named(String),
    /// Chip label and line offset.
    Line {
        /// The chip's label, as `/sys/bus/gpio/devices/*/of_node` or `gpiodetect` show it.
        chip: String,
        /// Line offset on that chip.
        offset: u32,
    },
}

/// A line of a chip: every spelling of a pin resolves to one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineAddress {
    /// The chip's label.
    pub chip: String,
    /// Line offset on it.
    pub offset: u32,
}

impl fmt::Display for LineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.chip, self.offset)
    }
}

/// The text is not a pin in any of the forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a pin: write a header pin (1 to {HEADER_PINS}), a line name (GPIO4, PA6) or chip:line (pinctrl-bcm2711:4){}", near(.text)
)]
pub struct PinError {
    text: String,
}

/// The pin that another spelling probably means: `pin 7`, `BCM4`, `GPIO_4`, `A6`; empty when there is none.
fn near(text: &str) -> String {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_uppercase();
    let digits = plain.trim_start_matches(|c: char| !c.is_ascii_digit());
    let letters = &plain[..plain.len() - digits.len()];
    // `GPI04`, with a zero for the letter.
    let (letters, digits) = match (letters, digits.strip_prefix('0')) {
        ("GPI", Some(rest)) if !rest.is_empty() => ("GPIO", rest),
        _ => (letters, digits),
    };
    let Ok(number) = digits.parse::<u32>() else { return String::new() };
    let pin = match letters {
        "" | "PIN" | "HEADER" | "PHYS" | "PHYSICAL" | "P" | "J" => number.to_string(),
        "GPIO" | "BCM" | "IO" | "GP" | "GPO" | "GPI" | "G" | "GIPO" | "GPOI" | "GPIOPIN" | "D" => {
            format!("GPIO{number}")
        }
        "PA" | "PC" | "PG" | "PH" | "PI" | "PL" => format!("{letters}{number}"),
        bank if bank.len() == 1 => format!("P{bank}{number}"),
        _ => return String::new(),
    };
    pin.parse::<Pin>().map_or_else(|_| String::new(), |pin| format!("; did you mean `{pin}`?"))
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let error = || PinError { text: text.to_owned() };
        if let Some((chip, offset)) = text.rsplit_once(':') {
            let offset =
                offset.parse().ok().filter(|offset| *offset < LINES_MAX).ok_or_else(error)?;
            let fits = !chip.is_empty() && chip.bytes().all(|b| b.is_ascii_graphic());
            return if fits {
                Ok(Self::Line { chip: chip.to_owned(), offset })
            } else {
                Err(error())
            };
        }
        if let Ok(number) = text.parse::<u8>() {
            return if (1..=HEADER_PINS).contains(&number) {
                Ok(Self::Header(number))
            } else {
                Err(error())
            };
        }
        let name = text.to_ascii_uppercase();
        let number = name.strip_prefix("GPIO").or_else(|| {
            // Allwinner: P, the bank's letter, the number.
            let bank = name.strip_prefix('P')?;
            bank.starts_with(|letter: char| letter.is_ascii_uppercase()).then(|| bank.get(1..))?
        });
        let line = number
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| Some((digits.len(), digits.parse::<u32>().ok()?)))
            .filter(|(_, number)| *number < LINES_MAX);
        // `GPIO04` is `GPIO4`.
        line.map(|(digits, number)| {
            Self::Named(format!("{}{number}", &name[..name.len() - digits]))
        })
        .ok_or_else(error)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(number) => write!(f, "{number}"),
            Self::Named(name) => f.write_str(name),
            Self::Line { chip, offset } => write!(f, "{chip}:{offset}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_pin_is_read_and_nothing_else() {
        assert_eq!("7".parse(), Ok(Pin::Header(7)));
        assert_eq!("gpio17".parse(), Ok(Pin::Named("GPIO17".into())));
        assert_eq!("PA6".parse(), Ok(Pin::Named("PA6".into())));
        assert_eq!(
            "1c20800.pinctrl:6".parse(),
            Ok(Pin::Line { chip: "1c20800.pinctrl".into(), offset: 6 })
        );
        assert_eq!("gpio04".parse(), Ok(Pin::Named("GPIO4".into())));
        for (written, meant) in [
            ("pin7", "7"),
            ("Pin 7", "7"),
            ("#7", "7"),
            ("P7", "7"),
            ("BCM4", "GPIO4"),
            ("GPIO-4", "GPIO4"),
            ("GPI04", "GPIO4"),
            ("GPO4", "GPIO4"),
            ("IO4", "GPIO4"),
            ("A6", "PA6"),
        ] {
            let error = written.parse::<Pin>().unwrap_err().to_string();
            assert!(error.ends_with(&format!("; did you mean `{meant}`?")), "{error}");
        }
        for number in ["0", "41", "99", "pin 41"] {
            let error = number.parse::<Pin>().unwrap_err().to_string();
            assert!(error.contains("(1 to 40)") && !error.contains("did you mean"), "{error}");
        }
        for wrong in [
            "", "0", "41", "GPIO", "GPIO999", "PA", "P6", "PZ9x", "chip:", ":4", "chip:x", "pin 7",
            "-1",
        ] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }
}
