//! Digital inputs and outputs: lines that are high or low, through the character device.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};

use gpio_cdev::{EventRequestFlags, LineEventHandle, LineHandle, LineRequestFlags};
use tracing::info;

use super::cdev::{level, refused, request};
use super::chips::{Chips, io_error};
use super::{CONSUMER, LineAddress, LineError};
use crate::dht::Level;

/// `ENOTSUPP` is internal to the kernel, but some GPIO drivers return it to programs.
const ENOTSUPP: i32 = 524;

/// A line that is read.
pub trait Input: Send {
    /// Its level now.
    ///
    /// # Errors
    /// When it cannot be read.
    fn level(&self) -> Result<Level, LineError>;

    /// The descriptor that becomes readable when the level changes; `None` where the input has to be polled.
    fn events(&self) -> Option<BorrowedFd<'_>>;

    /// Takes one change from the queue, after [`Input::events`] became readable.
    ///
    /// # Errors
    /// When it cannot be read.
    fn take_event(&mut self) -> Result<(), LineError>;
}

/// A line that is driven.
pub trait Output: Send {
    /// Drives it.
    ///
    /// # Errors
    /// When it cannot be driven.
    fn set(&mut self, level: Level) -> Result<(), LineError>;

    /// The level on the line, which differs from the one that was set if the line is shorted or driven elsewhere.
    ///
    /// # Errors
    /// When it cannot be read.
    fn level(&self) -> Result<Level, LineError>;
}

/// An input of the character device.
#[derive(Debug)]
pub struct InputLine {
    handle: Reader,
    written: String,
}

#[derive(Debug)]
enum Reader {
    Events(LineEventHandle),
    Polled(LineHandle),
}

impl InputLine {
    /// Requests the line, with events where its bank has interrupts.
    ///
    /// # Errors
    /// [`LineError`], by cause.
    pub fn open(
        chips: &Chips,
        address: &LineAddress,
        written: &str,
        name: &str,
    ) -> Result<Self, LineError> {
        let line = chips.line(address, written)?;
        let consumer = format!("{CONSUMER}:{name}");
        let events = line.events(LineRequestFlags::INPUT, EventRequestFlags::BOTH_EDGES, &consumer);
        let handle = match events {
            Ok(handle) => Reader::Events(handle),
            Err(error) if without_interrupts(&io_error(&error)) => {
                info!(input = %name, line = %address, "this bank has no interrupts: the input is polled");
                let flags = LineRequestFlags::INPUT;
                Reader::Polled(request(chips, address, written, name, flags, 0)?)
            }
            Err(error) => return Err(refused(&line, written, &error)),
        };
        Ok(Self { handle, written: written.to_owned() })
    }

    fn error(&self, error: &gpio_cdev::Error) -> LineError {
        LineError::Io { line: self.written.clone(), cause: io_error(error) }
    }
}

/// Allwinner's bank PC says ENODEV (the line has no interrupt), other drivers ENXIO or "not supported".
fn without_interrupts(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO | libc::EOPNOTSUPP | ENOTSUPP))
        || error.kind() == ErrorKind::Unsupported
}

impl Input for InputLine {
    fn level(&self) -> Result<Level, LineError> {
        let value = match &self.handle {
            Reader::Events(handle) => handle.get_value(),
            Reader::Polled(handle) => handle.get_value(),
        };
        value.map(level).map_err(|error| self.error(&error))
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        match &self.handle {
            Reader::Events(handle) => Some(handle.as_fd()),
            Reader::Polled(_) => None,
        }
    }

    fn take_event(&mut self) -> Result<(), LineError> {
        if let Reader::Events(handle) = &mut self.handle
            && let Err(error) = handle.get_event()
        {
            return Err(self.error(&error));
        }
        Ok(())
    }
}

/// An output of the character device.
#[derive(Debug)]
pub struct OutputLine {
    handle: LineHandle,
    written: String,
}

impl OutputLine {
    /// Requests the line and drives it to `start` in the same step: there is no moment at another level.
    ///
    /// # Errors
    /// [`LineError`], by cause.
    pub fn open(
        chips: &Chips,
        address: &LineAddress,
        written: &str,
        name: &str,
        start: Level,
    ) -> Result<Self, LineError> {
        let value = u8::from(start == Level::High);
        let handle = request(chips, address, written, name, LineRequestFlags::OUTPUT, value)?;
        Ok(Self { handle, written: written.to_owned() })
    }

    fn error(&self, error: &gpio_cdev::Error) -> LineError {
        LineError::Io { line: self.written.clone(), cause: io_error(error) }
    }
}

impl Output for OutputLine {
    fn set(&mut self, level: Level) -> Result<(), LineError> {
        self.handle.set_value(u8::from(level == Level::High)).map_err(|error| self.error(&error))
    }

    fn level(&self) -> Result<Level, LineError> {
        self.handle.get_value().map(level).map_err(|error| self.error(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_without_interrupts_is_told_from_other_errors() {
        let is = |code| without_interrupts(&std::io::Error::from_raw_os_error(code));
        assert!(is(libc::ENODEV) && is(libc::ENXIO) && is(ENOTSUPP));
        assert!(!is(libc::EBUSY) && !is(libc::EPERM) && !is(libc::EINVAL));
    }
}
