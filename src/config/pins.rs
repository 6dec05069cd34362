//! Lists of things on pins as a user writes them: sensors, inputs, outputs.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::parse::{both, choice, duration, list_of, nearest, not_one_of, plain};
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
    let input = |item: &str| -> Result<InputConfig, String> {
        let (place, options) = switch(item)?;
        let (mut level, mut debounce) = (Level::High, DEBOUNCE_DEFAULT);
        let options = each(options, |key, value| {
            match key {
                "debounce" => debounce = duration(value, Duration::ZERO..=DEBOUNCE_MAX)?,
                "active" => level = active(value)?,
                other => return Err(not_one_of(other, &["debounce", "active"])),
            }
            Ok(())
        });
        let ((name, pin), ()) = both(place, options)?;
        Ok(InputConfig { name, pin, active: level, debounce })
    };
    list_of(text, input, |inputs| once(inputs.iter().map(|input| (&input.name, &input.pin))))
}

/// `fan=13:safe=off:away=60s:active=low`, comma-separated.
pub(super) fn outputs(text: &str) -> Result<Vec<OutputConfig>, String> {
    let output = |item: &str| -> Result<OutputConfig, String> {
        let (place, options) = switch(item)?;
        let (mut level, mut safety) =
            (Level::High, Safety { safe: Switch::Off, away: AWAY_DEFAULT });
        let options = each(options, |key, value| {
            match key {
                "safe" => safety.safe = choice(value, &[("off", Switch::Off), ("on", Switch::On)])?,
                "away" => safety.away = duration(value, AWAY_RANGE)?,
                "active" => level = active(value)?,
                other => return Err(not_one_of(other, &["safe", "away", "active"])),
            }
            Ok(())
        });
        let ((name, pin), ()) = both(place, options)?;
        Ok(OutputConfig { name, pin, active: level, safety })
    };
    list_of(text, output, |outputs| once(outputs.iter().map(|output| (&output.name, &output.pin))))
}

/// Keys and values.
type Options<'a> = Vec<(&'a str, &'a str)>;

/// A name and a pin.
type Place = Result<(Id, Pin), String>;

/// A name, a pin, and options. A pin may have a colon itself (chip:line), an option has an equals sign.
fn switch(item: &str) -> Result<(Place, Options<'_>), String> {
    let (name, rest) = item.split_once('=').ok_or("write name=pin, for example fan=13:safe=off")?;
    let name = plain(name.trim());
    let parts: Vec<&str> = rest.split(':').map(str::trim).collect();
    let (pin, options): (Vec<&str>, Vec<&str>) = parts.iter().partition(|part| !part.contains('='));
    let pin = plain(&pin.join(":"));
    let options = options.into_iter().filter_map(|option| option.split_once('=')).collect();
    Ok((both(name, pin), options))
}

/// Takes each option.
///
/// # Errors
/// All mistakes, a line each.
fn each(
    options: Options<'_>,
    mut take: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), String> {
    let mistakes: Vec<String> =
        options.into_iter().filter_map(|(key, value)| take(key, value).err()).collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes.join("\n")) }
}

fn active(text: &str) -> Result<Level, String> {
    choice(text, &[("high", Level::High), ("low", Level::Low)])
}

/// What is there twice, and too much.
fn once<'a>(things: impl Iterator<Item = (&'a Id, &'a Pin)>) -> Vec<String> {
    let (mut names, mut pins, mut mistakes) = (HashSet::new(), HashSet::new(), Vec::new());
    let things: Vec<_> = things.collect();
    if things.len() > LINES_PER_KIND_MAX {
        let found = things.len();
        mistakes.push(format!(
            "the list has {found} items; a board takes at most {LINES_PER_KIND_MAX}"
        ));
    }
    for (name, pin) in things {
        if !names.insert(name) {
            mistakes.push(format!("the name `{name}` is given twice"));
        }
        if !pins.insert(pin) {
            mistakes.push(format!("the pin `{pin}` is given twice"));
        }
    }
    mistakes
}

/// The models that are read.
const MODELS: [&str; 5] = ["dht11", "dht22", "am2302", "dht21", "am2301"];
/// How far another word is from one of them at most that means it: `dht12` is another sensor than `sht31`.
const MODEL_SLIPS: usize = 2;

fn model(text: &str) -> Result<Model, String> {
    let text = text.trim();
    text.parse::<Model>().map_err(|_| {
        let plain = text.to_ascii_lowercase().replace(['-', '_', ' '], "");
        let is_family = plain.starts_with("dht") || plain.starts_with("am2");
        // They have names like these, and another bus.
        let is_other = plain.starts_with("sht") || plain == "dht20";
        let near = nearest(&plain, MODELS.into_iter())
            .filter(|_| !is_other)
            .filter(|near| is_family || strsim::damerau_levenshtein(&plain, near) < MODEL_SLIPS);
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("`{text}` is none of {}, the models that humidor reads{near}", MODELS.join(", "))
    })
}

/// `hall=dht22@7`, comma-separated.
pub(super) fn sensors(text: &str) -> Result<Vec<SensorConfig>, String> {
    let sensor = |item: &str| -> Result<SensorConfig, String> {
        let (name, rest) = item.split_once('=').ok_or(FORM_SENSOR)?;
        let (model, pin) = rest.split_once('@').ok_or(FORM_SENSOR)?;
        let model = self::model(model);
        let ((name, model), pin) = both(both(plain(name.trim()), model), plain(pin.trim()))?;
        Ok(SensorConfig { name, model, pin })
    };
    let sensors = list_of(text, sensor, |sensors| {
        once(sensors.iter().map(|sensor| (&sensor.name, &sensor.pin)))
    })?;
    if sensors.is_empty() { Err(format!("the list is empty; {FORM_SENSOR}")) } else { Ok(sensors) }
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

    #[test]
    fn every_mistake_of_a_list_is_told() {
        let lines = |error: String| error.lines().map(str::to_owned).collect::<Vec<_>>();
        let found = lines(
            sensors("Hall=sht31@99,a=dht22@7,b=dth22@8,a=dht11@9,c=dht22@9,d=dht22").unwrap_err(),
        );
        for (n, part) in [
            "`Hall=sht31@99`: `Hall` is not an id",
            "`Hall=sht31@99`: `sht31` is none of dht11,",
            "`Hall=sht31@99`: `99` is not a pin",
            "`b=dth22@8`: `dth22` is none of",
            "`d=dht22`: write name=model@pin",
            "the name `a` is given twice",
            "the pin `9` is given twice",
        ]
        .into_iter()
        .enumerate()
        {
            assert!(found[n].starts_with(part), "{part} at {n} of {found:#?}");
        }
        assert!(found[3].ends_with("did you mean `dht22`?"));
        assert!(!found[1].contains("did you mean") && !found[2].contains("did you mean"));
        let found =
            lines(outputs("Fan=GPIO999:safe=low:away=1s:foo=3,lamp=13:active=on").unwrap_err());
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(found[2].ends_with("did you mean `off`?"), "{found:#?}");
    }
}
