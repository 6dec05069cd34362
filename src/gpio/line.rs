//! The line of a sensor: its exchange, and the reasons why a line cannot be used.

use std::path::PathBuf;
use std::time::Duration;

use crate::dht::Edge;

/// The consumer that the kernel shows for our lines, before the colon and the sensor's name.
pub const CONSUMER: &str = "humidor";

/// The reason why a line cannot be used at all. A sensor that answers badly is not an error of the line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The kernel or the device returned an error.
    #[error("{line}: {cause}")]
    Io {
        /// The line as the user wrote it.
        line: String,
        /// The system's error.
        cause: std::io::Error,
    },
    /// There is no GPIO device at all.
    #[error(
        "there is no {folder}/gpiochip*: give the container the board's with `--device /dev/gpiochip0` (`ls /dev/gpiochip*` on the board shows which there are), or simulate the sensors with HUMIDOR_GPIO=sim"
    )]
    NoChips {
        /// The folder that was searched.
        folder: String,
    },
    /// There are devices, none of which has this label.
    #[error(
        "no GPIO chip is labelled `{label}`; there is {present}: is HUMIDOR_BOARD right, and does the container have every `--device /dev/gpiochipN`?"
    )]
    NoChip {
        /// The label looked for.
        label: String,
        /// The chips that are there.
        present: String,
    },
    /// The chip has fewer lines.
    #[error("{line}: the chip `{chip}` has lines 0 to {last}")]
    NoLine {
        /// The line as the user wrote it.
        line: String,
        /// The chip's label.
        chip: String,
        /// Offset of its last line.
        last: u32,
    },
    /// A device may not be opened.
    #[error("not allowed to open {device}: {remedy}")]
    Permission {
        /// The device file.
        device: PathBuf,
        /// How to get the permission.
        remedy: String,
    },
    /// Another consumer has the line.
    #[error(
        "{line} is in use by `{consumer}`: choose another pin, or unload what uses it (an overlay, a driver, another program)"
    )]
    Busy {
        /// The line as the user wrote it.
        line: String,
        /// The consumer, as the kernel shows it.
        consumer: String,
    },
    /// The configured backend cannot reach this line.
    #[error("{line}: {reason}")]
    Unsuitable {
        /// The line as the user wrote it.
        line: String,
        /// The reason, and what to use instead.
        reason: String,
    },
}

/// A line with a DHT sensor on it.
pub trait Line: Send {
    /// Sends the start signal (the line held low for `start`, then released) and records every
    /// edge from the release on, for at most `listen`.
    ///
    /// A sensor that does not answer gives an empty or short list, not an error.
    ///
    /// # Errors
    /// When the line itself cannot be driven or read.
    fn exchange(&mut self, start: Duration, listen: Duration) -> Result<Vec<Edge>, LineError>;
}
