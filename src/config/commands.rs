//! The settings of the commands beside the two roles, each command's own as one type.

use std::path::PathBuf;

use super::access;
use super::broker::retention;
use super::layers::Layers;
use super::node::{self, backend, board, node_id};
use super::pin_uses;
use super::pins;
use super::problem::Problems;
use super::settings::{BROKER, DATA, DISCOVERY, INPUTS, MQTT_LISTEN, OUTPUTS, PASSWORD, SENSORS};
use crate::board::Recognised;
use crate::dht::Model;
use crate::gpio::Pin;
use crate::node::{Backend, LoginTrial, SensorConfig};
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

/// The settings of `humidor doctor`: what has a mistake is missing, and the mistake is in `problems`.
#[derive(Debug, Clone)]
pub struct Doctor {
    /// The data folder.
    pub data: Option<PathBuf>,
    /// The node's id.
    pub node: Option<Id>,
    /// How lines are reached.
    pub backend: Option<Backend>,
    /// The board.
    pub board: Option<Recognised>,
    /// Name and pin of each sensor, input and output.
    pub uses: Vec<(String, Pin)>,
    /// The sensors.
    pub sensors: Vec<SensorConfig>,
    /// The login at each broker.
    pub logins: Vec<LoginTrial>,
    /// What may be a mistake.
    pub warnings: Vec<String>,
    /// The mistakes.
    pub problems: Problems,
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
        // The sensor's model without its pin.
        Some(model)
            if model.parse::<Model>().is_ok()
                && !layers
                    .right_items(&SENSORS)
                    .iter()
                    .any(|sensor| sensor.name.as_str() == model) =>
        {
            layers.problem(format!("`{model}` is a model, and its pin is missing: write {model}@7, or the pin that the sensor is on"));
            None
        }
        Some(other) if !layers.is_set(&SENSORS) => {
            layers.missing(format!("`{other}` is not of the form model@pin: write dht22@7"));
            None
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

/// The settings of a node as far as they have no mistake, and the mistakes.
#[must_use]
pub fn doctor(mut layers: Layers) -> Doctor {
    let _ = node::fields(&mut layers, false);
    let mut quiet = layers.clone();
    let brokers = quiet.take(&BROKER);
    let sensors = quiet.take(&SENSORS).unwrap_or_default();
    let node = node_id(&mut quiet);
    let password = quiet.take(&PASSWORD);
    let tls = node::tls(&mut quiet, brokers.as_ref());
    let logins = node.iter().flat_map(|node| {
        brokers.iter().flatten().map(|broker| LoginTrial {
            node: node.clone(),
            broker: broker.clone(),
            password: password.clone(),
            tls: tls.clone(),
        })
    });
    let logins = logins.collect();
    Doctor {
        data: quiet.take(&DATA),
        node,
        backend: backend(&mut quiet),
        board: board(&mut quiet),
        uses: uses(quiet),
        sensors,
        logins,
        warnings: layers.warnings().to_vec(),
        problems: layers.problems(),
    }
}

fn wiring_fields(layers: &mut Layers) -> Option<Wiring> {
    let uses = uses(layers.clone());
    board(layers).map(|board| Wiring { board, uses })
}

fn uses(mut layers: Layers) -> Vec<(String, Pin)> {
    let sensors = layers.take(&SENSORS).unwrap_or_default();
    let inputs = layers.take(&INPUTS).unwrap_or_default();
    let outputs = layers.take(&OUTPUTS).unwrap_or_default();
    pin_uses::uses(&sensors, &inputs, &outputs).concat()
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
