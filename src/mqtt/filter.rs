//! Topic filters, checked once when they are parsed.

use std::str::FromStr;

use super::topic::{TopicError, text};

/// A topic filter, of a subscription or of the topics that are logged (MQTT 3.1.1 §4.7).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    text: String,
    /// Bytes of `text` before the filter proper: `$share/<group>/`.
    share: usize,
}

/// Why a text is no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A rule for filters that topic names have too.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// [MQTT-4.7.1-2], [MQTT-4.7.1-3]
    #[error("in a topic filter `+` fills a whole level and `#` the last one")]
    Wildcard,
    /// MQTT 5.0 §4.8.2; 3.1.1 does not define it, but brokers support it.
    #[error("a shared subscription is `$share/<group>/<filter>`, the group without wildcards")]
    Share,
}

impl Filter {
    /// The whole filter as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is a shared subscription.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.share > 0
    }

    /// `$share/<group>/` or nothing, and the filter proper.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        self.text.split_at(self.share)
    }

    /// Its levels, without `$share/<group>/`; at least 1.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.parts().1.bytes().filter(|byte| *byte == b'/').count() + 1
    }

    /// Whether a topic name matches. A wildcard does not match a first level that begins with `$`
    /// ([MQTT-4.7.2-1]).
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        !(topic.starts_with('$') && self.parts().1.starts_with(['+', '#'])) && self.covers(topic)
    }

    /// As [`Filter::matches`], but a wildcard matches any first level.
    #[must_use]
    pub fn covers(&self, topic: &str) -> bool {
        let filter = self.parts().1;
        let mut levels = topic.split('/');
        for wanted in filter.split('/') {
            match (wanted, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(filter: &str) -> Result<Self, FilterError> {
        text(filter.as_bytes())?;
        let share = match filter.strip_prefix("$share/") {
            None if filter == "$share" => return Err(FilterError::Share),
            None => 0,
            Some(rest) => {
                let (group, rest) = rest.split_once('/').ok_or(FilterError::Share)?;
                if group.is_empty() || group.contains(['+', '#']) || rest.is_empty() {
                    return Err(FilterError::Share);
                }
                filter.len() - rest.len()
            }
        };
        let mut levels = filter[share..].split('/').peekable();
        while let Some(level) = levels.next() {
            let fits = match level {
                "+" => true,
                "#" => levels.peek().is_none(),
                other => !other.contains(['+', '#']),
            };
            if !fits {
                return Err(FilterError::Wildcard);
            }
        }
        Ok(Self { text: filter.to_owned(), share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_specification_says() {
        // MQTT 3.1.1 §4.7.1.2, §4.7.1.3 and §4.7.2.
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/#", "sport", true),
            ("#", "a/b/c", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/uptime", false),
            ("+/uptime", "$SYS/uptime", false),
            ("$SYS/#", "$SYS/uptime", true),
            ("plant/#", "plant/press/temperature", true),
            ("$share/g/plant/#", "plant/x", true),
            ("온도/+", "온도/1", true),
        ] {
            let parsed: Filter = filter.parse().expect(filter);
            assert_eq!(parsed.matches(topic), expected, "{filter} on {topic}");
        }
        for (filter, levels) in [("a", 1), ("a/+/#", 3), ("$share/g/a", 1), ("$share/g//a/", 3)] {
            assert_eq!(filter.parse::<Filter>().unwrap().levels(), levels, "{filter}");
        }
    }

    #[test]
    fn malformed_filters_are_refused_by_cause() {
        for (filter, cause) in [
            ("", FilterError::Topic(TopicError::Empty)),
            ("sport/tennis#", FilterError::Wildcard),
            ("sport/#/ranking", FilterError::Wildcard),
            ("sport+", FilterError::Wildcard),
            ("$share/g", FilterError::Share),
            ("$share//x", FilterError::Share),
            ("$share/+/x", FilterError::Share),
            ("$share/g/", FilterError::Share),
            ("$share", FilterError::Share),
            ("a\0b", FilterError::Topic(TopicError::Control)),
        ] {
            assert_eq!(filter.parse::<Filter>(), Err(cause), "{filter}");
        }
    }
}
