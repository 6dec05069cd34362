//! The upstream database from the settings.

use std::path::PathBuf;

use super::layers::Layers;
use super::problem::Problems;
use super::settings::{
    ACK, DATA, UPSTREAM, UPSTREAM_BACKLOG, UPSTREAM_CA, UPSTREAM_PASSWORD, UPSTREAM_TLS,
};
use crate::upstream::{Acknowledge, Secret, Target, UpstreamConfig};

/// Size of the queue in bytes where none is set: five million readings.
const BACKLOG_BYTES: u64 = 256 * 1024 * 1024;

/// What the broker forwards to, and how; `None` when nothing is set or has a mistake. `max_db` is the limit of the log.
pub(super) fn forwarding(layers: &mut Layers, max_db: u64) -> Option<UpstreamConfig> {
    let acknowledge = layers.need(&ACK);
    if !layers.is_set(&UPSTREAM) {
        if acknowledge == Some(Acknowledge::Upstream) {
            layers.missing(
                "HUMIDOR_ACK=upstream needs HUMIDOR_UPSTREAM, the database that it waits for"
                    .to_owned(),
            );
        }
        return None;
    }
    let target = fields(layers);
    let backlog = if layers.is_set(&UPSTREAM_BACKLOG) {
        let set = layers.take(&UPSTREAM_BACKLOG);
        if set.is_some_and(|bytes| bytes > max_db / 2) {
            layers.problem(
                "HUMIDOR_UPSTREAM_BACKLOG is more than half of HUMIDOR_MAX_DB, and the log needs the rest: raise HUMIDOR_MAX_DB, or lower it"
                    .to_owned(),
            );
        }
        set
    } else {
        Some(BACKLOG_BYTES.min(max_db / 4))
    };
    Some(UpstreamConfig { target: target?, acknowledge: acknowledge?, backlog_bytes: backlog? })
}

/// The upstream database.
///
/// # Errors
/// Every mistake.
pub fn upstream(mut layers: Layers) -> Result<Target, Problems> {
    let target = fields(&mut layers);
    layers.finish(target)
}

/// The data folder, and the upstream database.
///
/// # Errors
/// Every mistake.
pub fn data_and_target(mut layers: Layers) -> Result<(PathBuf, Target), Problems> {
    let data = layers.need(&DATA);
    let target = fields(&mut layers);
    layers.finish(data.zip(target))
}

/// The data folder, and the upstream database if one is set.
///
/// # Errors
/// Every mistake.
pub fn data_and_upstream(mut layers: Layers) -> Result<(PathBuf, Option<Target>), Problems> {
    let data = layers.need(&DATA);
    let target = if layers.is_set(&UPSTREAM) { fields(&mut layers).map(Some) } else { Some(None) };
    layers.finish(data.zip(target))
}

fn fields(layers: &mut Layers) -> Option<Target> {
    let address = layers.need(&UPSTREAM);
    let password = layers.take(&UPSTREAM_PASSWORD).map(Secret);
    let tls = layers.need(&UPSTREAM_TLS);
    let ca_is_set = layers.is_set(&UPSTREAM_CA);
    let ca: Option<PathBuf> = layers.take(&UPSTREAM_CA);
    if ca_is_set && tls == Some(Some(false)) {
        layers.problem(
            "HUMIDOR_UPSTREAM_CA is set, and HUMIDOR_UPSTREAM_TLS=no: leave one of them out"
                .to_owned(),
        );
    }
    let address = address?;
    let tls = tls?.unwrap_or_else(|| ca_is_set || !address.is_loopback());
    Some(Target { address, password, tls, ca })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_DB: u64 = 1 << 30;

    fn read(flags: &[(&'static str, &str)]) -> Result<Option<UpstreamConfig>, String> {
        let flags: Vec<_> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let mut layers = Layers::new(&flags, []);
        let config = forwarding(&mut layers, MAX_DB);
        layers.finish(Some(config)).map_err(|problems| problems.to_string())
    }

    const LOCAL: (&str, &str) = ("upstream", "postgres://h@127.0.0.1/humidor");
    const REMOTE: (&str, &str) = ("upstream", "postgres://h@127.0.0.1,pg2/humidor");

    #[test]
    fn without_an_address_there_is_no_upstream() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[("ack", "upstream")]).unwrap_err().contains("needs HUMIDOR_UPSTREAM"));
    }

    #[test]
    fn tls_is_left_out_on_loopback_or_when_that_is_said() {
        let tls = |flags: &[_]| read(flags).unwrap().unwrap().target.tls;
        assert!(!tls(&[LOCAL]));
        assert!(tls(&[LOCAL, ("upstream_ca", "/ca.pem")]));
        assert!(tls(&[LOCAL, ("upstream_tls", "yes")]));
        assert!(tls(&[REMOTE]));
        assert!(!tls(&[REMOTE, ("upstream_tls", "no")]));
        let error = read(&[REMOTE, ("upstream_tls", "no"), ("upstream_ca", "/ca.pem")]);
        assert!(error.unwrap_err().contains("leave one of them out"));
    }

    #[test]
    fn the_queue_leaves_room_for_the_log() {
        let bytes = |flags: &[_]| read(flags).map(|config| config.unwrap().backlog_bytes);
        assert_eq!(bytes(&[LOCAL]), Ok(256 << 20));
        assert_eq!(bytes(&[LOCAL, ("upstream_backlog", "512MiB")]), Ok(512 << 20));
        let error = bytes(&[LOCAL, ("upstream_backlog", "513MiB")]).unwrap_err();
        assert!(error.contains("HUMIDOR_MAX_DB"), "{error}");
        assert!(bytes(&[LOCAL, ("upstream_backlog", "1KiB")]).is_err());
    }
}
