//! Numbers with a range.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A whole number within `range`.
///
/// # Errors
/// When it is no such number, or outside.
pub fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    text.parse::<T>().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let near = plain(text).parse::<T>().ok().filter(|number| range.contains(number));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("`{text}` is not a number from {} to {}{near}", range.start(), range.end())
    })
}

/// A number without what separates its thousands, and with all its digits.
fn plain(text: &str) -> String {
    let digits = text.trim().replace([',', '_', ' ', '\''], "");
    match digits.strip_suffix(['k', 'K']) {
        Some(thousands) => format!("{thousands}000"),
        None => digits,
    }
}

/// As [`number`], or 0 for no limit.
///
/// # Errors
/// When it is no such number, and not 0.
pub fn number_or_none(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Ok(0),
        _ => number(text, range).map_err(|error| format!("{error}, or 0 for no limit")),
    }
}

/// A share from 0 to 1.
///
/// # Errors
/// When it is no such number.
pub fn share(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| {
        let plain = text.trim().replace(',', ".");
        let percent = plain.strip_suffix('%').and_then(|it| it.trim().parse::<f64>().ok());
        let meant = percent.map(|it| it / 100.0).or_else(|| plain.parse().ok());
        let near = meant.filter(|share| (0.0..=1.0).contains(share));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("`{text}` is not a share from 0 to 1{near}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_to_its_range() {
        assert_eq!(number("7", 1_u64..=9), Ok(7));
        assert_eq!(number("0", 1_u64..=9).unwrap_err(), "`0` is not a number from 1 to 9");
        assert!(number("99999999999999999999999", 1_u64..=u64::MAX).is_err());
        assert_eq!(number_or_none("0", 1024..=u32::MAX), Ok(0));
        assert!(
            number_or_none("1000", 1024..=u32::MAX).unwrap_err().ends_with("or 0 for no limit")
        );
        assert_eq!(share("0.02"), Ok(0.02));
        assert!(share("2 %").unwrap_err().ends_with("did you mean `0.02`?"));
        assert!(share("0,1").unwrap_err().ends_with("did you mean `0.1`?"));
        assert!(share("1.5").is_err() && share("NaN").is_err() && share("-0.1").is_err());
    }
}
