//! Who may connect to the broker and how much one client may take, from the settings.

use std::path::{Path, PathBuf};

use super::layers::Layers;
use super::settings::{
    ANONYMOUS, BYTE_RATE, CONNECTIONS, CONNECTIONS_PER_ADDRESS, MESSAGE_RATE, PASSWORD, USER,
    USERS_FILE,
};
use crate::broker::{self, AccessConfig, Limits, Password};

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
            layers.problem(
                "HUMIDOR_USER is set and has no password: set HUMIDOR_PASSWORD_FILE".to_owned(),
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
    })
}

/// What one client may take from the others.
pub(super) fn limits(layers: &mut Layers) -> Option<Limits> {
    let connections = layers.need(&CONNECTIONS);
    let connections_per_address = layers.need(&CONNECTIONS_PER_ADDRESS);
    let messages_per_second = layers.need(&MESSAGE_RATE);
    let bytes_per_second = layers.need(&BYTE_RATE);
    Some(Limits {
        connections: connections?,
        connections_per_address: connections_per_address?,
        messages_per_second: messages_per_second?,
        bytes_per_second: bytes_per_second?,
    })
}
