//! Alarms as a user writes them: `hot=press/hall:temperature>30:hysteresis=2:delay=1m:output=roof/fan`.

use std::collections::HashSet;
use std::time::Duration;

use super::parse::{duration, list_of, not_one_of, plain};
use crate::broker::{AlarmConfig, AlarmRule, Quantity, Side};
use crate::reading::Id;

/// Most alarms of one broker.
const ALARMS_MAX: usize = 64;
/// Longest delay of an alarm.
const DELAY_MAX: Duration = Duration::from_hours(24);
/// Shortest and longest silence of an alarm: not below the interval of the fastest sensor.
const SILENT: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(24 * 30);
/// Default hysteresis in °C and %. Noise stays below it: the sensors' resolution is 0.1, their repeatability ±0.2 °C and
/// ±1 % (AM2302 datasheet).
const HYSTERESIS: (f64, f64) = (0.5, 2.0);
/// A board that starts needs about this long until a time source has set its clock.
const CLOCK_DELAY: Duration = Duration::from_mins(5);
const CLOCK_AHEAD: Duration = Duration::from_mins(1);
const GAP_QUIET: Duration = Duration::from_hours(1);
/// Other halls forward within seconds, unless their PostgreSQL fails over.
const GAP_WAIT: Duration = Duration::from_mins(1);
/// An update of all boards takes a while.
const VERSION_DELAY: Duration = Duration::from_hours(1);
/// A fail-over of PostgreSQL takes half a minute.
const UPSTREAM_DELAY: Duration = Duration::from_mins(5);
/// A card that failed once fails again, within days.
const DISK_QUIET: Duration = Duration::from_hours(24);
/// The target of conditions of the broker itself, and of all boards. No node has this id.
const BROKER: &str = "broker";

const FORM: &str = "write name=node/sensor:condition, for example hot=press/hall:temperature>30:hysteresis=2:delay=1m:output=roof/fan";
const CONDITIONS: &str = "a condition of a sensor is temperature>30, humidity<20 or silent>5m, a condition of a node is gap or clock, the condition of an output (stuck=press/heater:fault) is fault, a condition of the broker (card=broker:disk) is disk or upstream, and version is one of a node or of all (broker:version)";
/// The words of the conditions.
const WORDS: [&str; 9] =
    ["temperature", "humidity", "silent", "gap", "clock", "disk", "fault", "version", "upstream"];

/// Comma-separated alarms.
pub(super) fn alarms(text: &str) -> Result<Vec<AlarmConfig>, String> {
    list_of(text, alarm, |alarms| {
        let mut mistakes = Vec::new();
        if alarms.len() > ALARMS_MAX {
            let found = alarms.len();
            mistakes.push(format!(
                "the list has {found} alarms; the broker takes at most {ALARMS_MAX}"
            ));
        }
        let mut names = HashSet::new();
        let twice = alarms.iter().filter(|alarm| !names.insert(&alarm.name));
        mistakes.extend(twice.map(|alarm| format!("the name `{}` is given twice", alarm.name)));
        mistakes.extend(alarms.iter().filter_map(|alarm| switches_itself(alarm, alarms)));
        mistakes
    })
}

/// The node and the output that an alarm watches.
fn watched(alarm: &AlarmConfig) -> Option<(&Id, &Id)> {
    let AlarmRule::Fault { output, .. } = &alarm.rule else { return None };
    Some((&alarm.node, output))
}

/// Why an alarm may not be: as it is raised it would switch what it watches, and so clear itself, without end.
fn switches_itself(alarm: &AlarmConfig, alarms: &[AlarmConfig]) -> Option<String> {
    let own = watched(alarm)?;
    let mut reached: Vec<_> = alarm.output.iter().map(|(node, output)| (node, output)).collect();
    let mut next = 0;
    while let Some(at) = reached.get(next).copied() {
        if at == own {
            let through = if next == 0 { "" } else { ", through others" };
            return Some(format!(
                "alarm `{}` would switch what it watches, {}/{}{through}; let it switch another output",
                alarm.name, own.0, own.1
            ));
        }
        for (node, output) in
            alarms.iter().filter(|it| watched(it) == Some(at)).filter_map(|it| it.output.as_ref())
        {
            if !reached.contains(&(node, output)) {
                reached.push((node, output));
            }
        }
        next += 1;
    }
    None
}

fn id(text: &str) -> Result<Id, String> {
    plain(text.trim())
}

/// Two ids with a slash between them.
fn pair(text: &str) -> Result<(Id, Id), String> {
    let (node, name) =
        text.split_once('/').ok_or_else(|| format!("`{text}` is not of the form node/name"))?;
    Ok((node_id(node)?, id(name)?))
}

/// The id of a node, which is none of the broker's own names.
fn node_id(text: &str) -> Result<Id, String> {
    super::values::node(text.trim())
}

fn alarm(item: &str) -> Result<AlarmConfig, String> {
    let (name, rest) = item.split_once('=').ok_or(FORM)?;
    let mut parts = rest.split(':').map(str::trim);
    let (target, condition) = (parts.next().ok_or(FORM)?, parts.next().ok_or(FORM)?);
    let mut options = parts
        .map(|part| {
            part.split_once('=').ok_or_else(|| format!("`{part}` is not an option; {FORM}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut take = |key: &str| {
        let found = options.iter().position(|(known, _)| *known == key)?;
        Some(options.remove(found).1)
    };
    let time = |text: Option<&str>, default: Duration| {
        text.map_or(Ok(default), |text| duration(text, Duration::ZERO..=DELAY_MAX))
    };

    let output = take("output").map(pair).transpose()?;
    let cut = condition.find(['<', '>']).unwrap_or(condition.len());
    let (what, compared) = (condition[..cut].trim(), condition.get(cut + 1..).map(str::trim));
    let side = if condition[cut..].starts_with('<') { Side::Below } else { Side::Above };
    let (node, rule, known): (Id, AlarmRule, &[&str]) = match (what, compared) {
        ("temperature" | "humidity", Some(limit)) => {
            let (node, sensor) = pair(target)?;
            let (quantity, default) = match what {
                "temperature" => (Quantity::Temperature, HYSTERESIS.0),
                _ => (Quantity::Humidity, HYSTERESIS.1),
            };
            let hysteresis = take("hysteresis").map_or(Ok(default), number)?;
            if hysteresis < 0.0 {
                return Err(format!("hysteresis={hysteresis} is below 0"));
            }
            let (limit, delay) = (number(limit)?, time(take("delay"), Duration::ZERO)?);
            let rule = AlarmRule::Threshold { sensor, quantity, side, limit, hysteresis, delay };
            (node, rule, &["hysteresis", "delay", "output"])
        }
        ("silent", Some(limit)) if side == Side::Above => {
            let (node, sensor) = pair(target)?;
            (node, AlarmRule::Silent { sensor, limit: duration(limit, SILENT)? }, &["output"])
        }
        ("gap", None) => (
            node_id(target)?,
            AlarmRule::Gap {
                quiet: time(take("clear"), GAP_QUIET)?,
                wait: time(take("wait"), GAP_WAIT)?,
            },
            &["clear", "wait", "output"],
        ),
        ("clock", None) => {
            let ahead = time(take("ahead"), CLOCK_AHEAD)?;
            let rule = AlarmRule::Clock { ahead, delay: time(take("delay"), CLOCK_DELAY)? };
            (node_id(target)?, rule, &["ahead", "delay", "output"])
        }
        ("disk", None) if target == BROKER => {
            let quiet = time(take("clear"), DISK_QUIET)?;
            (id(target)?, AlarmRule::Disk { quiet }, &["clear", "output"])
        }
        ("upstream", None) if target == BROKER => {
            let delay = time(take("delay"), UPSTREAM_DELAY)?;
            (id(target)?, AlarmRule::Upstream { delay }, &["delay", "output"])
        }
        ("version", None) => {
            let node = if target == BROKER { id(target)? } else { node_id(target)? };
            let delay = time(take("delay"), VERSION_DELAY)?;
            (node, AlarmRule::Version { delay }, &["delay", "output"])
        }
        ("fault", None) => {
            let (node, output) = pair(target)?;
            let rule = AlarmRule::Fault { output, delay: time(take("delay"), Duration::ZERO)? };
            (node, rule, &["delay", "output"])
        }
        (word, _) if WORDS.contains(&word) => {
            return Err(format!("`{condition}` is not a condition; {CONDITIONS}"));
        }
        (other, _) => return Err(format!("{}; {CONDITIONS}", not_one_of(other, &WORDS))),
    };
    match options.first() {
        Some((key, _)) if known.contains(key) => Err(format!("`{key}` is given twice")),
        Some((key, _)) => Err(format!("option {}", not_one_of(key, known))),
        None => Ok(AlarmConfig { name: id(name)?, node, rule, output }),
    }
}

fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(|| {
        let plain = text.trim_start_matches('=').trim_end_matches(['%', 'C', '°', ' ']);
        let near = plain.trim().replace(',', ".").parse::<f64>().ok().filter(|it| it.is_finite());
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("`{text}` is not a number{near}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_alarm_is_read() {
        let all = alarms(
            "hot=press/hall:temperature>30:hysteresis=2:delay=1m:output=roof/fan, dry=press/hall:humidity<20,\
             quiet=store/door:silent>5m,lost=press:gap:clear=10m,time=press:clock,card=broker:disk,\
             stuck=press/heater:fault:delay=5s:output=roof/horn,odd=broker:version,old=press:version:delay=1m,\
             copy=broker:upstream:delay=30s",
        )
        .unwrap();
        let hall: Id = "hall".parse().unwrap();
        let delay = Duration::from_mins(1);
        assert_eq!(all[0].output, Some(("roof".parse().unwrap(), "fan".parse().unwrap())));
        let (quantity, side) = (Quantity::Temperature, Side::Above);
        let hot = AlarmRule::Threshold {
            sensor: hall,
            quantity,
            side,
            limit: 30.0,
            hysteresis: 2.0,
            delay,
        };
        assert_eq!(all[0].rule, hot);
        assert!(matches!(
            all[1].rule,
            AlarmRule::Threshold { side: Side::Below, limit: 20.0, hysteresis: 2.0, .. }
        ));
        assert!(
            matches!(all[2].rule, AlarmRule::Silent { limit, .. } if limit == Duration::from_mins(5))
        );
        let (quiet, wait) = (Duration::from_mins(10), GAP_WAIT);
        assert_eq!(all[3].rule, AlarmRule::Gap { quiet, wait });
        assert!(matches!(all[4].rule, AlarmRule::Clock { .. }));
        assert_eq!(all[5].rule, AlarmRule::Disk { quiet: DISK_QUIET });
        let (output, delay) = ("heater".parse().unwrap(), Duration::from_secs(5));
        assert_eq!(all[6].rule, AlarmRule::Fault { output, delay });
        assert!(all[6].output.is_some());
        assert_eq!(all[7].rule, AlarmRule::Version { delay: VERSION_DELAY });
        assert_eq!((all[7].only_node(), all[7].source().as_str()), (None, "humidor/+/health"));
        assert_eq!(all[8].source().as_str(), "humidor/press/health");
        assert_eq!(all[9].rule, AlarmRule::Upstream { delay: Duration::from_secs(30) });
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        for (text, expected) in [
            ("hot", "write name="),
            ("hot=press:temperature>30", "node/name"),
            ("Hot=press/hall:temperature>30", "`Hot` is not an id"),
            ("hot=press/hall:temperatur>30", "did you mean `temperature`"),
            ("hot=press/hall:temperature>warm", "`warm` is not a number"),
            ("hot=press/hall:temperature>NaN", "`NaN` is not a number"),
            ("hot=press/hall:temperature", "a condition of"),
            ("hot=press/hall:silent<5m", "a condition of"),
            ("card=press:disk", "card=broker:disk"),
            ("copy=press:upstream", "disk or upstream"),
            ("odd=alarm:version", "`alarm` is a reserved id"),
            ("stuck=press:fault", "node/name"),
            ("stuck=press/heater:fault>1", "stuck=press/heater:fault"),
            ("stuck=press/heater:fault:clear=1h", "none of delay, output"),
            ("hot=press/hall:temperature>30:hysteresis=-1", "below 0"),
            ("hot=press/hall:temperature>30:delai=1m", "did you mean `delay`"),
            ("hot=press/hall:temperature>30:delay=1m:delay=2m", "twice"),
            ("hot=press/hall:temperature>30:delay=soon", "not a time"),
            ("hot=press/hall:temperature>30:output=fan", "node/name"),
            ("a=b/c:silent>5m,a=b/c:silent>6m", "the name `a` is given twice"),
            ("a=broker/fan:fault", "`broker` is a reserved id"),
            ("a=broker:gap", "`broker` is a reserved id"),
            ("a=alarm/hall:silent>5m", "`alarm` is a reserved id"),
            ("a=press:gap:output=broker/fan", "`broker` is a reserved id"),
            ("a=press/fan:fault:output=press/fan", "would switch what it watches, press/fan"),
            (
                "a=x/1:fault:output=x/2,b=x/2:fault:output=x/3,c=x/3:fault:output=x/1,d=x/1:fault",
                "alarm `a` would switch what it watches, x/1, through others",
            ),
        ] {
            let error = alarms(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
