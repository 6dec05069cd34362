//! The state of the API's handlers, and the bound on its exports.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::{Alarms, Counters, LocalClient};
use crate::web::auth::Authenticator;
use crate::web::http_error::HttpError;
use crate::web::live::feed::Feed;
use crate::web::log_reader::LogReader;
use crate::web::turns::Turns;

/// Exports at once, and of one user or, without a login, of all guests. Each occupies a thread for as long as its client reads.
const EXPORTS_MAX: usize = 4;
const EXPORTS_PER_USER_MAX: usize = 2;

/// The sources of every answer.
#[derive(Clone)]
pub struct ApiState {
    /// Identifies this run of the broker.
    pub run: Arc<str>,
    /// When this run began, Unix ms UTC.
    pub started_ms: i64,
    /// The broker's address for boards, where it is known.
    pub mqtt_host: Option<IpAddr>,
    /// Where it listens for MQTT.
    pub mqtt: SocketAddr,
    /// The log.
    pub log: LogReader,
    /// Bounds the answers that are made at once.
    pub turns: Turns,
    /// The boards.
    pub feed: Feed,
    /// The alarms.
    pub alarms: Alarms,
    /// Counters of the broker, with the forwarder's state.
    pub counters: Arc<Counters>,
    /// Publishes commands.
    pub local_client: LocalClient,
    /// The users.
    pub authenticator: Authenticator,
    /// Bounds the exports.
    pub exports: ExportLimit,
}

/// Bounds the exports that run at once. Clones share the bound.
#[derive(Debug, Clone)]
pub struct ExportLimit {
    places: Arc<Semaphore>,
    of_user: Arc<Mutex<HashMap<Option<Arc<str>>, usize>>>,
}

impl Default for ExportLimit {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(EXPORTS_MAX)), of_user: Arc::default() }
    }
}

/// The right to one export; released when dropped.
#[derive(Debug)]
pub struct ExportPermit {
    limit: ExportLimit,
    user: Option<Arc<str>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for ExportPermit {
    fn drop(&mut self) {
        let mut of_user = self.limit.of_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = of_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                of_user.remove(&self.user);
            }
        }
    }
}

impl ExportLimit {
    /// The permit for one export of `user`.
    ///
    /// # Errors
    /// 503 while [`EXPORTS_MAX`] exports are running, or [`EXPORTS_PER_USER_MAX`] of this user.
    pub fn acquire(&self, user: Option<Arc<str>>) -> Result<ExportPermit, HttpError> {
        let mut of_user = self.of_user.lock().unwrap_or_else(PoisonError::into_inner);
        let own = of_user.get(&user).copied().unwrap_or_default();
        if own >= EXPORTS_PER_USER_MAX {
            return Err(HttpError::unavailable(format!(
                "{own} exports of this user are running; try again later"
            )));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            HttpError::unavailable(format!("{EXPORTS_MAX} exports are running; try again later"))
        })?;
        *of_user.entry(user.clone()).or_default() += 1;
        Ok(ExportPermit { limit: self.clone(), user, _place: place })
    }
}
