//! From layered text to what each role takes: the border behind which there are no strings for pins,
//! topics and durations.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::Targets;

use super::layers::{Layers, Problems};
use super::parse::{choice, duration, interval, list};
use super::retention::retention;
use super::{access, alarms, pins};
use crate::broker::BrokerConfig;
use crate::clock::ClockTrust;
use crate::mqtt::Filter;
use crate::node::{BrokerAddress, Forget, NodeConfig};
use crate::reading::Id;
use crate::web::{Guests, WebConfig};
use crate::wire::Discovery;

/// Longest that a commit may wait for company.
const COMMIT_WINDOW_MAX: Duration = Duration::from_secs(1);
/// Most readings an outbox may be told to hold, about 2 GB.
const OUTBOX_CAPACITY_MAX: u64 = 10_000_000;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Human,
    /// One JSON object a line.
    Json,
}

/// The broker's configuration.
///
/// # Errors
/// Every mistake.
pub fn broker(mut layers: Layers) -> Result<BrokerConfig, Problems> {
    let config = broker_fields(&mut layers);
    log_fields(&mut layers);
    layers.finish(config)
}

fn broker_fields(layers: &mut Layers) -> Option<BrokerConfig> {
    let data = data_folder(layers);
    let mqtt_listen = layers.need("mqtt_listen", |text| {
        text.parse::<SocketAddr>()
            .map_err(|_| format!("`{text}` is not an address with a port: 0.0.0.0:1883"))
    });
    let http_listen = layers.need("http_listen", |text| match text {
        "off" => Ok(None),
        _ => text.parse::<SocketAddr>().map(Some).map_err(|_| {
            format!("`{text}` is neither an address with a port (0.0.0.0:8080) nor off")
        }),
    });
    let web = web_fields(layers);
    let logged = layers.need("logged_filters", |text| {
        list(text, |item| {
            item.parse::<Filter>().map_err(|error| error.to_string()).and_then(|filter| {
                if filter.is_shared() {
                    Err("a shared subscription cannot be logged".to_owned())
                } else {
                    Ok(filter)
                }
            })
        })
    });
    let retention = retention(layers);
    let commit_window =
        layers.need("commit_window", |text| duration(text, Duration::ZERO..=COMMIT_WINDOW_MAX));
    let alarms = layers.need("alarms", alarms::alarms);
    let discovery = discovery(layers);
    let access = data.as_deref().and_then(|data| access::access(layers, data));
    let (tls, limits) = (access::tls(layers), access::limits(layers));
    Some(BrokerConfig {
        data: data?,
        access: access?,
        tls,
        limits: limits?,
        mqtt_listen: mqtt_listen?,
        http_listen: http_listen?,
        web: web?,
        logged: logged?,
        commit_window: commit_window?,
        retention: retention?,
        alarms: alarms?,
        discovery,
    })
}

fn web_fields(layers: &mut Layers) -> Option<WebConfig> {
    let guests = layers.need("http_guests", |text| {
        let known = [
            ("none", Guests::None),
            ("local", Guests::Local),
            ("read", Guests::Read),
            ("switch", Guests::Switch),
        ];
        choice(text, &known)
    });
    let hosts = layers.need("http_hosts", |text| {
        list(text, |name| {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            if name.chars().all(fits) {
                Ok(name.to_owned())
            } else {
                Err("a host name without port: plant.example.org".to_owned())
            }
        })
    });
    Some(WebConfig { guests: guests?, hosts: hosts? })
}

/// The node's configuration.
///
/// # Errors
/// Every mistake.
pub fn node(mut layers: Layers) -> Result<NodeConfig, Problems> {
    let config = node_fields(&mut layers, true);
    log_fields(&mut layers);
    layers.finish(config)
}

/// What `humidor node --forget` needs of the node's configuration.
///
/// # Errors
/// Every mistake.
pub fn forget(mut layers: Layers) -> Result<Forget, Problems> {
    let node = node_id(&mut layers);
    let broker = layers.need("broker", str::parse::<BrokerAddress>);
    let password = layers.take("password", |text| Ok::<_, String>(text.to_owned()));
    let discovery = discovery(&mut layers);
    let tls = access::node_tls(&mut layers, broker.as_ref());
    let forget = (|| Some(Forget { node: node?, broker: broker?, password, tls, discovery }))();
    layers.finish(forget)
}

/// Where Home Assistant looks; `None` when it is to be told nothing, or when that has a mistake.
fn discovery(layers: &mut Layers) -> Option<Discovery> {
    let parse = |text: &str| match text {
        "off" => Ok(None),
        prefix => prefix.parse::<Discovery>().map(Some),
    };
    layers.need("discovery", parse).flatten()
}

fn node_fields(layers: &mut Layers, complete: bool) -> Option<NodeConfig> {
    let need = |layers: &Layers, key| complete || layers.get(key).is_some();
    let data = data_folder(layers);
    let node = node_id(layers);
    let broker = if need(layers, "broker") {
        layers.need("broker", str::parse::<BrokerAddress>)
    } else {
        None
    };
    let password = layers.take("password", |text| Ok::<_, String>(text.to_owned()));
    let tls = access::node_tls(layers, broker.as_ref());
    let inputs = layers.take("inputs", pins::inputs);
    let outputs = layers.take("outputs", pins::outputs);
    // A board may have no sensor, but something it must have.
    let switches = layers.get("inputs").is_some() || layers.get("outputs").is_some();
    let sensors = match (layers.get("sensors"), switches) {
        (None, true) => Some(Vec::new()),
        (None, false) if !complete => None,
        _ => layers.need("sensors", pins::sensors),
    };
    let interval = layers.need("interval", interval);
    if let (Some(interval), Some(sensors)) = (interval, &sensors) {
        for sensor in sensors.iter().filter(|sensor| interval < sensor.model.min_interval()) {
            layers.problem(format!(
                "HUMIDOR_INTERVAL: {interval:?} is too short for `{}`: a {} gives bad data when read faster than every {:?}",
                sensor.name, sensor.model, sensor.model.min_interval()
            ));
        }
    }
    let discovery = discovery(layers);
    let backend = pins::backend(layers);
    let board = pins::board(layers);
    let clock = layers.need("clock", |text| {
        choice(text, &[("kernel", ClockTrust::Kernel), ("always", ClockTrust::Always)])
    });
    let outbox_capacity = layers.need("outbox_capacity", |text| {
        text.parse::<u64>()
            .ok()
            .filter(|readings| (1..=OUTBOX_CAPACITY_MAX).contains(readings))
            .ok_or_else(|| {
                format!("`{text}` is not a number of readings from 1 to {OUTBOX_CAPACITY_MAX}")
            })
    });
    Some(NodeConfig {
        node: node?,
        broker: broker?,
        password,
        tls,
        sensors: sensors?,
        inputs: inputs.unwrap_or_default(),
        outputs: outputs.unwrap_or_default(),
        interval: interval?,
        data: data?,
        outbox_capacity: outbox_capacity?,
        discovery,
        backend: backend?,
        board: board?,
        clock: clock?,
    })
}

/// The node's id: as set, or the host name.
pub fn node_id(layers: &mut Layers) -> Option<Id> {
    let reserved = |id: Id| {
        if matches!(id.as_str(), "broker" | "alarm") {
            Err(format!("`{id}` is the broker's own name"))
        } else {
            Ok(id)
        }
    };
    if layers.get("node").is_some() {
        return layers.take("node", |text| {
            text.parse::<Id>().map_err(|error| error.to_string()).and_then(reserved)
        });
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    // The first label only: `box-3.plant.local` is `box-3`.
    let label = name.split('.').next().unwrap_or_default();
    match label.parse::<Id>().map_err(|error| error.to_string()).and_then(reserved) {
        Ok(id) => Some(id),
        Err(error) => {
            layers.problem(format!(
                "HUMIDOR_NODE is not set, and the host name will not do: {error}"
            ));
            None
        }
    }
}

/// Mistakes in any setting that is there, whichever role it is for.
#[must_use]
pub fn validate_all(layers: &Layers) -> Problems {
    let mut layers = layers.clone();
    log_fields(&mut layers);
    let _ = broker_fields(&mut layers);
    let _ = node_fields(&mut layers, false);
    layers.problems()
}

/// Notes mistakes in what logging was started with.
fn log_fields(layers: &mut Layers) {
    let _ = log_filter(layers);
    let _ = log_format(layers);
}

/// The data folder.
pub fn data_folder(layers: &mut Layers) -> Option<PathBuf> {
    layers.need("data", |text| Ok::<_, String>(PathBuf::from(text)))
}

/// What is logged: levels by module. Not `EnvFilter`, whose patterns for fields bring a regular expression engine.
pub fn log_filter(layers: &mut Layers) -> Option<Targets> {
    layers.need("log", |text| {
        text.parse::<Targets>().map_err(|error| {
            format!("`{text}` is not a log filter ({error}); try debug or humidor=debug")
        })
    })
}

/// How log lines look.
pub fn log_format(layers: &mut Layers) -> Option<LogFormat> {
    layers.need("log_format", |text| {
        choice(text, &[("human", LogFormat::Human), ("json", LogFormat::Json)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpio::Pin;

    fn layers(flags: &[(&'static str, &str)]) -> Layers {
        let flags: Vec<_> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        Layers::new(&flags, [])
    }

    #[test]
    fn a_whole_node_is_read() {
        let config = node(layers(&[
            ("node", "box-1"),
            ("broker", "mqtt://hall"),
            ("sensors", "hall=dht22@7, press=DHT11@PA6"),
            ("gpio", "sim"),
        ]))
        .unwrap();
        assert_eq!(config.sensors.len(), 2);
        assert_eq!(config.sensors[1].pin, Pin::Named("PA6".into()));
        assert_eq!(config.interval, Duration::from_secs(10));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_go() {
        let problems = node(layers(&[
            ("node", "Box 1"),
            ("broker", "hall"),
            ("sensors", "a=dht22@7,b=dht23@8"),
            ("interval", "1 fortnight"),
            ("gpio", "smi"),
        ]))
        .unwrap_err()
        .to_string();
        for expected in [
            "`Box 1` is not an id",
            "mqtt://",
            "`dht23` is none of",
            "did you mean `dht22`",
            "not a time",
            "did you mean `sim`",
        ] {
            assert!(problems.contains(expected), "{expected} in {problems}");
        }
        let short = node(layers(&[
            ("node", "a"),
            ("broker", "mqtt://h"),
            ("sensors", "a=dht22@7"),
            ("interval", "1s"),
            ("gpio", "sim"),
        ]));
        assert!(short.unwrap_err().to_string().contains("too short"));
    }
}
