//! Text that reads as what it is: characters that nobody sees, or that change how the others are shown, are written out.
//! The page has the same rule (`web/assets/text.js`).

use std::borrow::Cow;

/// Whether a character is not seen, or changes how a line is shown: control characters, the marks and overrides of Unicode's
/// bidirectional algorithm (UAX #9), and what Unicode calls default ignorable (UAX #44). Those that join characters or
/// choose their form are a part of some scripts and of emoji: `before` is what stands before `c`.
fn is_hidden(c: char, before: Option<char>) -> bool {
    match c {
        '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => before.is_none_or(|c| c.is_ascii()),
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'
        | '\u{200e}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        c => c.is_control(),
    }
}

/// The text with such characters as Rust writes them (`\u{202e}`); `kept` stays as it is.
#[must_use]
pub fn visible(text: &str, kept: Option<char>) -> Cow<'_, str> {
    let hidden = |c, before| Some(c) != kept && is_hidden(c, before);
    let mut before = None;
    if !text.chars().any(|c| hidden(c, before.replace(c))) {
        return text.into();
    }
    let (mut out, mut before) = (String::with_capacity(text.len() + 8), None);
    for c in text.chars() {
        if hidden(c, before.replace(c)) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_written_out_and_what_belongs_to_a_script_stays() {
        for (text, shown) in [
            ("plant/press", "plant/press"),
            ("온도/습도 é ع", "온도/습도 é ع"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\\u{202e}b\\u{2066}c\\u{200f}"),
            ("pla\u{200b}nt\u{ad}\u{3164}\u{feff}", "pla\\u{200b}nt\\u{ad}\\u{3164}\\u{feff}"),
            ("\u{1b}[2J\u{9b}2J\n\u{0}", "\\u{1b}[2J\\u{9b}2J\\n\\u{0}"),
            ("a\u{2028}b\u{e0041}", "a\\u{2028}b\\u{e0041}"),
            // A joiner does nothing after an ASCII character.
            ("fan\u{200d}/s\u{fe0f}", "fan\\u{200d}/s\\u{fe0f}"),
            ("👨\u{200d}👩 می\u{200c}خواهم ❤\u{fe0f}", "👨\u{200d}👩 می\u{200c}خواهم ❤\u{fe0f}"),
        ] {
            assert_eq!(visible(text, None), shown);
        }
        assert_eq!(visible("a\nb\r", Some('\n')), "a\nb\\r");
    }
}
