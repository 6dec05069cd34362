//! Topic names and topic filters as checked types, and the topics that humidor itself uses.

use std::str::FromStr;

use crate::reading::Id;

/// First level of every topic of ours.
const ROOT: &str = "humidor";
/// Payload of a status topic while its owner is connected.
pub const ONLINE: &str = "online";
/// Payload of a status topic after its owner left, said by itself or by its will.
pub const OFFLINE: &str = "offline";
/// Retained status of the broker itself. `broker` is therefore no node's id.
pub const BROKER_STATUS: &str = "humidor/broker/status";
/// The filter of the nodes' status topics, and the broker's.
pub const STATUSES: &str = "humidor/+/status";
/// What a node's client id begins with; its node id follows.
pub const CLIENT_ID_PREFIX: &str = "humidor-";
/// Longest topic name or filter in bytes. The protocol allows 65,535; no sensor needs more than
/// this, and every stored topic costs memory on a small board.
pub const TOPIC_MAX_BYTES: usize = 1024;

/// Why a text is no topic name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("a topic has at least one character")]
    Empty,
    /// More than [`TOPIC_MAX_BYTES`].
    #[error("a topic has at most {TOPIC_MAX_BYTES} bytes here")]
    Long,
    /// [MQTT-1.5.3-1]
    #[error("a topic is UTF-8 text")]
    NotText,
    /// [MQTT-3.3.2-2]
    #[error("a topic to publish to has no wildcard (`+`, `#`)")]
    Wildcard,
    /// [MQTT-4.7.3-2], and the controls that §1.5.3 allows a server to refuse.
    #[error("a topic has no control characters")]
    Control,
}

/// Checks the bytes of a PUBLISH packet's topic name: UTF-8, no wildcard, no control character
/// (MQTT 3.1.1 §4.7).
///
/// # Errors
/// When the bytes are not a topic name, with the clause that says so.
pub fn topic_name(bytes: &[u8]) -> Result<&str, TopicError> {
    let text = text(bytes)?;
    if text.contains(['+', '#']) {
        return Err(TopicError::Wildcard);
    }
    Ok(text)
}

fn text(bytes: &[u8]) -> Result<&str, TopicError> {
    if bytes.is_empty() {
        return Err(TopicError::Empty);
    }
    if bytes.len() > TOPIC_MAX_BYTES {
        return Err(TopicError::Long);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| TopicError::NotText)?;
    if text.chars().any(char::is_control) {
        return Err(TopicError::Control);
    }
    Ok(text)
}

/// A topic filter: what one may subscribe to, or have logged (MQTT 3.1.1 §4.7).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    text: String,
    /// Bytes of `text` before the filter proper: `$share/<group>/`.
    share: usize,
}

/// Why a text is no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// What a filter has in common with a topic name.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// [MQTT-4.7.1-2], [MQTT-4.7.1-3]
    #[error("in a topic filter `+` fills a whole level and `#` the last one")]
    Wildcard,
    /// MQTT 5.0 §4.8.2; in 3.1.1 the form is a habit of brokers.
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

/// The topics of one node.
#[derive(Debug, Clone)]
pub struct NodeTopics {
    node: Id,
}

impl NodeTopics {
    /// The topics of `node`.
    #[must_use]
    pub const fn new(node: Id) -> Self {
        Self { node }
    }

    /// Retained `online` / `offline`; also the will.
    #[must_use]
    pub fn status(&self) -> String {
        format!("{ROOT}/{}/status", self.node)
    }

    /// Retained JSON: what went wrong by cause, and what waits.
    #[must_use]
    pub fn health(&self) -> String {
        format!("{ROOT}/{}/health", self.node)
    }

    /// Telemetry of one sensor.
    #[must_use]
    pub fn sensor(&self, sensor: &Id) -> String {
        format!("{ROOT}/{}/sensor/{sensor}", self.node)
    }
}

impl NodeTopics {
    /// Retained `ON` / `OFF` of one input.
    #[must_use]
    pub fn input(&self, input: &Id) -> String {
        format!("{ROOT}/{}/input/{input}", self.node)
    }

    /// Retained `ON` / `OFF` of one output, as its line really is.
    #[must_use]
    pub fn output(&self, output: &Id) -> String {
        format!("{ROOT}/{}/output/{output}", self.node)
    }

    /// Where one output is commanded.
    #[must_use]
    pub fn command(&self, output: &Id) -> String {
        format!("{ROOT}/{}/output/{output}/set", self.node)
    }

    /// The filter of all that this node says and hears.
    #[must_use]
    pub fn everything(&self) -> String {
        format!("{ROOT}/{}/#", self.node)
    }

    /// The filter of the commands to all outputs.
    #[must_use]
    pub fn commands(&self) -> String {
        format!("{ROOT}/{}/output/+/set", self.node)
    }

    /// The output that a command's topic names.
    #[must_use]
    pub fn commanded(&self, topic: &str) -> Option<Id> {
        let name = topic.strip_prefix(&format!("{ROOT}/{}/output/", self.node))?;
        name.strip_suffix("/set")?.parse().ok()
    }
}

/// Retained `ON` / `OFF` of one of the broker's alarms. `alarm` is therefore no node's id.
#[must_use]
pub fn alarm_topic(alarm: &Id) -> String {
    format!("{ROOT}/alarm/{alarm}")
}

/// Whose status a topic is.
#[must_use]
pub fn status_source(topic: &str) -> Option<Id> {
    topic.strip_prefix(ROOT)?.strip_prefix('/')?.strip_suffix("/status")?.parse().ok()
}

/// Which node and sensor a telemetry topic belongs to: `humidor/<node>/sensor/<name>`.
///
/// `None` when the topic is of another kind. A topic of this form whose ids are malformed is
/// telemetry too, of nobody: `Some(Err(…))`, so that it is refused and counted, not stored as a
/// stranger's number.
#[must_use]
pub fn telemetry_source(topic: &str) -> Option<Result<(Id, Id), crate::reading::IdError>> {
    let (node, rest) = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
    let sensor = rest.strip_prefix("sensor/")?;
    Some(node.parse().and_then(|node| Ok((node, sensor.parse()?))))
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

    #[test]
    fn a_command_names_an_output_of_this_node() {
        let topics = NodeTopics::new("oven".parse().unwrap());
        let filter: Filter = topics.commands().parse().unwrap();
        let topic = format!("{}/set", topics.output(&"fan".parse().unwrap()));
        assert!(filter.matches(&topic));
        assert_eq!(topics.commanded(&topic).unwrap().as_str(), "fan");
        for other in ["humidor/oven/output/fan", "humidor/door/output/fan/set", "x/set"] {
            assert_eq!(topics.commanded(other), None, "{other}");
        }
    }

    #[test]
    fn a_telemetry_topic_names_its_node_and_sensor() {
        let (node, sensor) = telemetry_source("humidor/oven/sensor/top").unwrap().unwrap();
        assert_eq!((node.as_str(), sensor.as_str()), ("oven", "top"));
        assert!(telemetry_source("humidor/oven/status").is_none());
        assert!(telemetry_source("humid/oven/sensor/top").is_none());
        assert!(telemetry_source("humidor/Oven/sensor/top").unwrap().is_err());
        assert!(telemetry_source("humidor/oven/sensor/a/b").unwrap().is_err());
    }
}
