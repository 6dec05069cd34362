//! Lists: comma-separated items, each with its own mistake.

/// The items of a comma-separated list, empty ones left out.
///
/// # Errors
/// The first item with a mistake, and the mistake.
pub fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| parse(item).map_err(|error| format!("`{item}`: {error}")))
        .collect()
}
