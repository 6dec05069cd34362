//! Times: durations with a range, and ages in days.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest interval between readings that makes sense: Home Assistant calls the rest "unavailable".
const INTERVAL_MAX: Duration = Duration::from_hours(24);
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
        .ok_or_else(|| format!("`{text}` is not a time: write 10s, 500ms, 2m"))?;
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
    let hours = match text.strip_suffix('d') {
        Some(days) => days.trim().parse::<u64>().ok().and_then(|days| days.checked_mul(24)),
        None => text.strip_suffix('h').and_then(|hours| hours.trim().parse().ok()),
    };
    hours
        .and_then(|hours| hours.checked_mul(3600))
        .map(Duration::from_secs)
        .filter(|age| AGE.contains(age))
        .map(Some)
        .ok_or_else(|| format!("`{text}` is not an age from 1d to 36500d: write 90d, 36h, forever"))
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
    }

    #[test]
    fn ages_are_read_in_their_units() {
        assert_eq!(age("90d"), Ok(Some(Duration::from_hours(90 * 24))));
        assert_eq!(age("36h"), Ok(Some(Duration::from_hours(36))));
        assert_eq!(age("forever"), Ok(None));
        for wrong in
            ["90", "1h", "0d", "-3d", "1.5d", "99999999999999999999d", "700000000000000000d"]
        {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
