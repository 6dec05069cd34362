//! The message that describes this node to Home Assistant: its sensors, inputs, outputs and diagnostics.
//!
//! One retained message describes the whole device (the MQTT integration's "device discovery"). It is published after
//! every connection, and again when Home Assistant's birth message says that it has started.

use std::time::Duration;

use super::config::{Backend, HEALTH_INTERVAL, NodeConfig};
use crate::reading::Id;
use crate::wire::{
    BROKER_STATUS, Component, Device, Discovery, NodeTopics, Platform, node_device_id,
};

/// Time that a message may be late: a reading waits for its tries, and for the network.
const GRACE: Duration = Duration::from_secs(5);

/// The message, and the topic that asks for it again.
#[derive(Debug, Clone)]
pub struct DiscoveryMessage {
    /// Topic of the retained message.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Topic of Home Assistant's birth message.
    pub birth: String,
}

impl DiscoveryMessage {
    /// Describes the node to the Home Assistant of this prefix.
    #[must_use]
    pub fn new(config: &NodeConfig, discovery: &Discovery) -> Self {
        Self {
            topic: discovery.device(&node_device_id(&config.node)),
            payload: device(config).to_json(),
            birth: discovery.birth(),
        }
    }
}

/// Seconds after which a value expires that comes every `interval`: one message may be missing.
const fn expires_after_s(interval: Duration) -> u64 {
    let twice = interval.saturating_mul(2);
    twice.as_secs() + (twice.subsec_nanos() > 0) as u64 + GRACE.as_secs()
}

fn device(config: &NodeConfig) -> Device {
    let model = match (config.backend, config.board.board) {
        (Backend::Sim { .. }, _) => "simulated board",
        (_, Some(board)) => board.name,
        (_, None) => "board",
    };
    let topics = NodeTopics::new(config.node.clone());
    let id = node_device_id(&config.node);
    let availability = vec![topics.status(), BROKER_STATUS.to_owned()];
    let device = Device::new(id.clone(), config.node.to_string(), model, availability);
    let mut composer = Composer { id, topics, device };
    for sensor in &config.sensors {
        composer.sensor(&sensor.name, expires_after_s(config.interval));
    }
    for input in &config.inputs {
        composer.input(&input.name);
    }
    for output in &config.outputs {
        composer.output(&output.name);
    }
    composer.diagnostics();
    composer.device
}

struct Composer {
    id: String,
    topics: NodeTopics,
    device: Device,
}

impl Composer {
    /// Adds a component. Its unique id is the device's and `key`: neither part has the other's underscores, so no two
    /// nodes get the same.
    fn add(
        &mut self,
        platform: Platform,
        key: String,
        name: String,
        state_topic: String,
        more: impl FnOnce(&mut Component),
    ) {
        let unique_id = format!("{}_{key}", self.id);
        let mut component = Component::new(platform, name, unique_id, state_topic);
        more(&mut component);
        self.device.add(key, component);
    }

    fn sensor(&mut self, sensor: &Id, expire_after_s: u64) {
        for (quantity, unit) in [("temperature", "°C"), ("humidity", "%")] {
            self.add(
                Platform::Sensor,
                format!("sensor_{sensor}_{quantity}"),
                format!("{sensor} {quantity}"),
                self.topics.sensor(sensor),
                |component| {
                    component.value_template = Some(format!("{{{{ value_json.{quantity} }}}}"));
                    component.unit = Some(unit);
                    component.device_class = Some(quantity);
                    component.state_class = Some("measurement");
                    component.expire_after_s = Some(expire_after_s);
                    component.precision = Some(1);
                },
            );
        }
        let failures =
            format!("{{{{ value_json.failures.get('{sensor}', {{}}).values() | sum }}}}");
        self.diagnostic(
            Platform::Sensor,
            format!("sensor_{sensor}_failures"),
            format!("{sensor} failed reads"),
            failures,
            |component| component.state_class = Some("total_increasing"),
        );
    }

    fn input(&mut self, input: &Id) {
        self.add(
            Platform::BinarySensor,
            format!("input_{input}"),
            input.to_string(),
            self.topics.input(input),
            |_| {},
        );
    }

    fn output(&mut self, output: &Id) {
        let command_topic = self.topics.command(output);
        self.add(
            Platform::Switch,
            format!("output_{output}"),
            output.to_string(),
            self.topics.output(output),
            |component| {
                component.command_topic = Some(command_topic);
                component.qos = Some(1);
            },
        );
    }

    /// Adds a value of the health message.
    fn diagnostic(
        &mut self,
        platform: Platform,
        key: String,
        name: String,
        template: String,
        more: impl FnOnce(&mut Component),
    ) {
        self.add(platform, key, name, self.topics.health(), |component| {
            component.value_template = Some(template);
            component.category = Some("diagnostic");
            component.expire_after_s = Some(expires_after_s(HEALTH_INTERVAL));
            more(component);
        });
    }

    fn diagnostics(&mut self) {
        for (key, name, class) in [
            ("outbox", "Readings queued", "measurement"),
            ("dropped", "Readings lost", "total_increasing"),
        ] {
            self.diagnostic(
                Platform::Sensor,
                format!("health_{key}"),
                name.to_owned(),
                format!("{{{{ value_json.{key} }}}}"),
                |component| component.state_class = Some(class),
            );
        }
        self.diagnostic(
            Platform::BinarySensor,
            "health_clock".to_owned(),
            "Clock not set".to_owned(),
            "{{ 'OFF' if value_json.clock == 'synced' else 'ON' }}".to_owned(),
            |component| component.device_class = Some("problem"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;
    use crate::node::config::example;

    fn described(config: &NodeConfig) -> Value {
        let message = DiscoveryMessage::new(config, &"homeassistant".parse().unwrap());
        serde_json::from_slice(&message.payload).unwrap()
    }

    /// The rules of Home Assistant's `mqtt` integration, each where its source has it.
    #[test]
    fn the_description_keeps_home_assistants_rules() {
        let config = example(2, 8);
        let message = DiscoveryMessage::new(&config, &"homeassistant".parse().unwrap());
        // discovery.py, TOPIC_MATCHER: `<prefix>/device/[a-zA-Z0-9_-]+/config`.
        let object = message.topic.strip_prefix("homeassistant/device/").unwrap();
        let object = object.strip_suffix("/config").unwrap();
        assert!(
            object.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
            "{object}"
        );
        let device = described(&config);
        // schemas.py, MQTT_ENTITY_DEVICE_INFO_SCHEMA: identifiers or connections.
        assert_eq!(device["dev"]["ids"][0], object);
        // schemas.py, MQTT_ORIGIN_INFO_SCHEMA: a name is required.
        assert_eq!(device["o"]["name"], "humidor");
        // entity.py, MQTT_AVAILABILITY_LIST_SCHEMA; const.py, AVAILABILITY_MODES.
        assert_eq!(device["avty"][0]["t"], format!("humidor/{}/status", config.node));
        assert_eq!(device["avty"][1]["t"], "humidor/broker/status");
        assert_eq!(device["avty_mode"], "all");
        let components = device["cmps"].as_object().unwrap();
        assert_eq!(components.len(), 2 * 3 + 2 + 2 + 3);
        let mut ids = HashSet::new();
        for (key, component) in components {
            // discovery.py: a component has a platform; entity.py: several of one device have a unique_id each.
            let platform = component["p"].as_str().unwrap();
            assert!(["sensor", "binary_sensor", "switch"].contains(&platform), "{key}");
            assert!(ids.insert(component["unique_id"].as_str().unwrap()), "{key}");
            // sensor.py, binary_sensor.py: state_topic is required; switch.py: command_topic.
            assert!(component["stat_t"].is_string(), "{key}");
            assert_eq!(component["cmd_t"].is_string(), platform == "switch", "{key}");
            // sensor.py, validate_sensor_state_and_device_class_config: the unit is one of the class's
            // (const.py, DEVICE_CLASS_UNITS).
            match component["dev_cla"].as_str() {
                Some("temperature") => assert_eq!(component["unit_of_meas"], "°C"),
                Some("humidity") => assert_eq!(component["unit_of_meas"], "%"),
                _ => assert!(component["unit_of_meas"].is_null(), "{key}"),
            }
            // sensor.py: expire_after is whole seconds.
            let expires = &component["exp_aft"];
            assert!(expires.is_null() || expires.is_u64(), "{key}");
        }
        assert_eq!(components["sensor_s0000000_temperature"]["exp_aft"], 25);
    }

    #[test]
    fn ids_that_could_be_joined_to_the_same_text_stay_apart() {
        let config = |node: &str, sensor: &str| {
            let mut config = example(1, 8);
            config.node = node.parse().unwrap();
            config.sensors[0].name = sensor.parse().unwrap();
            config
        };
        let unique = |config: &NodeConfig| -> HashSet<String> {
            let components = described(config)["cmps"].as_object().unwrap().clone();
            components.values().map(|c| c["unique_id"].as_str().unwrap().to_owned()).collect()
        };
        let (one, other) = (unique(&config("a", "b-c")), unique(&config("a-b", "c")));
        assert!(one.is_disjoint(&other));
    }
}
