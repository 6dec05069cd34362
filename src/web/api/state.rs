//! The state of the API's handlers, and the bound on its exports.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::{Alarms, LocalClient};
use crate::web::auth::Authenticator;
use crate::web::http_error::HttpError;
use crate::web::live::feed::Feed;
use crate::web::log_reader::LogReader;

/// Exports at once. Each occupies a thread for as long as its client reads.
const EXPORTS_MAX: usize = 2;

/// The sources of every answer.
#[derive(Clone)]
pub struct ApiState {
    /// Identifies this run of the broker.
    pub run: Arc<str>,
    /// When this run began, Unix ms UTC.
    pub started_ms: i64,
    /// The broker's address for boards, where it is known.
    pub mqtt_host: Option<IpAddr>,
    /// Its port for MQTT.
    pub mqtt_port: u16,
    /// The log.
    pub log: LogReader,
    /// The boards.
    pub feed: Feed,
    /// The alarms.
    pub alarms: Alarms,
    /// Publishes commands.
    pub local_client: LocalClient,
    /// The users.
    pub authenticator: Authenticator,
    /// Bounds the exports.
    pub exports: ExportLimit,
}

/// Bounds the exports that run at once. Clones share the bound.
#[derive(Debug, Clone)]
pub struct ExportLimit(Arc<Semaphore>);

impl Default for ExportLimit {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(EXPORTS_MAX)))
    }
}

impl ExportLimit {
    /// The permit for one export; it ends when dropped.
    ///
    /// # Errors
    /// 503 while [`EXPORTS_MAX`] exports are running.
    pub fn acquire(&self) -> Result<OwnedSemaphorePermit, HttpError> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            HttpError::unavailable(format!("{EXPORTS_MAX} exports are running; try again later"))
        })
    }
}
