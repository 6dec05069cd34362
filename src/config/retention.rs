//! Ages and sizes: what the log may keep.

use std::time::Duration;

use super::layers::Layers;
use crate::store::Retention;

/// Least and greatest age up to which rows are kept.
const KEEP_RAW: std::ops::RangeInclusive<Duration> =
    Duration::from_hours(24)..=Duration::from_hours(24 * 36_500);
/// Least size of the log in bytes: below it there is hardly room for a day.
const MAX_DB_MIN_BYTES: u64 = 16 * 1024 * 1024;
/// SQLite's own limit is larger, every file system's smaller.
const MAX_DB_MAX_BYTES: u64 = 1 << 47;

/// What the log may keep.
pub fn retention(layers: &mut Layers) -> Option<Retention> {
    let keep_raw = layers.need("keep_raw", age);
    let max_bytes = layers.need("max_db", |text| {
        let bytes = size(text)?;
        if (MAX_DB_MIN_BYTES..=MAX_DB_MAX_BYTES).contains(&bytes) {
            Ok(bytes)
        } else {
            Err(format!("`{text}` is not between 16MiB and 128TiB"))
        }
    });
    Some(Retention { keep_raw: keep_raw?, max_bytes: max_bytes? })
}

fn age(text: &str) -> Result<Option<Duration>, String> {
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
        .filter(|age| KEEP_RAW.contains(age))
        .map(Some)
        .ok_or_else(|| format!("`{text}` is not an age from 1d to 36500d: write 90d, 36h, forever"))
}

fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("", 1),
    ];
    UNITS
        .into_iter()
        .find_map(|(unit, bytes)| {
            text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(bytes)
        })
        .ok_or_else(|| format!("`{text}` is not a size: write 1GiB, 512MiB, 500MB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_read_in_their_units() {
        assert_eq!(age("90d"), Ok(Some(Duration::from_hours(90 * 24))));
        assert_eq!(age("36h"), Ok(Some(Duration::from_hours(36))));
        assert_eq!(age("forever"), Ok(None));
        for wrong in
            ["90", "1h", "0d", "-3d", "1.5d", "99999999999999999999d", "700000000000000000d"]
        {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("500 MB"), Ok(500_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "GiB", "1G", "-1MiB", "1.5GiB", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_too_small_to_live_with_is_refused() {
        let layers = |value: &str| Layers::new(&[("max_db", value.to_owned())], []);
        assert!(retention(&mut layers("8MiB")).is_none());
        assert_eq!(retention(&mut layers("16MiB")).unwrap().max_bytes, 16 << 20);
    }
}
