//! From configured pins to open lines: which line a pin is, whether it may be used, and how it is
//! reached.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::Path;

use tracing::{info, warn};

use super::inputs::Input;
use super::outputs::{self, Output};
use crate::board::{NoSuchPin, Recognised};
use crate::clock::unix_ms;
use crate::gpio::chips::{self, Chips};
use crate::gpio::realtime::Permitted;
use crate::gpio::{Line, LineAddress, LineError, Pin, cdev, digital, iio, rppal};
use crate::node::config::{Backend, InputConfig, OutputConfig, SensorConfig};
use crate::node::sampling::sampler::Sensor;
use crate::reading::Id;
use crate::sim::{Behaviour, SimInput, SimLine, SimOutput};

/// How far a simulated pulse is off, in µs: what a polling reader on a busy board sees.
const SIM_JITTER_US: u32 = 8;

/// Why the lines could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// A pin that this board does not have.
    #[error(transparent)]
    Pin(#[from] NoSuchPin),
    /// Two names for one line.
    #[error("`{second}` and `{first}` are both on {address}: one line carries one thing")]
    Twice {
        /// What was first, name and pin.
        first: String,
        /// What came after it.
        second: String,
        /// The line.
        address: LineAddress,
    },
    /// A line that cannot be used.
    #[error("`{name}`: {cause}")]
    Line {
        /// Whose line it is.
        name: String,
        /// Why.
        cause: LineError,
    },
}

/// What is on the lines.
pub struct Opened {
    /// Sensors.
    pub sensors: Vec<Sensor>,
    /// Inputs.
    pub inputs: Vec<Input>,
    /// Outputs, at their safe level.
    pub outputs: Vec<Output>,
}

/// Opens lines, and gives none out twice.
#[derive(Debug)]
pub struct Lines<'a> {
    node: &'a Id,
    board: &'a Recognised,
    backend: Backend,
    chips: Chips,
    realtime: Permitted,
    taken: HashMap<LineAddress, String>,
}

impl<'a> Lines<'a> {
    /// The lines of this machine, by `backend`. Simulated ones need no chip, and no board either.
    #[must_use]
    pub fn new(node: &'a Id, board: &'a Recognised, backend: Backend) -> Self {
        if let Backend::Sim { .. } = backend {
            return Self::on(node, board, backend, Chips::none());
        }
        info!(%board, "board");
        let chips = Chips::scan(Path::new(chips::DEVICES));
        Self { realtime: Permitted::probe(), ..Self::on(node, board, backend, chips) }
    }

    fn on(node: &'a Id, board: &'a Recognised, backend: Backend, chips: Chips) -> Self {
        Self { node, board, backend, chips, realtime: Permitted::NEITHER, taken: HashMap::new() }
    }

    /// The line of `pin`, for `name` alone.
    fn claim(&mut self, name: &Id, pin: &Pin) -> Result<LineAddress, LinesError> {
        let (address, known) = self.board.resolve(pin)?;
        let claimant = format!("{name}@{pin}");
        if let Some(first) = self.taken.insert(address.clone(), claimant.clone()) {
            return Err(LinesError::Twice { first, second: claimant, address });
        }
        if let Some(reason) = known.and_then(|known| known.reserved) {
            warn!(%name, %pin, line = %address, "this line is better left alone: {reason}");
        }
        Ok(address)
    }

    /// Everything on its line. Every pin is looked at before the first line is touched.
    ///
    /// # Errors
    /// [`LinesError`].
    pub fn open(
        mut self,
        sensors: &[SensorConfig],
        inputs: &[InputConfig],
        outputs: &[OutputConfig],
    ) -> Result<Opened, LinesError> {
        let mut addresses = self
            .claim_all(
                outputs
                    .iter()
                    .map(|output| (&output.name, &output.pin))
                    .chain(inputs.iter().map(|input| (&input.name, &input.pin)))
                    .chain(sensors.iter().map(|sensor| (&sensor.name, &sensor.pin))),
            )?
            .into_iter();
        // Outputs first: whatever else goes wrong, they are safe from here on.
        let outputs = outputs
            .iter()
            .map(|output| self.output(output, addresses.next()))
            .collect::<Result<_, _>>()?;
        let inputs = inputs
            .iter()
            .map(|input| self.input(input, addresses.next()))
            .collect::<Result<_, _>>()?;
        let sensors = sensors
            .iter()
            .map(|sensor| self.sensor(sensor, addresses.next().as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Opened { sensors, inputs, outputs })
    }

    fn output(
        &self,
        config: &OutputConfig,
        address: Option<LineAddress>,
    ) -> Result<Output, LinesError> {
        let start = outputs::level(config.safety.safe, config.active);
        let line: Box<dyn digital::Output> = match address {
            None => Box::new(SimOutput(start)),
            Some(address) => {
                info!(output = %config.name, pin = %config.pin, line = %address, safe = config.safety.safe.as_str(), "output");
                let (written, name) = (config.pin.to_string(), config.name.as_str());
                let line = digital::OutputLine::open(&self.chips, &address, &written, name, start);
                Box::new(line.map_err(|cause| LinesError::Line { name: name.to_owned(), cause })?)
            }
        };
        Ok(Output::new(config.name.clone(), line, config.active, config.safety))
    }

    fn input(
        &self,
        config: &InputConfig,
        address: Option<LineAddress>,
    ) -> Result<Input, LinesError> {
        let line: Box<dyn digital::Input> = match address {
            None => Box::new(SimInput::default()),
            Some(address) => {
                info!(input = %config.name, pin = %config.pin, line = %address, "input");
                let (written, name) = (config.pin.to_string(), config.name.as_str());
                let line = digital::InputLine::open(&self.chips, &address, &written, name);
                Box::new(line.map_err(|cause| LinesError::Line { name: name.to_owned(), cause })?)
            }
        };
        Ok(Input::new(config.name.clone(), line, config.active, config.debounce))
    }

    /// The lines of all these pins; of none where lines are simulated.
    fn claim_all<'b>(
        &mut self,
        pins: impl Iterator<Item = (&'b Id, &'b Pin)>,
    ) -> Result<Vec<LineAddress>, LinesError> {
        if let Backend::Sim { .. } = self.backend {
            return Ok(Vec::new());
        }
        pins.map(|(name, pin)| self.claim(name, pin)).collect()
    }

    fn sensor(
        &self,
        config: &SensorConfig,
        address: Option<&LineAddress>,
    ) -> Result<Sensor, LinesError> {
        let line: Box<dyn Line> = match (self.backend, address) {
            (Backend::Sim { faults }, _) => {
                info!(sensor = %config.name, model = %config.model, pin = %config.pin, "simulated sensor");
                Box::new(simulated(self.node, config, faults))
            }
            (_, Some(address)) => self
                .real(config, address)
                .map_err(|cause| LinesError::Line { name: config.name.to_string(), cause })?,
            (_, None) => unreachable!("every pin of a real backend was claimed"),
        };
        Ok(Sensor { name: config.name.clone(), model: config.model, line })
    }

    fn real(
        &self,
        config: &SensorConfig,
        address: &LineAddress,
    ) -> Result<Box<dyn Line>, LineError> {
        let (name, written) = (config.name.as_str(), config.pin.to_string());
        let by_cdev =
            || cdev::SensorLine::open(&self.chips, address, &written, name, self.realtime);
        let by_iio =
            || iio::SensorLine::open(Path::new(iio::DEVICES), address, &written, config.model);
        let (line, way): (Box<dyn Line>, _) = match self.backend {
            Backend::Cdev => (Box::new(by_cdev()?), "cdev"),
            Backend::Rppal => {
                (Box::new(rppal::SensorLine::open(address, &written, self.realtime)?), "rppal")
            }
            Backend::Iio => (Box::new(by_iio()?), "iio"),
            // The character device is on every board and needs one device file. Only a line that the
            // kernel's own dht11 driver has is read through that.
            Backend::Auto | Backend::Sim { .. } => match by_cdev() {
                Ok(line) => (Box::new(line), "cdev, the way of every board"),
                Err(LineError::Busy { line, consumer }) => match by_iio() {
                    Ok(sensor) => {
                        (Box::new(sensor), "iio, because the kernel's dht11 driver has the line")
                    }
                    Err(_) => return Err(LineError::Busy { line, consumer }),
                },
                Err(other) => return Err(other),
            },
        };
        info!(sensor = %name, model = %config.model, pin = %config.pin, line = %address, "sensor by {way}");
        Ok(line)
    }
}

fn simulated(node: &Id, config: &SensorConfig, faults: f64) -> SimLine {
    // Every simulated sensor is in a room of its own, the same one at every start.
    let mut hasher = std::hash::DefaultHasher::new();
    (node, &config.name).hash(&mut hasher);
    SimLine::new(
        config.model,
        hasher.finish(),
        SIM_JITTER_US,
        Behaviour::Faulty(faults),
        Box::new(unix_ms),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;
    use crate::dht::Model;

    fn zero() -> Recognised {
        Recognised::set(Board::by_id("orange-pi-zero").unwrap())
    }

    fn id(text: &str) -> Id {
        text.parse().unwrap()
    }

    #[test]
    fn one_line_is_given_out_once_however_it_is_written() {
        let (node, board) = (id("box"), zero());
        let lines = || Lines::on(&node, &board, Backend::Cdev, Chips::none());
        for again in ["7", "PA6", "1c20800.pinctrl:6"] {
            let mut lines = lines();
            lines.claim(&id("hall"), &"PA6".parse().unwrap()).unwrap();
            let error = lines.claim(&id("press"), &again.parse().unwrap()).unwrap_err();
            for part in ["hall@PA6", "press@", "1c20800.pinctrl:6"] {
                assert!(error.to_string().contains(part), "{part} in {error}");
            }
        }
        let mut lines = lines();
        lines.claim(&id("hall"), &"7".parse().unwrap()).unwrap();
        assert!(lines.claim(&id("press"), &"8".parse().unwrap()).is_ok());
    }

    #[test]
    fn without_a_device_the_first_sensor_says_so() {
        let (node, board) = (id("box"), zero());
        let config = SensorConfig { name: id("hall"), model: Model::Dht22, pin: Pin::Header(7) };
        let lines = Lines::on(&node, &board, Backend::Auto, Chips::none());
        let error = lines.open(std::slice::from_ref(&config), &[], &[]).err().unwrap();
        assert!(matches!(&error, LinesError::Line { cause: LineError::NoChips { .. }, .. }));
        assert!(error.to_string().contains("`hall`"), "{error}");
        // A simulated one needs neither the device nor the pin.
        let config = SensorConfig { pin: Pin::Header(40), ..config };
        let lines = Lines::new(&node, &board, Backend::Sim { faults: 0.0 });
        assert!(lines.open(&[config], &[], &[]).is_ok());
    }
}
