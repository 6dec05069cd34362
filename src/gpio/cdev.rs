//! Lines through the kernel's character device, `/dev/gpiochipN`: the same on every board.
//!
//! A sensor's line is an open-drain output that is polled. Asking the kernel for edge events instead
//! would lose the first ones (requesting them takes 44 to 209 µs), overrun the 16-deep queue of the
//! first uAPI, and on Allwinner see pulses merged: its GPIO interrupts are sampled at 32 kHz.

use std::time::Duration;

use gpio_cdev::{LineHandle, LineRequestFlags};

use super::chips::{Chips, consumer, io_error};
use super::realtime::{self, Permitted};
use super::{CONSUMER, Line, LineAddress, LineError, poll};
use crate::dht::{Edge, Level};

/// A line with a sensor.
#[derive(Debug)]
pub struct SensorLine {
    handle: LineHandle,
    written: String,
    realtime: Permitted,
}

impl SensorLine {
    /// Requests the line, released. It stays requested, so that no other program drives the sensor.
    ///
    /// # Errors
    /// [`LineError`], by cause.
    pub fn open(
        chips: &Chips,
        address: &LineAddress,
        written: &str,
        name: &str,
        realtime: Permitted,
    ) -> Result<Self, LineError> {
        let flags = LineRequestFlags::OUTPUT | LineRequestFlags::OPEN_DRAIN;
        let handle = request(chips, address, written, name, flags, 1)?;
        Ok(Self { handle, written: written.to_owned(), realtime })
    }
}

impl Line for SensorLine {
    fn exchange(&mut self, start: Duration, listen: Duration) -> Result<Vec<Edge>, LineError> {
        let realtime = realtime::Guard::enter(self.realtime);
        let (clock, room) = (poll::Clock::start(), poll::room());
        let outcome = (|| {
            self.handle.set_value(0)?;
            std::thread::sleep(start);
            // gpiolib emulates the release of an open drain by making the line an input: from here on
            // the pull-up or the sensor decides.
            self.handle.set_value(1)?;
            poll::record(room, listen, || clock.now_ns(), || self.handle.get_value().map(level))
        })();
        drop(realtime);
        if outcome.is_err() {
            // After any error the sensor's line must not stay low.
            let _ = self.handle.set_value(1);
        }
        outcome
            .map_err(|error| LineError::Io { line: self.written.clone(), cause: io_error(&error) })
    }
}

pub(super) const fn level(value: u8) -> Level {
    if value == 0 { Level::Low } else { Level::High }
}

/// Requests a line from its chip; the error names the consumer that has it.
pub(super) fn request(
    chips: &Chips,
    address: &LineAddress,
    written: &str,
    name: &str,
    flags: LineRequestFlags,
    value: u8,
) -> Result<LineHandle, LineError> {
    let line = chips.line(address, written)?;
    line.request(flags, value, &format!("{CONSUMER}:{name}"))
        .map_err(|error| refused(&line, written, &error))
}

/// The reason why the kernel did not give out a line.
pub(super) fn refused(
    line: &gpio_cdev::Line,
    written: &str,
    error: &gpio_cdev::Error,
) -> LineError {
    let source = io_error(error);
    if source.kind() == std::io::ErrorKind::ResourceBusy {
        return LineError::Busy {
            line: written.to_owned(),
            consumer: consumer(line).unwrap_or_else(|| "?".to_owned()),
        };
    }
    LineError::Io { line: written.to_owned(), cause: source }
}
