//! The topics that humidor itself uses.

use crate::reading::Id;

/// First level of every topic of ours.
const ROOT: &str = "humidor";
/// Payload of a status topic while its owner is connected.
pub const ONLINE: &str = "online";
/// Payload of a status topic after its owner left, said by itself or by its will.
pub const OFFLINE: &str = "offline";
/// Retained status of the broker itself. `broker` is therefore no node's id.
pub const BROKER_STATUS: &str = "humidor/broker/status";
/// Beginning of the topics in which the broker reports on itself.
pub const SYS_BROKER: &str = "$SYS/broker/";
/// The filter of the nodes' status topics, and the broker's.
pub const STATUSES: &str = "humidor/+/status";
/// The filter of the nodes' health topics.
pub const HEALTHS: &str = "humidor/+/health";
/// End of the topic of the broker's own device in Home Assistant's discovery.
const BROKER_DEVICE_CONFIG: &str = "/device/humidor_broker/config";
/// What a node's client id begins with; its node id follows.
pub const CLIENT_ID_PREFIX: &str = "humidor-";
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

/// Whether commands to an output are published there, whatever the node and the output are called.
#[must_use]
pub fn is_command(topic: &str) -> bool {
    let mut levels = topic.split('/');
    (levels.next(), levels.nth(1), levels.nth(1), levels.next())
        == (Some(ROOT), Some("output"), Some("set"), None)
}

/// Retained `ON` / `OFF` of one of the broker's alarms. `alarm` is therefore no node's id.
#[must_use]
pub fn alarm_topic(alarm: &Id) -> String {
    format!("{ROOT}/alarm/{alarm}")
}

/// Ids that are levels of the broker's own topics, and therefore no node's.
const RESERVED_IDS: [&str; 2] = ["broker", "alarm"];

/// Whether this name is a level of the broker's own topics.
#[must_use]
pub fn is_reserved_id(name: &str) -> bool {
    RESERVED_IDS.contains(&name)
}

/// Whether all topics of a filter are of humidor's own.
#[must_use]
pub fn is_ours(filter: &str) -> bool {
    filter.split('/').next() == Some(ROOT)
}

/// Whether only the broker itself publishes to a topic: `$…`, its status, its alarms, and its own device for Home
/// Assistant under any prefix.
#[must_use]
pub fn is_brokers_own(topic: &str) -> bool {
    let own_level = |rest: &str| is_reserved_id(rest.split('/').next().unwrap_or(rest));
    topic.starts_with('$')
        || topic.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).is_some_and(own_level)
        || topic.strip_suffix(BROKER_DEVICE_CONFIG).is_some_and(|prefix| !prefix.is_empty())
}

/// Whether a topic is the status of the node with this client id.
#[must_use]
pub fn is_status_of(client_id: &str, topic: &str) -> bool {
    let node = client_id.strip_prefix(CLIENT_ID_PREFIX);
    node.is_some() && node == status_source(topic).as_ref().map(Id::as_str)
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
    use crate::mqtt::Filter;

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
    fn a_command_is_one_whatever_its_node_and_output_are() {
        for (topic, expected) in [
            ("humidor/oven/output/fan/set", true),
            ("humidor/Oven/output//set", true),
            ("humidor/oven/output/fan", false),
            ("humidor/oven/output/fan/set/more", false),
            ("humidor/oven/input/fan/set", false),
            ("x/oven/output/fan/set", false),
        ] {
            assert_eq!(is_command(topic), expected, "{topic}");
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
