//! How the connection to the broker is, for health: noted by the session, read by whoever asks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::subscriptions::Missing;
use crate::clock::unix_ms;

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the monotonic clock.
    pub at: Instant,
    /// Unix time in ms UTC.
    pub unix_ms: i64,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { at: Instant::now(), unix_ms: unix_ms() }
    }
}

/// The connection at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The broker, where the node has several: the connected one, or the last one tried.
    pub broker: Option<String>,
    /// Since when the broker has accepted the connection; `None` without one.
    pub connected: Option<Moment>,
    /// Since when there is no connection, from the start on; `None` with one.
    pub disconnected: Option<Moment>,
    /// Since when no connection has proved itself, from the start on; `None` after one that has.
    pub unproved: Option<Moment>,
    /// The broker's last acknowledgement of a reading in this run.
    pub acknowledged: Option<Moment>,
    /// Why the last connection failed or ended, and when.
    pub error: Option<(String, Moment)>,
    /// Whether the broker has refused this node at the last attempt.
    pub rejected: bool,
    /// When connections last ended as those of two boards with one id do.
    pub twin: Option<Moment>,
    /// Topic filters that the broker refuses, does not answer, or that end the connection.
    pub refused: Vec<Missing>,
}

/// The connection, shared.
#[derive(Debug)]
pub struct Vitals(Mutex<Connection>);

impl Vitals {
    /// Of a run that begins.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Connection {
            broker: None,
            connected: None,
            disconnected: Some(Moment::now()),
            unproved: Some(Moment::now()),
            acknowledged: None,
            error: None,
            rejected: false,
            twin: None,
            refused: Vec::new(),
        }))
    }

    /// The next connection goes to this one of several brokers.
    pub fn selected(&self, broker: String) {
        self.lock().broker = Some(broker);
    }

    /// The node has ended the connection, to make another one.
    pub fn ended(&self) {
        let mut connection = self.lock();
        connection.connected = None;
        connection.disconnected.get_or_insert_with(Moment::now);
        connection.unproved.get_or_insert_with(Moment::now);
    }

    /// The broker has accepted the connection.
    pub fn connected(&self) {
        let mut connection = self.lock();
        (connection.connected, connection.disconnected) = (Some(Moment::now()), None);
        connection.rejected = false;
    }

    /// The connection has stood for some time, and something was acknowledged on it.
    pub fn proved(&self) {
        self.lock().unproved = None;
    }

    /// The broker has acknowledged a reading.
    pub fn acknowledged(&self) {
        self.lock().acknowledged = Some(Moment::now());
    }

    /// The connection failed or ended. `rejected`: the broker has refused this node.
    pub fn lost(&self, reason: &str, rejected: bool) {
        let mut connection = self.lock();
        connection.rejected = rejected;
        connection.connected = None;
        connection.disconnected.get_or_insert_with(Moment::now);
        connection.unproved.get_or_insert_with(Moment::now);
        connection.error = Some((reason.to_owned(), Moment::now()));
    }

    /// Whether the last connections ended as those of two boards with one id do.
    pub fn twin(&self, twin: bool) {
        if twin {
            self.lock().twin = Some(Moment::now());
        }
    }

    /// These subscriptions are refused now.
    pub fn refused(&self, filters: Vec<Missing>) {
        self.lock().refused = filters;
    }

    /// How the connection is now.
    #[must_use]
    pub fn snapshot(&self) -> Connection {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
