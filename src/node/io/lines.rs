//! From configured pins to open lines: which line a pin is, whether it is free, and how it is reached.

use std::collections::HashMap;
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
use crate::sim::world::room;
use crate::sim::{Behaviour, SimInput, SimLine, SimOutput};

/// Jitter of a simulated pulse's width, in µs: as a polling reader on a busy board sees it.
const SIM_JITTER_US: u32 = 8;

/// The reason why the lines cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// A pin that this board does not have.
    #[error(transparent)]
    Pin(#[from] NoSuchPin),
    /// Two names for one line.
    #[error("`{first}` and `{second}` are both on {address}: use another pin for one of them")]
    Twice {
        /// Name and pin that came first.
        first: String,
        /// Name and pin that came second.
        second: String,
        /// The line.
        address: LineAddress,
    },
    /// A line that cannot be used.
    #[error("`{name}`: {cause}")]
    Line {
        /// Name of the sensor, input or output.
        name: String,
        /// The reason.
        cause: LineError,
    },
}

/// Sensors, inputs and outputs on their lines.
pub struct OpenLines {
    /// Sensors.
    pub sensors: Vec<Sensor>,
    /// Inputs.
    pub inputs: Vec<Input>,
    /// Outputs, at their safe level.
    pub outputs: Vec<Output>,
}

/// Opens lines, each for one name.
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

    /// Reserves the line of `pin` for `name`.
    fn reserve(&mut self, name: &Id, pin: &Pin) -> Result<LineAddress, LinesError> {
        let (address, known) = self.board.resolve(pin)?;
        let owner = format!("{name}@{pin}");
        if let Some(first) = self.taken.insert(address.clone(), owner.clone()) {
            return Err(LinesError::Twice { first, second: owner, address });
        }
        if let Some(reason) = known.and_then(|known| known.reserved) {
            warn!(%name, %pin, line = %address, "this line has another use on the board: {reason}");
        }
        Ok(address)
    }

    /// Opens the lines of everything configured. Every pin is resolved before the first line is opened.
    ///
    /// # Errors
    /// [`LinesError`].
    pub fn open(
        mut self,
        sensors: &[SensorConfig],
        inputs: &[InputConfig],
        outputs: &[OutputConfig],
    ) -> Result<OpenLines, LinesError> {
        let mut addresses = self
            .reserve_all(
                outputs
                    .iter()
                    .map(|output| (&output.name, &output.pin))
                    .chain(inputs.iter().map(|input| (&input.name, &input.pin)))
                    .chain(sensors.iter().map(|sensor| (&sensor.name, &sensor.pin))),
            )?
            .into_iter();
        // Outputs first: they are at their safe level even if an input or a sensor cannot be opened.
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
        Ok(OpenLines { sensors, inputs, outputs })
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

    /// Reserves the lines of all these pins; none where lines are simulated.
    fn reserve_all<'b>(
        &mut self,
        pins: impl Iterator<Item = (&'b Id, &'b Pin)>,
    ) -> Result<Vec<LineAddress>, LinesError> {
        if let Backend::Sim { .. } = self.backend {
            return Ok(Vec::new());
        }
        pins.map(|(name, pin)| self.reserve(name, pin)).collect()
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
            (_, None) => unreachable!("every pin of a real backend was reserved"),
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
        let (line, backend): (Box<dyn Line>, _) = match self.backend {
            Backend::Cdev => (Box::new(by_cdev()?), "cdev"),
            Backend::Rppal => {
                (Box::new(rppal::SensorLine::open(address, &written, self.realtime)?), "rppal")
            }
            Backend::Iio => (Box::new(by_iio()?), "iio"),
            // Every board has the character device, and it needs one device file. The kernel's own dht11 driver reads
            // the lines that it has.
            Backend::Auto | Backend::Sim { .. } => match by_cdev() {
                Ok(line) => (Box::new(line), "cdev"),
                Err(LineError::Busy { line, consumer }) => match by_iio() {
                    Ok(sensor) => {
                        (Box::new(sensor), "iio, because the kernel's dht11 driver has the line")
                    }
                    Err(_) => return Err(LineError::Busy { line, consumer }),
                },
                Err(other) => return Err(other),
            },
        };
        info!(sensor = %name, model = %config.model, pin = %config.pin, line = %address, "sensor by {backend}");
        Ok(line)
    }
}

fn simulated(node: &Id, config: &SensorConfig, faults: f64) -> SimLine {
    SimLine::new(
        config.model,
        room(node, &config.name),
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
    fn one_line_has_one_name_however_its_pin_is_written() {
        let (node, board) = (id("box"), zero());
        let lines = || Lines::on(&node, &board, Backend::Cdev, Chips::none());
        for again in ["7", "PA6", "1c20800.pinctrl:6"] {
            let mut lines = lines();
            lines.reserve(&id("hall"), &"PA6".parse().unwrap()).unwrap();
            let error = lines.reserve(&id("press"), &again.parse().unwrap()).unwrap_err();
            for part in ["hall@PA6", "press@", "1c20800.pinctrl:6"] {
                assert!(error.to_string().contains(part), "{part} in {error}");
            }
        }
        let mut lines = lines();
        lines.reserve(&id("hall"), &"7".parse().unwrap()).unwrap();
        assert!(lines.reserve(&id("press"), &"8".parse().unwrap()).is_ok());
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
