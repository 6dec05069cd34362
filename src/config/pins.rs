//! What is on which pin: sensors, how they are reached, and the board that says which line a pin is.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::layers::{Layers, Problems};
use super::roles::{duration, list, one_of};
use crate::board::{Board, Recognised};
use crate::dht::Model;
use crate::gpio::{Level, Pin};
use crate::node::{Backend, InputConfig, LINES_PER_KIND_MAX, OutputConfig, Safety, SensorConfig};
use crate::reading::{Id, IdError};
use crate::wire::Switch;

/// How long an input's level has to last, where nobody says otherwise, and at most.
const DEBOUNCE_DEFAULT: Duration = Duration::from_millis(50);
const DEBOUNCE_MAX: Duration = Duration::from_secs(10);
/// How long the broker may be away before an output takes its safe level, where nobody says otherwise,
/// and what can be said. The connection is asked for life three times within it, at most once a second.
const AWAY_DEFAULT: Duration = Duration::from_mins(1);
const AWAY_RANGE: RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_hours(24);
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
    let inputs = layers.take("inputs", inputs).unwrap_or_default();
    let outputs = layers.take("outputs", outputs).unwrap_or_default();
    let sensors = sensors.into_iter().map(|sensor| (sensor.name.to_string(), sensor.pin));
    let inputs = inputs.into_iter().map(|input| (input.name.to_string(), input.pin));
    let outputs = outputs.into_iter().map(|output| (output.name.to_string(), output.pin));
    sensors.chain(inputs).chain(outputs).collect()
}

/// `door=GPIO22:debounce=50ms:active=low`, comma-separated.
pub(super) fn inputs(text: &str) -> Result<Vec<InputConfig>, String> {
    let inputs = list(text, |item| {
        let (name, pin, options) = switch(item)?;
        let mut input = InputConfig { name, pin, active: Level::High, debounce: DEBOUNCE_DEFAULT };
        for (key, value) in options {
            match key {
                "debounce" => input.debounce = duration(value, Duration::ZERO..=DEBOUNCE_MAX)?,
                "active" => input.active = active(value)?,
                other => return Err(one_of(other, &["debounce", "active"])),
            }
        }
        Ok(input)
    })?;
    once(inputs.iter().map(|input| (&input.name, &input.pin)))?;
    Ok(inputs)
}

/// `fan=GPIO27:safe=off:away=60s:active=low`, comma-separated.
pub(super) fn outputs(text: &str) -> Result<Vec<OutputConfig>, String> {
    let outputs = list(text, |item| {
        let (name, pin, options) = switch(item)?;
        let safety = Safety { safe: Switch::Off, away: AWAY_DEFAULT };
        let mut output = OutputConfig { name, pin, active: Level::High, safety };
        for (key, value) in options {
            match key {
                "safe" => {
                    output.safety.safe = match value {
                        "off" => Switch::Off,
                        "on" => Switch::On,
                        other => return Err(one_of(other, &["off", "on"])),
                    }
                }
                "away" => output.safety.away = duration(value, AWAY_RANGE)?,
                "active" => output.active = active(value)?,
                other => return Err(one_of(other, &["safe", "away", "active"])),
            }
        }
        Ok(output)
    })?;
    once(outputs.iter().map(|output| (&output.name, &output.pin)))?;
    Ok(outputs)
}

/// Keys and values.
type Options<'a> = Vec<(&'a str, &'a str)>;

/// A name, a pin, and options. A pin may have a colon itself (chip:line), an option has an equals sign.
fn switch(item: &str) -> Result<(Id, Pin, Options<'_>), String> {
    let (name, rest) = item.split_once('=').ok_or("write name=pin, as fan=GPIO27:safe=off")?;
    let name = name.trim().parse().map_err(|error: IdError| error.to_string())?;
    let parts: Vec<&str> = rest.split(':').map(str::trim).collect();
    let (pin, options): (Vec<&str>, Vec<&str>) = parts.iter().partition(|part| !part.contains('='));
    let pin = pin.join(":").parse::<Pin>().map_err(|error| error.to_string())?;
    let options = options.into_iter().filter_map(|option| option.split_once('=')).collect();
    Ok((name, pin, options))
}

fn active(text: &str) -> Result<Level, String> {
    match text {
        "high" => Ok(Level::High),
        "low" => Ok(Level::Low),
        other => Err(one_of(other, &["high", "low"])),
    }
}

fn once<'a>(things: impl Iterator<Item = (&'a Id, &'a Pin)>) -> Result<(), String> {
    let (mut names, mut pins) = (HashSet::new(), HashSet::new());
    let things: Vec<_> = things.collect();
    if things.len() > LINES_PER_KIND_MAX {
        return Err(format!(
            "{} are more than the {LINES_PER_KIND_MAX} that a board takes",
            things.len()
        ));
    }
    for (name, pin) in things {
        if !names.insert(name) {
            return Err(format!("the name `{name}` is given twice"));
        }
        if !pins.insert(pin) {
            return Err(format!("the pin `{pin}` is given twice"));
        }
    }
    Ok(())
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
    once(sensors.iter().map(|sensor| (&sensor.name, &sensor.pin)))?;
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
    fn inputs_and_outputs_are_read_with_their_options() {
        let input = inputs("door=GPIO22:debounce=20ms:active=low, gate=chip.x:4").unwrap();
        assert_eq!((input[0].debounce, input[0].active), (Duration::from_millis(20), Level::Low));
        assert_eq!(input[1].pin, Pin::Line { chip: "chip.x".into(), offset: 4 });
        let output = outputs("fan=GPIO27:safe=on:away=5s,lamp=11").unwrap();
        let away = Duration::from_secs(5);
        assert_eq!(output[0].safety, Safety { safe: Switch::On, away });
        assert_eq!(output[1].safety, Safety { safe: Switch::Off, away: AWAY_DEFAULT });
        for (wrong, expected) in [
            ("fan", "name=pin"),
            ("fan=GPIO27:save=off", "did you mean `safe`"),
            ("fan=GPIO27:safe=low", "`low` is none of"),
            ("fan=GPIO27:away=1s", "not between"),
            ("fan=7,fan=8", "given twice"),
            ("fan=7,lamp=7", "given twice"),
            ("fan=pin7", "not a pin"),
        ] {
            let error = outputs(wrong).unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
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
