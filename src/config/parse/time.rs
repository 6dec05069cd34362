//! Points in time, as options of the commands on the log.

/// Unix ms UTC of an RFC 3339 time, a date, a date and time (both UTC), or of Unix ms.
///
/// # Errors
/// When it is no such time.
pub fn time(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    let utc = |civil: jiff::civil::DateTime| {
        civil.to_zoned(jiff::tz::TimeZone::UTC).map(|at| at.timestamp())
    };
    text.parse::<jiff::Timestamp>()
        .or_else(|_| text.parse::<jiff::civil::DateTime>().and_then(utc))
        .map(jiff::Timestamp::as_millisecond)
        .map_err(|_| {
            format!("`{text}` is not a time: write 2026-11-22, 2026-11-22T08:00Z or Unix ms")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        for (text, ms) in [
            ("1760000000123", 1_760_000_000_123),
            ("2026-11-22", 1_795_305_600_000),
            ("2026-11-22T08:00Z", 1_795_334_400_000),
            ("2026-11-22T08:00:00+09:00", 1_795_302_000_000),
            ("2026-11-22 08:00", 1_795_334_400_000),
        ] {
            assert_eq!(time(text), Ok(ms), "{text}");
        }
        assert!(time("yesterday").is_err());
    }
}
