//! Characters around a value that nobody typed on purpose: what is taken away, warned of, or shown.

/// A value without what editors and other systems leave around it and nobody means: a byte order mark before it, the ends
/// of lines after it.
pub(super) fn without_traces(value: &str) -> &str {
    value.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n'])
}

/// What is between two quotes of one kind; `None` when the value does not begin and end with them.
pub(super) fn without_quotes(value: &str) -> Option<&str> {
    ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
}

/// Control characters as Rust writes them, so that a message shows them and moves no cursor; lines of a list stay lines.
pub(super) fn escaped(text: String) -> String {
    let is_safe = |c: char| !(c.is_control() && c != '\n' || c == '\u{feff}');
    if text.chars().all(is_safe) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_safe(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}
