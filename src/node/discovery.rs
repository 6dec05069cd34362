//! What Home Assistant is told of this node, so that it finds sensors, inputs and outputs by itself.
//!
//! One retained message describes the whole device (its MQTT integration's "device discovery"). It is said after
//! every connection, and again when Home Assistant says that it has started.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::{Backend, HEALTH_INTERVAL, NodeConfig};
use crate::reading::Id;
use crate::wire::{Discovery, NodeTopics};

/// Health is believed for two of its intervals and a moment.
const HEALTH_EXPIRES: Duration = expires_after(HEALTH_INTERVAL);
/// What may be late: a reading waits for its tries, and for the network.
const GRACE: Duration = Duration::from_secs(5);

/// What this node has to announce, and where.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Topic of the retained message.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Where Home Assistant says that it has started.
    pub birth: String,
}

impl Announcement {
    /// Describes the node to `discovery`.
    #[must_use]
    pub fn new(config: &NodeConfig, discovery: &Discovery) -> Self {
        Self {
            topic: discovery.device(&device_id(&config.node)),
            payload: device(config).to_string().into_bytes(),
            birth: discovery.birth(),
        }
    }
}

/// The device's id. An underscore is in no id of ours, so joining ids with it never makes two the same; and
/// Home Assistant takes `[a-zA-Z0-9_-]`.
#[must_use]
pub fn device_id(node: &Id) -> String {
    format!("humidor_{node}")
}

/// How long a value is believed that comes every `interval`: one may be missing.
const fn expires_after(interval: Duration) -> Duration {
    let twice = interval.saturating_mul(2);
    Duration::from_secs(twice.as_secs() + (twice.subsec_nanos() > 0) as u64 + GRACE.as_secs())
}

/// The payload. Its keys are the abbreviations of Home Assistant's `abbreviations.py`.
fn device(config: &NodeConfig) -> Value {
    let id = device_id(&config.node);
    let topics = NodeTopics::new(config.node.clone());
    let mut components = Components { id: &id, found: Map::new() };
    for sensor in &config.sensors {
        components.sensor(&topics, &sensor.name, expires_after(config.interval));
    }
    for input in &config.inputs {
        let state = json!({ "p": "binary_sensor", "name": input.name, "stat_t": topics.input(&input.name) });
        components.add(&format!("input_{}", input.name), state);
    }
    for output in &config.outputs {
        let name = &output.name;
        let switch = json!({
            "p": "switch", "name": name, "qos": 1,
            "stat_t": topics.output(name), "cmd_t": topics.command(name),
        });
        components.add(&format!("output_{name}"), switch);
    }
    components.diagnostics(&topics);
    let model = match (config.backend, config.board.board) {
        (Backend::Sim { .. }, _) => "simulated board",
        (_, Some(board)) => board.name,
        (_, None) => "board",
    };
    json!({
        "dev": {
            "ids": [id], "name": config.node, "mf": "humidor", "mdl": model,
            "sw": env!("CARGO_PKG_VERSION"),
        },
        "o": { "name": "humidor", "sw": env!("CARGO_PKG_VERSION") },
        "avty": [{ "t": topics.status() }, { "t": crate::wire::BROKER_STATUS }],
        "avty_mode": "all",
        "cmps": components.found,
    })
}

struct Components<'a> {
    id: &'a str,
    found: Map<String, Value>,
}

impl Components<'_> {
    fn add(&mut self, key: &str, mut component: Value) {
        component["unique_id"] = format!("{}_{key}", self.id).into();
        self.found.insert(key.to_owned(), component);
    }

    fn sensor(&mut self, topics: &NodeTopics, sensor: &Id, expires: Duration) {
        for (quantity, unit) in [("temperature", "°C"), ("humidity", "%")] {
            let value = json!({
                "p": "sensor", "name": format!("{sensor} {quantity}"), "stat_t": topics.sensor(sensor),
                "val_tpl": format!("{{{{ value_json.{quantity} }}}}"), "unit_of_meas": unit,
                "dev_cla": quantity, "stat_cla": "measurement",
                "exp_aft": expires.as_secs(), "sug_dsp_prc": 1,
            });
            self.add(&format!("sensor_{sensor}_{quantity}"), value);
        }
        let failures = json!({
            "p": "sensor", "name": format!("{sensor} failed reads"), "stat_t": topics.health(),
            "val_tpl": format!(
                "{{{{ value_json.failures.get('{sensor}', {{}}).values() | sum }}}}"
            ),
            "stat_cla": "total_increasing", "ent_cat": "diagnostic", "exp_aft": HEALTH_EXPIRES.as_secs(),
        });
        self.add(&format!("sensor_{sensor}_failures"), failures);
    }

    fn diagnostics(&mut self, topics: &NodeTopics) {
        for (key, name, class) in [
            ("outbox", "Readings waiting", "measurement"),
            ("dropped", "Readings given up", "total_increasing"),
        ] {
            let count = json!({
                "p": "sensor", "name": name, "stat_t": topics.health(),
                "val_tpl": format!("{{{{ value_json.{key} }}}}"), "stat_cla": class,
                "ent_cat": "diagnostic", "exp_aft": HEALTH_EXPIRES.as_secs(),
            });
            self.add(&format!("health_{key}"), count);
        }
        let clock = json!({
            "p": "binary_sensor", "name": "Clock not set", "stat_t": topics.health(),
            "val_tpl": "{{ 'OFF' if value_json.clock == 'synced' else 'ON' }}",
            "dev_cla": "problem", "ent_cat": "diagnostic", "exp_aft": HEALTH_EXPIRES.as_secs(),
        });
        self.add("health_clock", clock);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::{Layers, node};

    /// A board with everything, its ids this long.
    fn config(length: usize, things: usize) -> NodeConfig {
        let id = |kind: &str, n: usize| format!("{kind}{n:0>width$}", width = length - kind.len());
        let list = |kind: &str, target: &str, from: usize| {
            (0..things)
                .map(|n| format!("{}={target}{}", id(kind, n), from + n))
                .collect::<Vec<_>>()
                .join(",")
        };
        let flags = [
            ("node", id("n", 0)),
            ("broker", "mqtt://hall".to_owned()),
            ("sensors", list("s", "dht22@chip:", 0)),
            ("inputs", list("i", "chip:", 100)),
            ("outputs", list("o", "chip:", 200)),
            ("gpio", "sim".to_owned()),
        ];
        node(Layers::new(&flags, [])).unwrap()
    }

    fn announced(config: &NodeConfig) -> Value {
        let announcement = Announcement::new(config, &"homeassistant".parse().unwrap());
        serde_json::from_slice(&announcement.payload).unwrap()
    }

    /// The rules of Home Assistant's `mqtt` integration, each where its source has it.
    #[test]
    fn the_description_keeps_home_assistants_rules() {
        let config = config(8, 2);
        let announcement = Announcement::new(&config, &"homeassistant".parse().unwrap());
        // discovery.py, TOPIC_MATCHER: `<prefix>/device/[a-zA-Z0-9_-]+/config`.
        let object = announcement.topic.strip_prefix("homeassistant/device/").unwrap();
        let object = object.strip_suffix("/config").unwrap();
        assert!(
            object.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
            "{object}"
        );
        let device = announced(&config);
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
        let flags = |node: &str, sensors: &str| {
            let flags =
                [("node", node), ("sensors", sensors), ("broker", "mqtt://h"), ("gpio", "sim")];
            node_of(&flags)
        };
        let unique = |config: &NodeConfig| -> HashSet<String> {
            let components = announced(config)["cmps"].as_object().unwrap().clone();
            components.values().map(|c| c["unique_id"].as_str().unwrap().to_owned()).collect()
        };
        let (one, other) = (unique(&flags("a", "b-c=dht22@7")), unique(&flags("a-b", "c=dht22@7")));
        assert!(one.is_disjoint(&other));
    }

    fn node_of(flags: &[(&'static str, &str)]) -> NodeConfig {
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        node(Layers::new(&flags, [])).unwrap()
    }

    #[test]
    fn the_largest_board_with_the_longest_names_fits_into_a_packet() {
        let config = config(crate::reading::ID_MAX_CHARS, crate::node::config::LINES_PER_KIND_MAX);
        let announcement = Announcement::new(&config, &"homeassistant".parse().unwrap());
        let bytes = announcement.payload.len() + announcement.topic.len();
        assert!(
            bytes + 16 < super::super::delivery::session::PACKET_OUT_MAX_BYTES,
            "{bytes} bytes"
        );
    }
}
