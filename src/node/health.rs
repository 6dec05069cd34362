//! How the node is: for `humidor health`, and for its retained message.
//!
//! A node is healthy while readings leave, or may wait without loss. It is degraded when somebody should look at it. It
//! still works then: a restart would only lose what waits in memory.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::outbox::Outbox;
use super::delivery::vitals::{Connection, Vitals};
use super::io::switches::Switches;
use super::sampling::sampler::Failures;
use crate::clock::Stamper;
use crate::health::State;
use crate::wire::Health;

/// Longest time without a broker, or without an acknowledgement while readings wait, that is no cause to look: a broker
/// restarts within it.
const PATIENCE: Duration = Duration::from_mins(5);

/// What the node knows of itself.
#[derive(Debug)]
pub struct NodeHealth {
    pub(super) outbox: Arc<Outbox>,
    pub(super) stamper: Stamper,
    pub(super) failures: Failures,
    pub(super) switches: Arc<Switches>,
    pub(super) vitals: Arc<Vitals>,
}

/// What decides whether a node is healthy.
#[derive(Debug)]
struct Facts<'a> {
    connection: &'a Connection,
    depth: u64,
    capacity: u64,
    waiting_since: Option<Instant>,
    write_error: Option<&'a str>,
}

impl Facts<'_> {
    /// What somebody should look at.
    fn complaints(&self, now: Instant) -> Vec<String> {
        let connection = self.connection;
        let long =
            |since: Instant| Some(now.saturating_duration_since(since)).filter(|it| *it > PATIENCE);
        let mut complaints = Vec::new();
        if let Some(cause) = self.write_error {
            complaints.push(format!("the outbox cannot write: {cause}"));
        }
        if self.depth > self.capacity / 2 {
            complaints.push(format!(
                "the outbox is more than half full ({} of {} readings); beyond that the oldest are lost",
                self.depth, self.capacity
            ));
        }
        if let Some(time) = connection.disconnected.and_then(|since| long(since.at)) {
            complaints.push(format!("no broker for {}", words(time)));
        } else if let Some(waiting) = self.waiting_since {
            let last = connection.acknowledged.map_or(waiting, |last| last.at.max(waiting));
            if let Some(time) = long(last) {
                complaints.push(format!("the broker has acknowledged nothing for {}", words(time)));
            }
        }
        if !connection.refused.is_empty() {
            complaints.push(format!(
                "no subscription to {}: commands do not arrive",
                connection.refused.join(" and ")
            ));
        }
        complaints
    }
}

/// A time in whole seconds or minutes.
fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

impl NodeHealth {
    /// The state, and the text that explains it.
    #[must_use]
    pub fn assess(&self) -> (State, String) {
        let (connection, now) = (self.vitals.snapshot(), Instant::now());
        let complaints = self.complaints(&connection, now);
        let state = if complaints.is_empty() { State::Healthy } else { State::Degraded };
        let outbox = &self.outbox;
        let mut text: String = complaints.iter().flat_map(|one| [one, "; "]).collect();
        let _ = write!(
            text,
            "{} readings taken in this run, {} queued ({}), {} lost",
            outbox.taken(),
            outbox.depth(),
            outbox.kind().as_str(),
            outbox.dropped()
        );
        let ago = |at: Instant| words(now.saturating_duration_since(at));
        if let Some(connected) = connection.connected {
            let _ = write!(text, "; connected for {}", ago(connected.at));
        }
        if let Some(last) = connection.acknowledged {
            let _ = write!(text, "; last acknowledgement {} ago", ago(last.at));
        }
        if let Some((error, at)) = &connection.error {
            let _ = write!(text, "; last error {} ago: {error}", ago(at.at));
        }
        (state, text)
    }

    fn complaints(&self, connection: &Connection, now: Instant) -> Vec<String> {
        let write_error = self.outbox.write_error();
        let facts = Facts {
            connection,
            depth: self.outbox.depth(),
            capacity: self.outbox.capacity(),
            waiting_since: self.outbox.waiting_since(),
            write_error: write_error.as_deref(),
        };
        facts.complaints(now)
    }

    /// The retained message.
    #[must_use]
    pub fn message(&self) -> Health {
        let (now, outbox) = (self.stamper.now(), &self.outbox);
        let connection = self.vitals.snapshot();
        Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("HUMIDOR_REVISION").map(str::to_owned),
            boot: outbox.boot().clone(),
            at: now.at_ms,
            clock: now.clock,
            taken: outbox.taken(),
            outbox: outbox.depth(),
            dropped: outbox.dropped(),
            outbox_kind: outbox.kind().as_str().to_owned(),
            failures: self.failures.snapshot(),
            complaints: self.complaints(&connection, Instant::now()),
            connected_at: connection.connected.map(|since| since.unix_ms),
            acknowledged_at: connection.acknowledged.map(|last| last.unix_ms),
            oldest_at: outbox.oldest_at(),
            last_error: connection.error.as_ref().map(|(error, _)| error.clone()),
            last_error_at: connection.error.as_ref().map(|(_, at)| at.unix_ms),
            refused: connection.refused,
            disk_free: outbox.free_bytes(),
            passed_over: self.switches.passed_over(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::delivery::vitals::Moment;
    use super::*;

    fn at(start: Instant, minutes: u64) -> Moment {
        Moment { at: start + Duration::from_mins(minutes), unix_ms: 0 }
    }

    #[test]
    fn a_node_is_degraded_when_somebody_should_look() {
        let start = Instant::now();
        let now = at(start, 60).at;
        let right = Connection {
            connected: Some(at(start, 1)),
            disconnected: None,
            acknowledged: Some(at(start, 59)),
            error: None,
            refused: Vec::new(),
        };
        let complaints =
            |connection: &Connection, depth, waiting_since: Option<Moment>, write_error| {
                let waiting_since = waiting_since.map(|since| since.at);
                let facts = Facts { connection, depth, capacity: 100, waiting_since, write_error };
                facts.complaints(now).join(" | ")
            };
        assert_eq!(complaints(&right, 0, None, None), "");
        // Half full of what comes and goes, and a reading just taken after a long pause.
        let paused = Connection { acknowledged: Some(at(start, 1)), ..right.clone() };
        assert_eq!(complaints(&paused, 50, Some(at(start, 59)), None), "");
        assert_eq!(complaints(&right, 50, Some(at(start, 2)), None), "");
        for (found, part) in [
            (complaints(&right, 51, None, None), "more than half full"),
            (complaints(&right, 0, None, Some("disk full")), "cannot write: disk full"),
            (complaints(&paused, 1, Some(at(start, 2)), None), "acknowledged nothing for 58 min"),
        ] {
            assert!(found.contains(part) && !found.contains('|'), "{found}");
        }
        let away =
            Connection { connected: None, disconnected: Some(at(start, 54)), ..right.clone() };
        assert_eq!(complaints(&away, 0, None, None), "no broker for 6 min");
        let restarting = Connection { disconnected: Some(at(start, 56)), ..away };
        assert_eq!(complaints(&restarting, 9, Some(at(start, 56)), None), "");
        let refused = Connection { refused: vec!["a/+".to_owned()], ..right };
        assert!(complaints(&refused, 0, None, None).contains("no subscription to a/+"));
    }
}
