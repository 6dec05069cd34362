//! The settings of the commands beside the two roles, each command's own as one type.

use std::path::PathBuf;

use super::access;
use super::broker::retention;
use super::layers::Layers;
use super::node::{backend, board, node_id};
use super::pins;
use super::problem::Problems;
use super::settings::{DATA, DISCOVERY, INPUTS, MQTT_LISTEN, OUTPUTS, SENSORS};
use crate::board::Recognised;
use crate::gpio::Pin;
use crate::node::{Backend, SensorConfig};
use crate::reading::Id;
use crate::store::Retention;
use crate::wire::Discovery;

/// Name of a sensor that was given on the command line without one.
const NAMELESS: &str = "sensor";

/// The settings of `humidor read`.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The sensors to read.
    pub sensors: Vec<SensorConfig>,
    /// How lines are reached.
    pub backend: Backend,
    /// The board.
    pub board: Recognised,
}

/// The settings of `humidor gpio`.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// The board.
    pub board: Recognised,
    /// Name and pin of each sensor, input and output; none of a list with a mistake.
    pub uses: Vec<(String, Pin)>,
}

/// The settings of `humidor health`: the roles that this configuration would run.
#[derive(Debug, Clone)]
pub struct Health {
    /// The node's id; `None` when the setting has a mistake.
    pub node: Option<Id>,
    /// The port for MQTT clients; `None` when the setting has a mistake.
    pub mqtt_port: Option<u16>,
}

/// The data folder.
///
/// # Errors
/// Every mistake.
pub fn data(mut layers: Layers) -> Result<PathBuf, Problems> {
    let data = layers.need(&DATA);
    layers.finish(data)
}

/// The data folder, and the retention of the log in it.
///
/// # Errors
/// Every mistake.
pub fn data_and_retention(mut layers: Layers) -> Result<(PathBuf, Retention), Problems> {
    let (data, retention) = (layers.need(&DATA), retention(&mut layers));
    layers.finish(data.zip(retention))
}

/// The data folder, and where Home Assistant looks for devices.
///
/// # Errors
/// Every mistake.
pub fn data_and_discovery(mut layers: Layers) -> Result<(PathBuf, Option<Discovery>), Problems> {
    let (data, discovery) = (layers.need(&DATA), layers.need(&DISCOVERY));
    layers.finish(data.zip(discovery))
}

/// The users file as set, or the one in the data folder.
///
/// # Errors
/// Every mistake.
pub fn users_file(mut layers: Layers) -> Result<PathBuf, Problems> {
    let file = layers.need(&DATA).map(|data| access::users_file(&mut layers, &data).0);
    layers.finish(file)
}

/// The roles that this configuration would run. The health check ignores mistakes in other settings.
#[must_use]
pub fn health(mut layers: Layers) -> Health {
    let node = node_id(&mut layers);
    let mqtt_port = layers.take(&MQTT_LISTEN).map(|address| address.port());
    Health { node, mqtt_port }
}

/// The sensor `wanted` (`[name=]model@pin`, or the name of a configured one), or all that are configured.
///
/// # Errors
/// Every mistake.
pub fn probe(mut layers: Layers, wanted: Option<&str>) -> Result<Probe, Problems> {
    let (backend, board) = (backend(&mut layers), board(&mut layers));
    let sensors = match wanted {
        Some(text) if text.contains('@') => {
            let named =
                if text.contains('=') { text.to_owned() } else { format!("{NAMELESS}={text}") };
            pins::sensors(&named).map_err(|error| layers.problem(error)).ok()
        }
        Some(name) => layers.need(&SENSORS).and_then(|configured| {
            let one = configured.into_iter().find(|sensor| sensor.name.as_str() == name);
            if one.is_none() {
                layers.problem(format!("HUMIDOR_SENSORS has no sensor `{name}`"));
            }
            one.map(|sensor| vec![sensor])
        }),
        None => layers.need(&SENSORS),
    };
    let probe = (|| Some(Probe { sensors: sensors?, backend: backend?, board: board? }))();
    layers.finish(probe)
}

/// The board, and the pins in use. A mistake in a pin is not reported: the command is for finding pins.
///
/// # Errors
/// Every mistake in the other settings.
pub fn wiring(mut layers: Layers) -> Result<Wiring, Problems> {
    let wiring = wiring_fields(&mut layers);
    layers.finish(wiring)
}

/// The data folder and the [`wiring`]: the settings of `humidor doctor`.
///
/// # Errors
/// Every mistake, except those in pins.
pub fn data_and_wiring(mut layers: Layers) -> Result<(PathBuf, Wiring), Problems> {
    let (data, wiring) = (layers.need(&DATA), wiring_fields(&mut layers));
    layers.finish(data.zip(wiring))
}

fn wiring_fields(layers: &mut Layers) -> Option<Wiring> {
    let uses = uses(layers.clone());
    board(layers).map(|board| Wiring { board, uses })
}

fn uses(mut layers: Layers) -> Vec<(String, Pin)> {
    let sensors = layers.take(&SENSORS).unwrap_or_default();
    let inputs = layers.take(&INPUTS).unwrap_or_default();
    let outputs = layers.take(&OUTPUTS).unwrap_or_default();
    let sensors = sensors.into_iter().map(|sensor| (sensor.name.to_string(), sensor.pin));
    let inputs = inputs.into_iter().map(|input| (input.name.to_string(), input.pin));
    let outputs = outputs.into_iter().map(|output| (output.name.to_string(), output.pin));
    sensors.chain(inputs).chain(outputs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[(&'static str, &str)], wanted: Option<&str>) -> Result<Probe, Problems> {
        let flags: Vec<_> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        probe(Layers::new(&flags, []), wanted)
    }

    const TWO: (&str, &str) = ("sensors", "hall=dht22@7,press=dht11@8");

    #[test]
    fn a_sensor_is_read_by_name_by_pin_or_with_all_others() {
        let names = |wanted| {
            let probe = read(&[TWO], wanted).unwrap();
            probe.sensors.iter().map(|sensor| sensor.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["hall", "press"]);
        assert_eq!(names(Some("press")), ["press"]);
        assert_eq!(names(Some("dht11@GPIO4")), [NAMELESS]);
        assert_eq!(names(Some("roof=dht22@11")), ["roof"]);
    }

    #[test]
    fn a_board_or_a_backend_that_is_not_known_is_named_with_the_nearest() {
        let problems = read(&[TWO, ("board", "orange-pi-zer0"), ("gpio", "cdv")], Some("cellar"));
        let problems = problems.unwrap_err().to_string();
        for expected in ["did you mean `orange-pi-zero`", "did you mean `cdev`", "`cellar`"] {
            assert!(problems.contains(expected), "{expected} in {problems}");
        }
        assert!(read(&[], None).unwrap_err().to_string().contains("HUMIDOR_SENSORS"));
    }
}
