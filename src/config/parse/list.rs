//! Lists: comma-separated items, each with its own mistakes.

use crate::visible_text::visible;

/// Most mistakes of one list that are told; a list may have thousands.
const MISTAKES_MAX: usize = 20;

/// The items of a comma-separated list, empty ones left out.
///
/// # Errors
/// Every item with a mistake, and the mistake, a line each.
pub fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    list_of(text, parse, |_| Vec::new())
}

/// As [`list`]; `judge` finds the mistakes that right items make together.
///
/// # Errors
/// All mistakes, a line each.
pub fn list_of<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
    judge: impl Fn(&[T]) -> Vec<String>,
) -> Result<Vec<T>, String> {
    let (mut right, mut mistakes) = (Vec::new(), Vec::new());
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match parse(item) {
            Ok(value) => right.push(value),
            Err(error) => {
                let commas =
                    if is_several(item) { "; a list needs commas between its items" } else { "" };
                let item = visible(item, None);
                mistakes
                    .extend(error.lines().map(|mistake| format!("`{item}`: {mistake}{commas}")));
            }
        }
    }
    mistakes.extend(judge(&right));
    if mistakes.is_empty() {
        return Ok(right);
    }
    if let Some(more) = mistakes.len().checked_sub(MISTAKES_MAX).filter(|more| *more > 0) {
        mistakes.truncate(MISTAKES_MAX);
        mistakes.push(format!("and {more} more mistakes in this list"));
    }
    Err(mistakes.join("\n"))
}

/// Whether another sign stands where a list has a comma.
fn is_several(item: &str) -> bool {
    let next = item.split_once(char::is_whitespace);
    item.contains(';') || next.is_some_and(|(one, next)| one.contains('=') && next.contains('='))
}

/// All values, or all mistakes, a line each.
///
/// # Errors
/// When one of them is a mistake.
pub fn both<A, B>(a: Result<A, String>, b: Result<B, String>) -> Result<(A, B), String> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(format!("{a}\n{b}")),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::number;

    #[test]
    fn every_mistake_of_a_list_is_told_with_its_item() {
        let parse = |item: &str| number(item, 1_u32..=9);
        let judge = |items: &[u32]| {
            let twice = items.iter().enumerate().filter(|(n, item)| items[..*n].contains(item));
            twice.map(|(_, item)| format!("{item} is given twice")).collect()
        };
        assert_eq!(list_of("1, 2,,3", parse, judge), Ok(vec![1, 2, 3]));
        let error = list_of("1,x,2,1,10,2", parse, judge).unwrap_err();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(
            lines,
            [
                "`x`: `x` is not a number from 1 to 9",
                "`10`: `10` is not a number from 1 to 9",
                "1 is given twice",
                "2 is given twice",
            ]
        );
        let error = list(&"x,".repeat(1_000), parse).unwrap_err();
        assert_eq!(error.lines().count(), MISTAKES_MAX + 1);
        assert!(error.ends_with("and 980 more mistakes in this list"));
    }
}
