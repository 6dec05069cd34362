//! The node's role from the settings.

use std::path::Path;

use super::layers::Layers;
use super::pin_uses;
use super::problem::Problems;
use super::settings::{
    BOARD, BROKER, CLOCK, DATA, DISCOVERY, GPIO, INPUTS, INTERVAL, NODE, OUTBOX_CAPACITY, OUTPUTS,
    PASSWORD, SENSORS, SIM_FAULTS, TLS_CA, TLS_CERT, TLS_KEY,
};
use super::values;
use crate::board::{Recognised, recognise};
use crate::node::{Backend, BrokerAddress, Brokers, DeliveryTimes, Forget, NodeConfig, TlsFiles};
use crate::reading::Id;

/// Here the kernel tells the host name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// The node's configuration.
///
/// # Errors
/// Every mistake.
pub fn node(mut layers: Layers) -> Result<NodeConfig, Problems> {
    let config = fields(&mut layers, true);
    layers.finish(config)
}

/// The part of the node's configuration that `humidor node --forget` needs, for each of its brokers.
///
/// # Errors
/// Every mistake.
pub fn forget(mut layers: Layers) -> Result<Vec<Forget>, Problems> {
    let node = node_id(&mut layers);
    let brokers = layers.need(&BROKER);
    let password = layers.take(&PASSWORD);
    let discovery = layers.need(&DISCOVERY);
    let tls = tls(&mut layers, brokers.as_ref());
    let forget = (|| {
        let (node, discovery) = (node?, discovery?);
        let at = |broker: &BrokerAddress| Forget {
            node: node.clone(),
            broker: broker.clone(),
            password: password.clone(),
            tls: tls.clone(),
            discovery: discovery.clone(),
        };
        Some(brokers?.iter().map(at).collect())
    })();
    layers.finish(forget)
}

/// All of it; where it need not be `complete`, a setting that is missing is no mistake.
pub(super) fn fields(layers: &mut Layers, complete: bool) -> Option<NodeConfig> {
    let data = layers.need(&DATA);
    let node = node_id(layers);
    let brokers = if complete { layers.need(&BROKER) } else { layers.take(&BROKER) };
    let password = layers.take(&PASSWORD);
    let tls = tls(layers, brokers.as_ref());
    let inputs = layers.take(&INPUTS);
    let outputs = layers.take(&OUTPUTS);
    // A board may have no sensor, but it must have something.
    let sensors = if layers.is_set(&SENSORS) {
        layers.take(&SENSORS)
    } else if layers.is_set(&INPUTS) || layers.is_set(&OUTPUTS) {
        Some(Vec::new())
    } else if complete {
        layers.need(&SENSORS)
    } else {
        None
    };
    let interval = layers.need(&INTERVAL);
    if let (Some(interval), Some(sensors)) = (interval, &sensors) {
        for sensor in sensors.iter().filter(|sensor| interval < sensor.model.min_interval()) {
            layers.problem(format!(
                "HUMIDOR_INTERVAL: {interval:?} is too short for `{}`: a {} needs at least {:?} between two readings",
                sensor.name, sensor.model, sensor.model.min_interval()
            ));
        }
    }
    let discovery = layers.need(&DISCOVERY);
    let backend = backend(layers);
    let board = board(layers);
    if let Some(board) = &board {
        // The pins of those that are right beside others that are not, too.
        let uses = pin_uses::uses(
            &sensors.clone().unwrap_or_else(|| layers.right_items(&SENSORS)),
            &inputs.clone().unwrap_or_else(|| layers.right_items(&INPUTS)),
            &outputs.clone().unwrap_or_else(|| layers.right_items(&OUTPUTS)),
        );
        pin_uses::check(layers, board, &uses);
    }
    let clock = layers.need(&CLOCK);
    let outbox_capacity = layers.need(&OUTBOX_CAPACITY);
    Some(NodeConfig {
        node: node?,
        brokers: brokers?,
        password,
        tls,
        sensors: sensors?,
        inputs: inputs.unwrap_or_default(),
        outputs: outputs.unwrap_or_default(),
        interval: interval?,
        data: data?,
        outbox_capacity: outbox_capacity?,
        discovery: discovery?,
        backend: backend?,
        board: board?,
        clock: clock?,
        times: DeliveryTimes::default(),
    })
}

/// The files of a node's TLS, where a broker's address asks for it.
pub(super) fn tls(layers: &mut Layers, brokers: Option<&Brokers>) -> Option<TlsFiles> {
    if !brokers.is_some_and(Brokers::use_tls) {
        return None;
    }
    let ca = layers.take(&TLS_CA);
    let identity = match (layers.take(&TLS_CERT), layers.take(&TLS_KEY)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            layers.missing("set both HUMIDOR_TLS_CERT and HUMIDOR_TLS_KEY, or neither".to_owned());
            return None;
        }
    };
    Some(TlsFiles { ca, identity })
}

/// The node's id: as set, or the host name.
pub(super) fn node_id(layers: &mut Layers) -> Option<Id> {
    if layers.is_set(&NODE) {
        return layers.take(&NODE);
    }
    let name = std::fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_ascii_lowercase();
    // The first label only: `box-3.plant.local` is `box-3`.
    let label = name.split('.').next().unwrap_or_default();
    values::node(label)
        .map_err(|error| {
            layers.missing(format!(
                "HUMIDOR_NODE is not set, and the host name cannot be used: {error}"
            ));
        })
        .ok()
}

/// How lines are reached.
pub(super) fn backend(layers: &mut Layers) -> Option<Backend> {
    let faults = layers.need(&SIM_FAULTS);
    match layers.need(&GPIO)? {
        Backend::Sim { .. } => faults.map(|faults| Backend::Sim { faults }),
        real => Some(real),
    }
}

/// The board: as set, or recognised. One that is not known is no mistake until a pin needs it.
pub(super) fn board(layers: &mut Layers) -> Option<Recognised> {
    if layers.is_set(&BOARD) {
        layers.take(&BOARD).map(Recognised::set)
    } else {
        Some(recognise(Path::new("/")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            ("sensors", "hall=dht22@7, press=DHT11@PA1"),
            ("gpio", "sim"),
        ]))
        .unwrap();
        assert_eq!(config.sensors.len(), 2);
        assert_eq!(config.sensors[1].pin, Pin::Named("PA1".into()));
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
