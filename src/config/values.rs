//! Parsers of single values of the roles: ids, topic filters, and words out of a list.

use super::parse::{choice, list, not_one_of, plain, size};
use crate::board::Board;
use crate::broker::{Anonymous, check_name};
use crate::clock::ClockTrust;
use crate::mqtt::Filter;
use crate::node::Backend;
use crate::reading::Id;
use crate::upstream::Acknowledge;
use crate::web::Guests;
use crate::wire::{Discovery, is_reserved_id};

/// Least size of the log in bytes: below it there is hardly room for a day.
const MAX_DB_MIN_BYTES: u64 = 16 * 1024 * 1024;
/// Least size of the queue for the upstream database in bytes: a minute of a thousand readings a second.
const BACKLOG_MIN_BYTES: u64 = 1024 * 1024;
/// Largest size that can be set, in bytes: half of SQLite's limit.
const MAX_DB_MAX_BYTES: u64 = 1 << 47;

pub fn guests(text: &str) -> Result<Guests, String> {
    choice(
        text,
        &[
            ("none", Guests::None),
            ("local", Guests::Local),
            ("read", Guests::Read),
            ("switch", Guests::Switch),
        ],
    )
}

pub fn anonymous(text: &str) -> Result<Anonymous, String> {
    choice(text, &[("auto", Anonymous::Auto), ("yes", Anonymous::Yes), ("no", Anonymous::No)])
}

pub fn clock(text: &str) -> Result<ClockTrust, String> {
    choice(text, &[("kernel", ClockTrust::Kernel), ("always", ClockTrust::Always)])
}

/// `auto` is `None`.
pub fn when(text: &str) -> Result<Option<bool>, String> {
    choice(text, &[("auto", None), ("yes", Some(true)), ("no", Some(false))])
}

pub fn acknowledge(text: &str) -> Result<Acknowledge, String> {
    choice(text, &[("stored", Acknowledge::Stored), ("upstream", Acknowledge::Upstream)])
}

/// Largest size of the queue for the upstream database, in bytes.
pub fn backlog(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if (BACKLOG_MIN_BYTES..=MAX_DB_MAX_BYTES).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("`{text}` is not between 1MiB and 128TiB"))
    }
}

/// A simulation without faults; the share of them is a setting of its own.
pub fn backend(text: &str) -> Result<Backend, String> {
    choice(
        text,
        &[
            ("auto", Backend::Auto),
            ("cdev", Backend::Cdev),
            ("rppal", Backend::Rppal),
            ("iio", Backend::Iio),
            ("sim", Backend::Sim { faults: 0.0 }),
        ],
    )
}

pub fn board(text: &str) -> Result<&'static Board, String> {
    Board::by_id(text).ok_or_else(|| match Board::near(text) {
        Some(near) => format!(
            "`{text}` is none of {}; did you mean `{}`?",
            Board::ids().collect::<Vec<_>>().join(", "),
            near.id
        ),
        None if ["rpi", "pi", "raspi", "raspberrypi"]
            .contains(&text.to_ascii_lowercase().replace(['-', '_', ' '], "").as_str()) =>
        {
            let models = Board::ids().filter(|id| id.starts_with("raspberry")).collect::<Vec<_>>();
            format!("`{text}` does not say which one: write {}", models.join(" or "))
        }
        None => not_one_of(text, &Board::ids().collect::<Vec<_>>()),
    })
}

/// A node's id.
pub fn node(text: &str) -> Result<Id, String> {
    let id: Id = plain(text)?;
    if is_reserved_id(id.as_str()) {
        Err(format!("`{id}` is a reserved id; the broker uses it in its own topics"))
    } else {
        Ok(id)
    }
}

pub fn user(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// Home Assistant's discovery prefix; `None` is `off`.
pub fn discovery(text: &str) -> Result<Option<Discovery>, String> {
    match text {
        "off" => Ok(None),
        "no" | "none" | "false" => Err(format!("`{text}` would be a prefix; did you mean `off`?")),
        prefix => plain(prefix).map(Some),
    }
}

/// Comma-separated topic filters, none of them shared.
pub fn logged_filters(text: &str) -> Result<Vec<Filter>, String> {
    list(text, |item| {
        // MQTT takes it for a level that is called so, which nobody means.
        if item.split('/').any(|level| level == "*") {
            let meant = item.strip_suffix('*').map(|start| format!("{start}#").replace('*', "+"));
            let meant = meant.unwrap_or_else(|| item.replace('*', "+"));
            return Err(format!("`*` is no wildcard; did you mean `{meant}`?"));
        }
        let filter: Filter = plain(item)?;
        if filter.is_shared() {
            Err("a shared subscription cannot be logged".to_owned())
        } else {
            Ok(filter)
        }
    })
}

/// Largest size of the log's file in bytes.
pub fn max_db(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if (MAX_DB_MIN_BYTES..=MAX_DB_MAX_BYTES).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("`{text}` is not between 16MiB and 128TiB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_too_small_to_live_with_is_refused() {
        assert!(max_db("8MiB").is_err());
        assert_eq!(max_db("16MiB"), Ok(16 << 20));
    }

    #[test]
    fn a_board_by_another_name_gets_its_id() {
        assert!(board("zero3").unwrap_err().ends_with("did you mean `orange-pi-zero-3`?"));
        assert!(board("rpi").unwrap_err().contains("write raspberry-pi-4 or raspberry-pi-3"));
    }
}
