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
