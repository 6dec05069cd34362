//! Who may connect to the broker, from the settings.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::layers::{Layers, Problems};
use super::node::data_folder;
use super::parse::choice;
use crate::broker::{AccessConfig, Anonymous, Limits, Password, TlsConfig, USERS_FILE, check_name};
use crate::node::{BrokerAddress, TlsFiles};

/// The users file as set, or the one in the data folder.
///
/// # Errors
/// Every mistake.
pub fn users_file(mut layers: Layers) -> Result<PathBuf, Problems> {
    let file = data_folder(&mut layers).map(|data| file(&mut layers, &data).0);
    layers.finish(file)
}

fn file(layers: &mut Layers, data: &Path) -> (PathBuf, bool) {
    match layers.take("users_file", |text| Ok::<_, String>(PathBuf::from(text))) {
        Some(file) => (file, true),
        None => (data.join(USERS_FILE), false),
    }
}

pub(super) fn access(layers: &mut Layers, data: &Path) -> Option<AccessConfig> {
    let (users_file, users_file_named) = file(layers, data);
    let name = layers.take("user", |text| check_name(text).map(|()| text.to_owned()));
    let user = match (name, layers.get("password")) {
        (Some(name), Some((password, _))) => Some((name, Password(password))),
        (Some(_), None) => {
            layers.problem(
                "HUMIDOR_USER is set and has no password: set HUMIDOR_PASSWORD_FILE".to_owned(),
            );
            None
        }
        // On a machine that plays both roles the password may be the node's.
        (None, _) => None,
    };
    let anonymous = layers.need("anonymous", |text| {
        let known = [("auto", Anonymous::Auto), ("yes", Anonymous::Yes), ("no", Anonymous::No)];
        choice(text, &known)
    });
    Some(AccessConfig {
        users_file: Some(users_file),
        users_file_named,
        user,
        anonymous: anonymous?,
    })
}

fn path(layers: &mut Layers, key: &'static str) -> Option<PathBuf> {
    layers.take(key, |text| Ok::<_, String>(PathBuf::from(text)))
}

/// Where the broker speaks TLS, if anywhere.
pub(super) fn tls(layers: &mut Layers) -> Option<TlsConfig> {
    // Without it the files are the node's, on a machine that plays both roles.
    layers.get("mqtts_listen")?;
    let listen = layers.take("mqtts_listen", |text| {
        text.parse::<SocketAddr>()
            .map_err(|_| format!("`{text}` is not an address with a port: 0.0.0.0:8883"))
    });
    let own = |text: &str| Ok::<_, String>(PathBuf::from(text));
    let (certificate, key) = (layers.need("tls_cert", own), layers.need("tls_key", own));
    let client_ca = path(layers, "tls_ca");
    Some(TlsConfig { listen: listen?, certificate: certificate?, key: key?, client_ca })
}

/// The files of a node's TLS, where its broker's address asks for it.
pub(super) fn node_tls(layers: &mut Layers, broker: Option<&BrokerAddress>) -> Option<TlsFiles> {
    if !broker.is_some_and(BrokerAddress::is_tls) {
        return None;
    }
    let ca = path(layers, "tls_ca");
    let identity = match (path(layers, "tls_cert"), path(layers, "tls_key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            layers.problem("HUMIDOR_TLS_CERT and HUMIDOR_TLS_KEY go together".to_owned());
            return None;
        }
    };
    Some(TlsFiles { ca, identity })
}

fn number(
    layers: &mut Layers,
    key: &'static str,
    range: &RangeInclusive<u32>,
    or_none: bool,
) -> Option<u32> {
    layers.need(key, |text| {
        text.parse::<u32>()
            .ok()
            .filter(|number| range.contains(number) || (or_none && *number == 0))
            .ok_or_else(|| {
                let none = if or_none { ", or 0 for no limit" } else { "" };
                format!("`{text}` is not a number from {} to {}{none}", range.start(), range.end())
            })
    })
}

/// What one client may take from the others.
pub(super) fn limits(layers: &mut Layers) -> Option<Limits> {
    let clients = 1..=100_000;
    let connections = number(layers, "connections", &clients, false);
    let connections_per_address = number(layers, "connections_per_address", &clients, false);
    let messages_per_second = number(layers, "message_rate", &(1..=u32::MAX), true);
    let bytes_per_second = number(layers, "byte_rate", &(1024..=u32::MAX), true);
    Some(Limits {
        connections: connections? as usize,
        connections_per_address: connections_per_address? as usize,
        messages_per_second: messages_per_second?,
        bytes_per_second: bytes_per_second?,
    })
}
