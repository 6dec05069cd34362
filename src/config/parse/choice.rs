//! Words out of a known list: a mistake gets the nearest known word.

/// The known name nearest to `name`; `None` when none is near enough to be a slip of the keyboard.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Case and the characters between words are no slips of their own.
    let plain = |word: &str| word.trim().to_ascii_lowercase().replace(['-', '_', ' ', '.'], "");
    let name = plain(name);
    known
        .map(|candidate| (strsim::damerau_levenshtein(&name, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3))
        // Two short words may have no letter in common.
        .filter(|(distance, candidate)| {
            *distance < name.chars().count().max(plain(candidate).len())
        })
        // Of equally near words the first one.
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The value of the word `text` in `known`.
///
/// # Errors
/// When it is another word.
pub fn choice<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    known
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| not_one_of(text, &words))
}

/// Words of other programs, and the words here that may be meant.
const SYNONYMS: [(&str, &[&str]); 33] = [
    ("low", &["off"]),
    ("high", &["on"]),
    ("true", &["yes", "on"]),
    ("1", &["yes", "on"]),
    ("on", &["yes", "high"]),
    ("yes", &["on"]),
    ("always", &["yes"]),
    ("false", &["no", "off", "none"]),
    ("0", &["no", "off", "none"]),
    ("off", &["no", "none", "low"]),
    ("no", &["off", "none"]),
    ("never", &["no", "none"]),
    ("all", &["read"]),
    ("everyone", &["read"]),
    ("readonly", &["read"]),
    ("temp", &["temperature"]),
    ("hum", &["humidity"]),
    ("gpiod", &["cdev"]),
    ("libgpiod", &["cdev"]),
    ("simulated", &["sim"]),
    ("mock", &["sim"]),
    ("text", &["human"]),
    ("y", &["yes", "on"]),
    ("ja", &["yes", "on"]),
    ("예", &["yes", "on"]),
    ("네", &["yes", "on"]),
    ("n", &["no", "off", "none"]),
    ("nein", &["no", "off", "none"]),
    ("아니요", &["no", "off", "none"]),
    ("아니오", &["no", "off", "none"]),
    ("warning", &["warn"]),
    ("verbose", &["debug"]),
    ("fatal", &["error"]),
];

/// The message for a word that is not in `known`.
pub fn not_one_of(found: &str, known: &[&str]) -> String {
    let plain = found.trim().to_ascii_lowercase();
    let meant = SYNONYMS.iter().find(|(word, _)| *word == plain);
    let meant =
        meant.and_then(|(_, meant)| meant.iter().copied().find(|word| known.contains(word)));
    let near = meant
        .or_else(|| nearest(found, known.iter().copied()))
        .map(|near| format!("; did you mean `{near}`?"));
    format!("`{found}` is none of {}{}", known.join(", "), near.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_its_value_and_another_word_gets_the_nearest() {
        let known = [("auto", 1), ("cdev", 2)];
        assert_eq!(choice("cdev", &known), Ok(2));
        assert_eq!(
            choice("cdv", &known).unwrap_err(),
            "`cdv` is none of auto, cdev; did you mean `cdev`?"
        );
        assert_eq!(nearest("HUMIDOR-gpio", ["HUMIDOR_GPIO"].into_iter()), Some("HUMIDOR_GPIO"));
        let words = ["auto", "yes", "no"];
        assert!(not_one_of("ja", &words).ends_with("did you mean `yes`?"));
        assert!(not_one_of("si", &words).ends_with("none of auto, yes, no"));
        assert_eq!(choice("something", &known).unwrap_err(), "`something` is none of auto, cdev");
    }
}
