//! The files of TLS, which mean something else to each role.

use super::layers::Layers;
use super::settings::{MQTTS_LISTEN, TLS_CA, TLS_CERT, TLS_KEY};
use crate::broker::TlsConfig;
use crate::node::{BrokerAddress, TlsFiles};

/// Where the broker takes TLS connections, if anywhere.
pub(super) fn broker(layers: &mut Layers) -> Option<TlsConfig> {
    // Without it the files are the node's, on a machine that plays both roles.
    if !layers.is_set(&MQTTS_LISTEN) {
        return None;
    }
    let listen = layers.take(&MQTTS_LISTEN);
    let (certificate, key) = (layers.need(&TLS_CERT), layers.need(&TLS_KEY));
    let client_ca = layers.take(&TLS_CA);
    Some(TlsConfig { listen: listen?, certificate: certificate?, key: key?, client_ca })
}

/// The files of a node's TLS, where its broker's address asks for it.
pub(super) fn node(layers: &mut Layers, broker: Option<&BrokerAddress>) -> Option<TlsFiles> {
    if !broker.is_some_and(BrokerAddress::is_tls) {
        return None;
    }
    let ca = layers.take(&TLS_CA);
    let identity = match (layers.take(&TLS_CERT), layers.take(&TLS_KEY)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            layers.problem("HUMIDOR_TLS_CERT and HUMIDOR_TLS_KEY go together".to_owned());
            return None;
        }
    };
    Some(TlsFiles { ca, identity })
}
