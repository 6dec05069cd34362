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
        .ok_or_else(|| format!("`{text}` is not a size: write 1GiB, 512MiB, 500MB"))
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
    }
}
