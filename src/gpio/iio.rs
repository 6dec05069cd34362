//! Readings of the kernel's own dht11 driver (`drivers/iio/humidity/dht11.c`), where a device-tree
//! overlay bound it to the line.
//!
//! The driver times edges in its interrupt handler, so it is the better reader on a board whose
//! processor is never idle. It gives values, no pulses; a value may be 2 s old; and it takes a DHT11's frame with
//! tenths of humidity for a DHT22's. The values become the train of edges of their frame, so that everything above,
//! the model's limits included, treats them like any other sensor's.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Line, LineAddress, LineError};
use crate::dht::{Edge, Level, Model, frame, train};
use crate::reading::Measurement;

/// Where IIO devices are.
pub const DEVICES: &str = "/sys/bus/iio/devices";
/// Name of the kernel's driver.
const DRIVER: &str = "dht11";

/// A sensor behind the kernel's driver.
#[derive(Debug)]
pub struct SensorLine {
    device: PathBuf,
    model: Model,
    written: String,
}

impl SensorLine {
    /// The device of the kernel's driver on this line, under `folder` (`/sys/bus/iio/devices`).
    ///
    /// # Errors
    /// [`LineError::Unsuitable`] when there is none, or no telling which.
    pub fn open(
        folder: &Path,
        address: &LineAddress,
        written: &str,
        model: Model,
    ) -> Result<Self, LineError> {
        let found = devices(folder);
        let unsuitable = |reason: &str| {
            Err(LineError::Unsuitable { line: written.to_owned(), reason: reason.to_owned() })
        };
        let device = match found.as_slice() {
            [] => {
                return unsuitable(
                    "the kernel's dht11 driver has no device here: load its overlay (Raspberry Pi: `dtoverlay=dht11,gpiopin=4`) or use HUMIDOR_GPIO=cdev",
                );
            }
            [only] => only,
            many => match many.iter().find(|device| unit(device) == Some(address.offset)) {
                Some(device) => device,
                None => {
                    return unsuitable(
                        "the kernel's dht11 driver has several devices and none is named after this line: use HUMIDOR_GPIO=cdev",
                    );
                }
            },
        };
        Ok(Self { device: device.clone(), model, written: written.to_owned() })
    }

    fn tenths(&self, file: &str) -> io::Result<i16> {
        let text = std::fs::read_to_string(self.device.join(file))?;
        let milli: i32 = text.trim().parse().map_err(|_| {
            io::Error::new(ErrorKind::InvalidData, format!("{file}: `{}`", text.trim()))
        })?;
        i16::try_from(milli / 100)
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("{file}: {milli}")))
    }
}

impl Line for SensorLine {
    /// The driver sets the times itself, so both are ignored.
    fn exchange(&mut self, _: Duration, _: Duration) -> Result<Vec<Edge>, LineError> {
        let read = || {
            Ok::<_, io::Error>(Measurement {
                temperature_dc: self.tenths("in_temp_input")?,
                humidity_dp: self.tenths("in_humidityrelative_input")?,
            })
        };
        match read() {
            Ok(measurement) => match frame::encode(measurement, self.model) {
                Some(bytes) => Ok(train::nominal(bytes)),
                None => Err(LineError::Unsuitable {
                    line: self.written.clone(),
                    reason: format!(
                        "the kernel's driver gives {:.1} °C and {:.1} %, which no {} measures: check the configured model",
                        measurement.temperature(),
                        measurement.humidity(),
                        self.model
                    ),
                }),
            },
            // The driver waited for edges that did not come.
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                Ok(vec![Edge { at_ns: 0, level: Level::High, gap_ns: 0 }])
            }
            Err(cause) => Err(LineError::Io { line: self.written.clone(), cause }),
        }
    }
}

/// Devices of the kernel's dht11 driver under `folder`, in the order of their numbers.
#[must_use]
pub fn devices(folder: &Path) -> Vec<PathBuf> {
    let mut devices: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.path().canonicalize().ok())
        .filter(|device| {
            device
                .parent()
                .and_then(|parent| parent.join("driver").read_link().ok())
                .is_some_and(|driver| driver.ends_with(DRIVER))
        })
        .collect();
    devices.sort();
    devices
}

/// The line after which the device tree's node is named: `dht11@4`, in hexadecimal digits.
fn unit(device: &Path) -> Option<u32> {
    let node = device.parent()?.file_name()?.to_str()?;
    u32::from_str_radix(node.rsplit_once('@')?.1, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::dht::decode;

    /// A folder as sysfs has it: `bus` with links to devices below their drivers' nodes.
    fn sysfs(nodes: &[(&str, &str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let bus = root.path().join("bus");
        std::fs::create_dir(&bus).unwrap();
        for (number, (node, driver, temperature, humidity)) in nodes.iter().enumerate() {
            let device = root.path().join(node).join(format!("iio:device{number}"));
            std::fs::create_dir_all(&device).unwrap();
            symlink(Path::new("drivers").join(driver), device.parent().unwrap().join("driver"))
                .unwrap();
            std::fs::write(device.join("in_temp_input"), temperature).unwrap();
            std::fs::write(device.join("in_humidityrelative_input"), humidity).unwrap();
            symlink(&device, bus.join(format!("iio:device{number}"))).unwrap();
        }
        root
    }

    fn open(root: &tempfile::TempDir, offset: u32, model: Model) -> Result<SensorLine, LineError> {
        let address = LineAddress { chip: "c".to_owned(), offset };
        SensorLine::open(&root.path().join("bus"), &address, "7", model)
    }

    fn read(line: &mut SensorLine) -> Measurement {
        let edges = line.exchange(Duration::ZERO, Duration::ZERO).unwrap();
        decode(&edges, line.model).unwrap().measurement
    }

    #[test]
    fn the_drivers_values_arrive_as_they_are() {
        let root = sysfs(&[("dht11@4", "dht11", "-10100\n", "65200\n")]);
        let mut line = open(&root, 9, Model::Dht22).unwrap();
        assert_eq!(read(&mut line), Measurement { temperature_dc: -101, humidity_dp: 652 });
        let mut other = open(&root, 9, Model::Dht11).unwrap();
        assert_eq!(read(&mut other).temperature_dc, -101);
    }

    #[test]
    fn among_several_the_one_named_after_the_line_is_meant() {
        let root = sysfs(&[
            ("dht11@4", "dht11", "20000", "50000"),
            ("sensor@11", "hts221", "1000", "1000"),
            ("dht11@11", "dht11", "30000", "60000"),
        ]);
        assert_eq!(read(&mut open(&root, 17, Model::Dht22).unwrap()).temperature_dc, 300);
        assert_eq!(read(&mut open(&root, 4, Model::Dht22).unwrap()).temperature_dc, 200);
        assert!(open(&root, 5, Model::Dht22).is_err());
    }

    #[test]
    fn without_the_driver_it_says_how_to_get_it() {
        let error = open(&sysfs(&[]), 4, Model::Dht22).unwrap_err().to_string();
        assert!(
            error.contains("dtoverlay=dht11") && error.contains("HUMIDOR_GPIO=cdev"),
            "{error}"
        );
    }

    #[test]
    fn values_that_the_model_cannot_have_are_no_reading() {
        let root = sysfs(&[("dht11@4", "dht11", "25000", "100000")]);
        let mut line = open(&root, 4, Model::Dht11).unwrap();
        let error = line.exchange(Duration::ZERO, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("model"), "{error}");
    }
}
