//! Words out of a known list: a mistake gets the nearest known word.

/// The known name nearest to `name`; `None` when none is near enough to be a slip of the keyboard.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3))
        .min()
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

/// The message for a word that is not in `known`.
pub fn not_one_of(found: &str, known: &[&str]) -> String {
    let near =
        nearest(found, known.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
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
        assert_eq!(choice("something", &known).unwrap_err(), "`something` is none of auto, cdev");
    }
}
