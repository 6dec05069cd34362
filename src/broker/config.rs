//! The settings of the broker's role, typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::access::AccessConfig;
use crate::broker::alarm::config::AlarmConfig;
use crate::broker::net::limits::Limits;
use crate::broker::net::tls::TlsConfig;
use crate::mqtt::Filter;
use crate::store::Retention;
use crate::upstream::UpstreamConfig;
use crate::wire::Discovery;

/// The settings of the broker's role.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Folder of the log.
    pub data: PathBuf,
    /// Address of the MQTT listener. Port 0 lets the system choose one.
    pub mqtt_listen: SocketAddr,
    /// Filters of foreign topics to log.
    pub logged: Vec<Filter>,
    /// Longest wait to batch readings into one disk write.
    pub commit_window: Duration,
    /// Retention of the log.
    pub retention: Retention,
    /// The alarms.
    pub alarms: Vec<AlarmConfig>,
    /// Discovery by Home Assistant; `None`: the broker publishes nothing for it.
    pub discovery: Option<Discovery>,
    /// Users and anonymous access.
    pub access: AccessConfig,
    /// The TLS listener, if there is one.
    pub tls: Option<TlsConfig>,
    /// Limits on clients.
    pub limits: Limits,
    /// The upstream database, if there is one.
    pub upstream: Option<UpstreamConfig>,
}
