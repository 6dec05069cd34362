//! Sensors through the Raspberry Pi's GPIO registers, mapped into memory by rppal.
//!
//! Reading a level takes a fraction of a microsecond here, against 1 to 8 µs through the character device. It needs
//! `/dev/gpiomem` beside `/dev/gpiochipN`, and the kernel does not know that the line is in use.

use std::time::Duration;

use rppal::gpio::{Error, Gpio, IoPin, Mode};

use super::realtime::{self, Permitted};
use super::{Line, LineAddress, LineError, poll};
use crate::dht::{Edge, Level};

/// Labels of the chips whose lines the registers are.
const CHIPS: [&str; 3] = ["pinctrl-bcm2711", "pinctrl-bcm2835", "pinctrl-rp1"];

/// A line with a sensor.
#[derive(Debug)]
pub struct SensorLine {
    pin: IoPin,
    realtime: Permitted,
}

impl SensorLine {
    /// Opens the line, released.
    ///
    /// # Errors
    /// [`LineError`], by cause.
    pub fn open(
        address: &LineAddress,
        written: &str,
        realtime: Permitted,
    ) -> Result<Self, LineError> {
        let number = number(address).ok_or_else(|| LineError::Unsuitable {
            line: written.to_owned(),
            reason: format!(
                "`rppal` reaches the Raspberry Pi's own lines, and {address} is none: use HUMIDOR_GPIO=cdev"
            ),
        })?;
        let pin = Gpio::new()
            .and_then(|gpio| gpio.get(number))
            .map_err(|error| refused(error, written))?;
        // An input is an open drain that is released; the level of the output is set once, low.
        let mut pin = pin.into_io(Mode::Input);
        pin.set_low();
        Ok(Self { pin, realtime })
    }
}

impl Line for SensorLine {
    fn exchange(&mut self, start: Duration, listen: Duration) -> Result<Vec<Edge>, LineError> {
        let _realtime = realtime::Guard::enter(self.realtime);
        let (clock, room) = (poll::Clock::start(), poll::room());
        self.pin.set_mode(Mode::Output);
        self.pin.set_low();
        std::thread::sleep(start);
        self.pin.set_mode(Mode::Input);
        let pin = &self.pin;
        poll::record(
            room,
            listen,
            || clock.now_ns(),
            || Ok(if pin.is_high() { Level::High } else { Level::Low }),
        )
    }
}

fn number(address: &LineAddress) -> Option<u8> {
    CHIPS.contains(&address.chip.as_str()).then(|| u8::try_from(address.offset).ok())?
}

fn refused(error: Error, written: &str) -> LineError {
    let unsuitable = |reason: String| LineError::Unsuitable { line: written.to_owned(), reason };
    match error {
        Error::PermissionDenied(device) => LineError::Permission {
            remedy: format!(
                "start the container with `--device /dev/gpiomem --device {device} --group-add` and their group, or use HUMIDOR_GPIO=cdev"
            ),
            device: device.into(),
        },
        Error::UnknownModel => unsuitable(
            "rppal does not know this as a Raspberry Pi: use HUMIDOR_GPIO=cdev".to_owned(),
        ),
        Error::Io(source) => LineError::Io { line: written.to_owned(), cause: source },
        other => unsuitable(format!("{other}: use HUMIDOR_GPIO=cdev")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_raspberry_pis_own_lines_have_registers() {
        let at = |chip: &str, offset| number(&LineAddress { chip: chip.to_owned(), offset });
        assert_eq!(at("pinctrl-bcm2711", 17), Some(17));
        assert_eq!(at("raspberrypi-exp-gpio", 2), None);
        assert_eq!(at("1c20800.pinctrl", 6), None);
    }

    #[test]
    fn elsewhere_it_says_what_to_use() {
        let address = LineAddress { chip: "1c20800.pinctrl".to_owned(), offset: 6 };
        let error = SensorLine::open(&address, "PA6", Permitted::NEITHER).unwrap_err();
        assert!(error.to_string().contains("HUMIDOR_GPIO=cdev"), "{error}");
    }
}
