//! Times: durations with a range, and ages in days.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest interval between readings that makes sense: Home Assistant calls the rest "unavailable".
const INTERVAL_MAX: Duration = Duration::from_hours(24);
/// Times up to here are given in milliseconds.
const MILLIS_UP_TO: Duration = Duration::from_secs(10);
/// Shortest and longest age up to which readings are kept.
const AGE: RangeInclusive<Duration> = Duration::from_hours(24)..=Duration::from_hours(24 * 36_500);

/// A duration such as `10s`, `500ms` or `2m` within `range`.
///
/// # Errors
/// When it is no duration, or outside.
pub fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let time = text
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|time| Duration::try_from(time).ok())
        .ok_or_else(|| {
            let is_bare = text.trim().parse::<u64>().is_ok();
            // Where ten seconds are long, a number alone is one of milliseconds.
            let near = if is_bare && *range.end() <= MILLIS_UP_TO {
                Some(format!("{}ms", text.trim()))
            } else {
                near(text, &TIMES)
            };
            // Without a unit, what is refused is no suggestion.
            let near = near.filter(|meant| !is_bare || duration(meant, range.clone()).is_ok());
            let near = near.as_deref().map_or_else(String::new, offer);
            format!("`{text}` is not a time: write 10s, 500ms, 2m{near}")
        })?;
    if range.contains(&time) {
        Ok(time)
    } else {
        Err(format!("`{text}` is not between {} and {}", show(range.start()), show(range.end())))
    }
}

/// As a user writes it: `24h`, not `86400s`.
fn show(time: &Duration) -> String {
    jiff::SignedDuration::try_from(*time)
        .map_or_else(|_| format!("{time:?}"), |time| format!("{time:#}"))
}

/// A time between two readings.
///
/// # Errors
/// When it is no duration from 1 s to 24 h.
pub fn interval(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=INTERVAL_MAX)
}

/// An age from one day on; `None` is `forever`.
///
/// # Errors
/// When it is no such age.
pub fn age(text: &str) -> Result<Option<Duration>, String> {
    if text == "forever" {
        return Ok(None);
    }
    finite_age(text).map(Some).ok_or_else(|| {
        let near = match text.trim().to_lowercase().as_str() {
            "never" | "infinite" | "infinity" | "always" | "ever" | "for ever" | "∞" => {
                Some("forever".to_owned())
            }
            // What is refused is no suggestion.
            _ => near(text, &AGES).filter(|meant| finite_age(meant).is_some()),
        };
        let near = near.as_deref().map_or_else(String::new, offer);
        format!("`{text}` is not an age from 1d to 36500d: write 90d, 36h, forever{near}")
    })
}

fn finite_age(text: &str) -> Option<Duration> {
    let hours = match text.strip_suffix('d') {
        Some(days) => days.trim().parse::<u64>().ok()?.checked_mul(24)?,
        None => text.strip_suffix('h')?.trim().parse().ok()?,
    };
    hours.checked_mul(3600).map(Duration::from_secs).filter(|age| AGE.contains(age))
}

/// Beginnings of units as people write them, each with the unit here and how many of it; the first is that of a number
/// alone.
type Units = [(&'static str, &'static str, u64)];
const TIMES: [(&str, &str, u64); 8] = [
    ("s", "s", 1),
    ("ms", "ms", 1),
    ("mil", "ms", 1),
    ("m", "m", 1),
    ("h", "h", 1),
    ("d", "h", 24),
    ("분", "m", 1),
    ("초", "s", 1),
];
const AGES: [(&str, &str, u64); 6] =
    [("d", "d", 1), ("h", "h", 1), ("t", "d", 1), ("w", "d", 7), ("m", "d", 30), ("y", "d", 365)];

fn offer(meant: &str) -> String {
    format!("; did you mean `{meant}`?")
}

/// The value that a whole number with another spelling of its unit probably means.
fn near(text: &str, units: &Units) -> Option<String> {
    let plain = text.trim().to_lowercase();
    let digits = plain.len() - plain.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = plain.split_at(digits);
    let unit = unit.trim_start();
    let default = units.first().filter(|_| unit.is_empty());
    // The longest beginning: `ms` is not `m`.
    let fits = units.iter().filter(|(start, ..)| unit.starts_with(start));
    let meant = default.or_else(|| fits.max_by_key(|(start, ..)| start.len()));
    let (_, unit, of) = meant?;
    number.parse::<u64>().ok()?.checked_mul(*of).map(|number| format!("{number}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_outside_its_range_is_refused_with_the_range() {
        assert_eq!(interval("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(interval("500ms").unwrap_err(), "`500ms` is not between 1s and 24h");
        assert!(interval("1 fortnight").unwrap_err().contains("is not a time"));
        assert!(interval("-5s").is_err());
        for (written, meant) in
            [("10", "10s"), ("5 Min.", "5m"), ("500 msek", "500ms"), ("1 day", "24h")]
        {
            let error = interval(written).err().filter(|error| error.contains("did you mean"));
            let meant = format!("did you mean `{meant}`?");
            assert!(error.is_none_or(|error| error.ends_with(&meant)), "{written}");
        }
        let debounce = |text| duration(text, Duration::ZERO..=Duration::from_secs(10)).unwrap_err();
        assert!(debounce("50").ends_with("did you mean `50ms`?"));
        assert!(!debounce("500000").contains("did you mean"));
    }

    #[test]
    fn ages_are_read_in_their_units() {
        assert_eq!(age("90d"), Ok(Some(Duration::from_hours(90 * 24))));
        assert_eq!(age("36h"), Ok(Some(Duration::from_hours(36))));
        assert_eq!(age("forever"), Ok(None));
        for wrong in
            ["90", "1h", "0d", "-3d", "1.5d", "99999999999999999999d", "700000000000000000d"]
        {
            let error = age(wrong).unwrap_err();
            assert!(wrong == "90" || !error.contains("did you mean"), "{wrong}: {error}");
        }
        for (written, meant) in [
            ("90", "90d"),
            ("90 days", "90d"),
            ("2w", "14d"),
            ("3 months", "90d"),
            ("1y", "365d"),
            ("never", "forever"),
        ] {
            assert!(
                age(written).unwrap_err().ends_with(&format!("did you mean `{meant}`?")),
                "{written}"
            );
        }
    }
}
