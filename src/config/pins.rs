//! What is on which pin: sensors, how they are reached, and the board that says which line a pin is.

use std::collections::HashSet;
use std::path::Path;

use super::layers::{Layers, Problems};
use super::roles::{list, one_of};
use crate::board::{Board, Recognised};
use crate::dht::Model;
use crate::gpio::Pin;
use crate::node::{Backend, SensorConfig};

/// Sensors on one board; more than any header has pins.
const SENSORS_MAX: usize = 40;
/// What a sensor is called that was given on the command line without a name.
const NAMELESS: &str = "sensor";

/// What `humidor read` needs to know.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What to read.
    pub sensors: Vec<SensorConfig>,
    /// How lines are reached.
    pub backend: Backend,
    /// The board.
    pub board: Recognised,
}

/// The sensor `wanted` (`[name=]model@pin`, or the name of a configured one), or all that are
/// configured.
///
/// # Errors
/// Every mistake.
pub fn probe(mut layers: Layers, wanted: Option<&str>) -> Result<Probe, Problems> {
    let (backend, board) = (backend(&mut layers), board(&mut layers));
    let found = match wanted {
        Some(text) if text.contains('@') => {
            let named =
                if text.contains('=') { text.to_owned() } else { format!("{NAMELESS}={text}") };
            sensors(&named).map_err(|error| layers.problem(error)).ok()
        }
        Some(name) => layers.need("sensors", sensors).and_then(|configured| {
            let one = configured.into_iter().find(|sensor| sensor.name.as_str() == name);
            if one.is_none() {
                layers.problem(format!("HUMIDOR_SENSORS has no sensor `{name}`"));
            }
            one.map(|sensor| vec![sensor])
        }),
        None => layers.need("sensors", sensors),
    };
    let probe = (|| Some(Probe { sensors: found?, backend: backend?, board: board? }))();
    layers.finish(probe)
}

/// What is configured on which pin; nothing where that has mistakes.
pub fn uses(layers: &mut Layers) -> Vec<(String, Pin)> {
    let sensors = layers.take("sensors", sensors).unwrap_or_default();
    sensors.into_iter().map(|sensor| (sensor.name.to_string(), sensor.pin)).collect()
}

/// How lines are reached.
pub fn backend(layers: &mut Layers) -> Option<Backend> {
    let faults = layers.need("sim_faults", |text| {
        text.parse::<f64>()
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| format!("`{text}` is not a share between 0 and 1"))
    });
    layers.need("gpio", |text| match text {
        "auto" => Ok(Backend::Auto),
        "cdev" => Ok(Backend::Cdev),
        "rppal" => Ok(Backend::Rppal),
        "iio" => Ok(Backend::Iio),
        "sim" => Ok(Backend::Sim { faults: faults.unwrap_or_default() }),
        other => Err(one_of(other, &["auto", "cdev", "rppal", "iio", "sim"])),
    })
}

/// The board: as set, or recognised. One that is not known is no mistake until a pin needs it.
pub fn board(layers: &mut Layers) -> Option<Recognised> {
    if layers.get("board").is_none() {
        return Some(crate::board::recognise(Path::new("/")));
    }
    layers.take("board", |text| {
        Board::by_id(text)
            .map(Recognised::set)
            .ok_or_else(|| one_of(text, &Board::ids().collect::<Vec<_>>()))
    })
}

pub(super) fn sensors(text: &str) -> Result<Vec<SensorConfig>, String> {
    let sensors = list(text, |item| {
        let (name, rest) = item.split_once('=').ok_or("write name=model@pin, as hall=dht22@7")?;
        let (model, pin) = rest.split_once('@').ok_or("write name=model@pin, as hall=dht22@7")?;
        let model = model.parse::<Model>().map_err(|_| {
            format!(
                "unknown model {}",
                one_of(&model.to_ascii_lowercase(), &["dht11", "dht22", "am2302"])
            )
        })?;
        Ok(SensorConfig {
            name: name
                .trim()
                .parse()
                .map_err(|error: crate::reading::IdError| error.to_string())?,
            model,
            pin: pin.trim().parse::<Pin>().map_err(|error| error.to_string())?,
        })
    })?;
    if sensors.is_empty() {
        return Err("at least one sensor is needed: hall=dht22@7".to_owned());
    }
    if sensors.len() > SENSORS_MAX {
        return Err(format!(
            "{} sensors are more than the {SENSORS_MAX} that a board takes",
            sensors.len()
        ));
    }
    let (mut names, mut pins) = (HashSet::new(), HashSet::new());
    for sensor in &sensors {
        if !names.insert(&sensor.name) {
            return Err(format!("the name `{}` is given twice", sensor.name));
        }
        if !pins.insert(&sensor.pin) {
            return Err(format!("the pin `{}` is given twice", sensor.pin));
        }
    }
    Ok(sensors)
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
    fn a_board_or_a_way_that_is_not_known_is_named_with_the_nearest() {
        let problems = read(&[TWO, ("board", "orange-pi-zer0"), ("gpio", "cdv")], Some("cellar"));
        let problems = problems.unwrap_err().to_string();
        for expected in ["did you mean `orange-pi-zero`", "did you mean `cdev`", "`cellar`"] {
            assert!(problems.contains(expected), "{expected} in {problems}");
        }
        assert!(read(&[], None).unwrap_err().to_string().contains("HUMIDOR_SENSORS"));
    }
}
