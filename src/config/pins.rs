//! Lists of things on pins as a user writes them: sensors, inputs, outputs.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::parse::{choice, duration, list, not_one_of, plain};
use crate::dht::Model;
use crate::gpio::{Level, Pin};
use crate::node::{InputConfig, LINES_PER_KIND_MAX, OutputConfig, Safety, SensorConfig};
use crate::reading::Id;
use crate::wire::Switch;

const FORM_SENSOR: &str = "write name=model@pin, for example hall=dht22@7";
/// How long an input's level has to last to be taken: by default, and at most.
const DEBOUNCE_DEFAULT: Duration = Duration::from_millis(50);
const DEBOUNCE_MAX: Duration = Duration::from_secs(10);
/// Time without the broker after which an output takes its safe level: by default, and the possible range. Within it the
/// node pings the broker three times, at most once a second.
const AWAY_DEFAULT: Duration = Duration::from_mins(1);
const AWAY_RANGE: RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_hours(24);

/// `door=15:debounce=50ms:active=low`, comma-separated.
pub(super) fn inputs(text: &str) -> Result<Vec<InputConfig>, String> {
    let inputs = list(text, |item| {
        let (name, pin, options) = switch(item)?;
        let mut input = InputConfig { name, pin, active: Level::High, debounce: DEBOUNCE_DEFAULT };
        for (key, value) in options {
            match key {
                "debounce" => input.debounce = duration(value, Duration::ZERO..=DEBOUNCE_MAX)?,
                "active" => input.active = active(value)?,
                other => return Err(not_one_of(other, &["debounce", "active"])),
            }
        }
        Ok(input)
    })?;
    once(inputs.iter().map(|input| (&input.name, &input.pin)))?;
    Ok(inputs)
}

/// `fan=13:safe=off:away=60s:active=low`, comma-separated.
pub(super) fn outputs(text: &str) -> Result<Vec<OutputConfig>, String> {
    let outputs = list(text, |item| {
        let (name, pin, options) = switch(item)?;
        let safety = Safety { safe: Switch::Off, away: AWAY_DEFAULT };
        let mut output = OutputConfig { name, pin, active: Level::High, safety };
        for (key, value) in options {
            match key {
                "safe" => {
                    output.safety.safe =
                        choice(value, &[("off", Switch::Off), ("on", Switch::On)])?;
                }
                "away" => output.safety.away = duration(value, AWAY_RANGE)?,
                "active" => output.active = active(value)?,
                other => return Err(not_one_of(other, &["safe", "away", "active"])),
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
    let (name, rest) = item.split_once('=').ok_or("write name=pin, for example fan=13:safe=off")?;
    let name = plain(name.trim())?;
    let parts: Vec<&str> = rest.split(':').map(str::trim).collect();
    let (pin, options): (Vec<&str>, Vec<&str>) = parts.iter().partition(|part| !part.contains('='));
    let pin = plain(&pin.join(":"))?;
    let options = options.into_iter().filter_map(|option| option.split_once('=')).collect();
    Ok((name, pin, options))
}

fn active(text: &str) -> Result<Level, String> {
    choice(text, &[("high", Level::High), ("low", Level::Low)])
}

fn once<'a>(things: impl Iterator<Item = (&'a Id, &'a Pin)>) -> Result<(), String> {
    let (mut names, mut pins) = (HashSet::new(), HashSet::new());
    let things: Vec<_> = things.collect();
    if things.len() > LINES_PER_KIND_MAX {
        return Err(format!(
            "the list has {} items; a board takes at most {LINES_PER_KIND_MAX}",
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

/// `hall=dht22@7`, comma-separated.
pub(super) fn sensors(text: &str) -> Result<Vec<SensorConfig>, String> {
    let sensors = list(text, |item| {
        let (name, rest) = item.split_once('=').ok_or(FORM_SENSOR)?;
        let (model, pin) = rest.split_once('@').ok_or(FORM_SENSOR)?;
        let model = model.parse::<Model>().map_err(|_| {
            format!(
                "unknown model {}",
                not_one_of(
                    &model.to_ascii_lowercase(),
                    &["dht11", "dht22", "am2302", "dht21", "am2301"]
                )
            )
        })?;
        let (name, pin) = (plain(name.trim())?, plain(pin.trim())?);
        Ok(SensorConfig { name, model, pin })
    })?;
    if sensors.is_empty() {
        return Err(format!("the list is empty; {FORM_SENSOR}"));
    }
    once(sensors.iter().map(|sensor| (&sensor.name, &sensor.pin)))?;
    Ok(sensors)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
