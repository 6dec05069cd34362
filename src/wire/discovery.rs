//! Home Assistant's MQTT discovery: where it looks for devices, and the one message that describes a device.
//!
//! Both roles compose theirs here: a node its sensors, inputs and outputs, the broker its alarms. The keys are the
//! abbreviations of `abbreviations.py` in Home Assistant's `mqtt` integration.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::mqtt::{TopicError, topic_name};
use crate::reading::Id;

/// Id of the broker's own device, which has its alarms. No node has this one: `broker` is no node's id.
pub const BROKER_DEVICE_ID: &str = "humidor_broker";

/// Longest prefix in bytes: with the longest id behind it a topic stays short.
const PREFIX_MAX_BYTES: usize = 128;

/// The prefix of Home Assistant's discovery topics, `homeassistant` by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    prefix: String,
}

/// The text is not a discovery prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// It cannot be the beginning of a topic.
    #[error("`{0}` is not the beginning of a topic ({1}): write homeassistant, or off")]
    Topic(String, TopicError),
    /// Home Assistant does not take it.
    #[error(
        "`{0}` is not a discovery prefix: at most {PREFIX_MAX_BYTES} bytes, no `$` in front, no `/` at either end; or off"
    )]
    Form(String),
}

impl Discovery {
    /// Topic of the retained message that describes a device. `device` is its id, of `[a-zA-Z0-9_-]`.
    #[must_use]
    pub fn device(&self, device: &str) -> String {
        format!("{}/device/{device}/config", self.prefix)
    }

    /// Whether a message with this topic describes something, by anyone (`<prefix>/<component>/[<node>/]<object>/config`).
    #[must_use]
    pub fn is_description(&self, topic: &str) -> bool {
        topic
            .strip_prefix(&*self.prefix)
            .and_then(|rest| rest.strip_prefix('/')?.strip_suffix("/config"))
            .is_some_and(|middle| (2..=3).contains(&middle.split('/').count()))
    }

    /// Topic of Home Assistant's birth message: `online` when it has started.
    #[must_use]
    pub fn birth(&self) -> String {
        format!("{}/status", self.prefix)
    }
}

impl FromStr for Discovery {
    type Err = DiscoveryError;

    fn from_str(prefix: &str) -> Result<Self, DiscoveryError> {
        topic_name(prefix.as_bytes())
            .map_err(|error| DiscoveryError::Topic(prefix.to_owned(), error))?;
        if prefix.len() > PREFIX_MAX_BYTES
            || prefix.starts_with(['$', '/'])
            || prefix.ends_with('/')
        {
            return Err(DiscoveryError::Form(prefix.chars().take(PREFIX_MAX_BYTES).collect()));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }
}

/// Whether a message with this topic describes a device of humidor's, whatever its prefix is.
#[must_use]
pub fn is_device_description(topic: &str) -> bool {
    let device = topic.strip_suffix("/config").and_then(|topic| topic.rsplit_once('/'));
    device.is_some_and(|(before, id)| id.starts_with("humidor_") && before.ends_with("/device"))
}

/// Id of a node's device. No id of ours has an underscore, so two nodes never get the same device id.
#[must_use]
pub fn node_device_id(node: &Id) -> String {
    format!("humidor_{node}")
}

/// The kinds of component that humidor describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// A number.
    Sensor,
    /// `ON` or `OFF`.
    BinarySensor,
    /// `ON` or `OFF`, and a command topic.
    Switch,
}

/// One component of a device, which becomes an entity of Home Assistant. [`Component::new`] has the fields that every
/// component needs; the others are set where they apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Its kind.
    #[serde(rename = "p")]
    pub platform: Platform,
    /// The entity's name, shown after the device's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Home Assistant keeps the entity's settings under this id. It never changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_id: Option<String>,
    /// Topic of the state.
    #[serde(rename = "stat_t", skip_serializing_if = "Option::is_none")]
    pub state_topic: Option<String>,
    /// Template that takes the value from a payload.
    #[serde(rename = "val_tpl", skip_serializing_if = "Option::is_none")]
    pub value_template: Option<String>,
    /// Unit of the value.
    #[serde(rename = "unit_of_meas", skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// Device class: `temperature`, `humidity`, `problem`.
    #[serde(rename = "dev_cla", skip_serializing_if = "Option::is_none")]
    pub device_class: Option<&'static str>,
    /// State class: `measurement` or `total_increasing`.
    #[serde(rename = "stat_cla", skip_serializing_if = "Option::is_none")]
    pub state_class: Option<&'static str>,
    /// Entity category: `diagnostic`.
    #[serde(rename = "ent_cat", skip_serializing_if = "Option::is_none")]
    pub category: Option<&'static str>,
    /// The value becomes unavailable after this many seconds without a message.
    #[serde(rename = "exp_aft", skip_serializing_if = "Option::is_none")]
    pub expire_after_s: Option<u64>,
    /// Digits after the decimal point.
    #[serde(rename = "sug_dsp_prc", skip_serializing_if = "Option::is_none")]
    pub precision: Option<u8>,
    /// Topic of commands.
    #[serde(rename = "cmd_t", skip_serializing_if = "Option::is_none")]
    pub command_topic: Option<String>,
    /// `QoS` of the subscription and of commands, 0 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
}

impl Component {
    /// A component with its name, unique id and state topic.
    #[must_use]
    pub fn new(platform: Platform, name: String, unique_id: String, state_topic: String) -> Self {
        Self {
            name: Some(name),
            unique_id: Some(unique_id),
            state_topic: Some(state_topic),
            ..Self::removed(platform)
        }
    }

    /// A component that the device no longer has. Home Assistant removes a component that has only a platform.
    #[must_use]
    pub const fn removed(platform: Platform) -> Self {
        Self {
            platform,
            name: None,
            unique_id: None,
            state_topic: None,
            value_template: None,
            unit: None,
            device_class: None,
            state_class: None,
            category: None,
            expire_after_s: None,
            precision: None,
            command_topic: None,
            qos: None,
        }
    }
}

/// A device and its components: the payload of [`Discovery::device`].
#[derive(Debug, Clone)]
pub struct Device {
    id: String,
    name: String,
    model: &'static str,
    availability: Vec<String>,
    components: BTreeMap<String, Component>,
}

impl Device {
    /// A device without components. It is available while `online` is retained on each topic of `availability`.
    #[must_use]
    pub fn new(id: String, name: String, model: &'static str, availability: Vec<String>) -> Self {
        Self { id, name, model, availability, components: BTreeMap::new() }
    }

    /// Adds a component. `key` is unique within the device and, like ids, of `[a-zA-Z0-9_-]`.
    pub fn add(&mut self, key: String, component: Component) {
        self.components.insert(key, component);
    }

    /// The payload.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let version = env!("CARGO_PKG_VERSION");
        let availability: Vec<Value> =
            self.availability.iter().map(|topic| json!({ "t": topic })).collect();
        json!({
            "dev": {
                "ids": [self.id], "name": self.name, "mf": "humidor", "mdl": self.model,
                "sw": version,
            },
            "o": { "name": "humidor", "sw": version },
            "avty": availability,
            "avty_mode": "all",
            "cmps": self.components,
        })
        .to_string()
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_beginning_of_a_topic() {
        let plant: Discovery = "plant/ha".parse().unwrap();
        assert_eq!(plant.device("humidor_a"), "plant/ha/device/humidor_a/config");
        assert_eq!(plant.birth(), "plant/ha/status");
        let long = "x".repeat(PREFIX_MAX_BYTES + 1);
        for wrong in ["", "home/#", "a+b", "$SYS", "/ha", "ha/", long.as_str()] {
            assert!(wrong.parse::<Discovery>().is_err(), "{wrong}");
        }
    }

    /// `mqtt/discovery.py`: a component with only a platform is removed; `entity.py`: one availability topic with
    /// mode `all` is that topic.
    #[test]
    fn a_device_describes_its_components_and_removes_others() {
        let mut device = Device::new(
            BROKER_DEVICE_ID.to_owned(),
            "humidor alarms".to_owned(),
            "broker",
            vec![super::super::BROKER_STATUS.to_owned()],
        );
        device.add("alarm_old".to_owned(), Component::removed(Platform::BinarySensor));
        let topic = super::super::alarm_topic(&"hot".parse().unwrap());
        let hot = Component {
            device_class: Some("problem"),
            ..Component::new(
                Platform::BinarySensor,
                "hot".to_owned(),
                "humidor_alarm_hot".to_owned(),
                topic,
            )
        };
        device.add("alarm_hot".to_owned(), hot);
        let version = env!("CARGO_PKG_VERSION");
        let payload: Value = serde_json::from_slice(&device.to_json()).unwrap();
        assert_eq!(
            payload,
            json!({
                "dev": {
                    "ids": ["humidor_broker"], "name": "humidor alarms", "mf": "humidor",
                    "mdl": "broker", "sw": version,
                },
                "o": { "name": "humidor", "sw": version },
                "avty": [{ "t": "humidor/broker/status" }],
                "avty_mode": "all",
                "cmps": {
                    "alarm_old": { "p": "binary_sensor" },
                    "alarm_hot": {
                        "p": "binary_sensor", "name": "hot", "unique_id": "humidor_alarm_hot",
                        "stat_t": "humidor/alarm/hot", "dev_cla": "problem",
                    },
                },
            })
        );
    }
}
