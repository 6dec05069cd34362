//! Access to the broker from the settings: users, TLS, and limits of one client.

use std::path::{Path, PathBuf};

use super::layers::Layers;
use super::settings::{
    ANONYMOUS, BYTE_RATE, CONNECTIONS, CONNECTIONS_PER_ADDRESS, CONNECTIONS_PER_USER,
    FILTER_LEVELS, MESSAGE_RATE, MQTTS_LISTEN, PASSWORD, SERIES, TLS_CA, TLS_CERT, TLS_KEY, USER,
    USERS_FILE,
};
use crate::broker::{self, AccessConfig, Limits, Password, TlsConfig};

/// The users file, and whether a setting names it.
pub(super) fn users_file(layers: &mut Layers, data: &Path) -> (PathBuf, bool) {
    match layers.take(&USERS_FILE) {
        Some(file) => (file, true),
        None => (data.join(broker::USERS_FILE), false),
    }
}

pub(super) fn access(layers: &mut Layers, data: &Path) -> Option<AccessConfig> {
    let (users_file, users_file_named) = users_file(layers, data);
    let user = match (layers.take(&USER), layers.take(&PASSWORD)) {
        (Some(name), Some(password)) => Some((name, Password(password))),
        (Some(_), None) => {
            layers.missing(
                "HUMIDOR_USER is set without a password: set HUMIDOR_PASSWORD_FILE".to_owned(),
            );
            None
        }
        // On a machine that plays both roles the password may be the node's.
        (None, _) => None,
    };
    let anonymous = layers.need(&ANONYMOUS);
    Some(AccessConfig {
        users_file: Some(users_file),
        users_file_named,
        user,
        anonymous: anonymous?,
        had_users: Some(data.join(broker::HAD_USERS_FILE)),
        known_clients: Some(data.join(broker::KNOWN_CLIENTS_FILE)),
    })
}

/// The port for TLS and its files; `None` when the setting is missing or has a mistake.
pub(super) fn tls(layers: &mut Layers) -> Option<TlsConfig> {
    // Without it the files are the node's, on a machine that plays both roles.
    if !layers.is_set(&MQTTS_LISTEN) {
        return None;
    }
    let listen = layers.take(&MQTTS_LISTEN);
    let (certificate, key) = (layers.need(&TLS_CERT), layers.need(&TLS_KEY));
    let client_ca = layers.take(&TLS_CA);
    Some(TlsConfig { listen: listen?, certificate: certificate?, key: key?, client_ca })
}

/// Limits of one client.
pub(super) fn limits(layers: &mut Layers) -> Option<Limits> {
    let connections = layers.need(&CONNECTIONS);
    let connections_per_address = layers.need(&CONNECTIONS_PER_ADDRESS);
    let connections_per_user = layers.need(&CONNECTIONS_PER_USER);
    let filter_levels = layers.need(&FILTER_LEVELS);
    let messages_per_second = layers.need(&MESSAGE_RATE);
    let bytes_per_second = layers.need(&BYTE_RATE);
    let series = layers.need(&SERIES);
    Some(Limits {
        connections: connections?,
        connections_per_address: connections_per_address?,
        connections_per_user: connections_per_user?,
        filter_levels: filter_levels?,
        messages_per_second: messages_per_second?,
        bytes_per_second: bytes_per_second?,
        series: series?,
    })
}
