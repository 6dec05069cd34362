//! The broker's role from the settings, and the demo's, which is a broker with other defaults.

use std::net::SocketAddr;

use super::access;
use super::layers::Layers;
use super::problem::Problems;
use super::settings::{
    ALARMS, COMMIT_WINDOW, DATA, DISCOVERY, HTTP_GUESTS, HTTP_HOSTS, HTTP_LISTEN, KEEP_RAW,
    LOGGED_FILTERS, MAX_DB, MQTT_LISTEN, UPSTREAM,
};
use super::upstream;
use crate::broker::{AccessConfig, AlarmConfig, AlarmRule, Anonymous, BrokerConfig};
use crate::store::Retention;
use crate::web::{Guests, WebConfig};

/// The settings of `humidor broker`.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The broker.
    pub broker: BrokerConfig,
    /// Where HTTP clients connect, if anywhere. Port 0 lets the system choose.
    pub http_listen: Option<SocketAddr>,
    /// What they may do.
    pub web: WebConfig,
}

/// The settings of `humidor demo`.
#[derive(Debug, Clone)]
pub struct Demo {
    /// Its broker and web.
    pub server: ServerConfig,
    /// Whether the data folder was set.
    pub data_is_set: bool,
    /// Whether the address for MQTT clients was set.
    pub mqtt_is_set: bool,
    /// Whether the address for HTTP clients was set.
    pub http_is_set: bool,
}

/// The broker's configuration.
///
/// # Errors
/// Every mistake.
pub fn broker(mut layers: Layers) -> Result<ServerConfig, Problems> {
    let config = fields(&mut layers);
    layers.finish(config)
}

/// The demo's configuration.
///
/// # Errors
/// Every mistake.
pub fn demo(mut layers: Layers) -> Result<Demo, Problems> {
    let demo = fields(&mut layers).map(|mut server| {
        // Its boards have no passwords, and a real board may join.
        server.broker.access =
            AccessConfig { anonymous: Anonymous::Yes, ..AccessConfig::default() };
        // Simulated readings go nowhere.
        server.broker.upstream = None;
        // A phone may see the page too; the demo has no real data.
        if !layers.is_set(&HTTP_GUESTS) {
            server.web.guests = Guests::Read;
        }
        Demo {
            server,
            data_is_set: layers.is_set(&DATA),
            mqtt_is_set: layers.is_set(&MQTT_LISTEN),
            http_is_set: layers.is_set(&HTTP_LISTEN),
        }
    });
    layers.finish(demo)
}

pub(super) fn fields(layers: &mut Layers) -> Option<ServerConfig> {
    let data = layers.need(&DATA);
    let mqtt_listen = layers.need(&MQTT_LISTEN);
    let http_listen = layers.need(&HTTP_LISTEN);
    let (guests, hosts) = (layers.need(&HTTP_GUESTS), layers.need(&HTTP_HOSTS));
    let logged = layers.need(&LOGGED_FILTERS);
    let retention = retention(layers);
    let commit_window = layers.need(&COMMIT_WINDOW);
    let alarms = layers.need(&ALARMS);
    let discovery = layers.need(&DISCOVERY);
    let access = data.as_deref().and_then(|data| access::access(layers, data));
    let (tls, limits) = (access::tls(layers), access::limits(layers));
    let upstream =
        retention.and_then(|retention| upstream::forwarding(layers, retention.max_bytes));
    let watches = |alarm: &&AlarmConfig| matches!(alarm.rule, AlarmRule::Upstream { .. });
    if let Some(alarm) = alarms.as_ref().and_then(|alarms| alarms.iter().find(watches))
        && !layers.is_set(&UPSTREAM)
    {
        layers.missing(format!(
            "alarm `{}` watches the copy in PostgreSQL, and HUMIDOR_UPSTREAM is not set",
            alarm.name
        ));
    }
    let broker = BrokerConfig {
        data: data?,
        access: access?,
        tls,
        limits: limits?,
        mqtt_listen: mqtt_listen?,
        logged: logged?,
        commit_window: commit_window?,
        retention: retention?,
        alarms: alarms?,
        discovery: discovery?,
        upstream,
    };
    let web = WebConfig { guests: guests?, hosts: hosts? };
    Some(ServerConfig { broker, http_listen: http_listen?, web })
}

/// Limits of the log's age and size.
pub(super) fn retention(layers: &mut Layers) -> Option<Retention> {
    let (keep_raw, max_bytes) = (layers.need(&KEEP_RAW), layers.need(&MAX_DB));
    Some(Retention { keep_raw: keep_raw?, max_bytes: max_bytes? })
}
