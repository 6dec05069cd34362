//! Sizes in bytes, with decimal and binary units.

/// A size such as `1GiB`, `500MB` or `4096`, in bytes.
///
/// # Errors
/// When it is no such size, or does not fit.
pub fn size(text: &str) -> Result<u64, String> {
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
        .ok_or_else(|| {
            let near = near(text).map(|near| format!("; did you mean `{near}`?"));
            format!("`{text}` is not a size: write 1GiB, 512MiB, 500MB{}", near.unwrap_or_default())
        })
}

/// The size that another spelling of the unit probably means, or a fraction of one.
fn near(text: &str) -> Option<String> {
    const PREFIXES: [(char, &str, &str, u64); 4] = [
        ('k', "KiB", "kB", 0),
        ('m', "MiB", "MB", 1 << 10),
        ('g', "GiB", "GB", 1 << 10),
        ('t', "TiB", "TB", 1 << 10),
    ];
    let plain = text.trim().to_lowercase().replace(',', ".");
    let digits =
        plain.len() - plain.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = plain.split_at(digits);
    let unit = unit.trim();
    let at = PREFIXES.iter().position(|(prefix, ..)| unit.starts_with(*prefix))?;
    let (_, binary, decimal, of_below) = PREFIXES[at];
    if number.parse::<u64>().is_ok() {
        let unit = if unit.ends_with('b') && !unit.contains('i') { decimal } else { binary };
        return Some(format!("{number}{unit}"));
    }
    // `1.5GiB` is 1536 of the unit below.
    let below = PREFIXES.get(at.checked_sub(1)?)?.1;
    let (whole, fraction) = number.split_once('.')?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts =
        whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
    Some(format!("{}{below}", parts.checked_mul(of_below)? / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_their_units() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("500 MB"), Ok(500_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "GiB", "1G", "-1MiB", "1.5GiB", "99999999999TiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for (written, meant) in [
            ("1G", "1GiB"),
            ("512m", "512MiB"),
            ("500mb", "500MB"),
            ("1gib", "1GiB"),
            ("1.5GiB", "1536MiB"),
            ("2 gigabytes", "2GiB"),
        ] {
            assert!(
                size(written).unwrap_err().ends_with(&format!("did you mean `{meant}`?")),
                "{written}"
            );
        }
    }
}
