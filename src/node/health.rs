//! How the node is: for `humidor health`, and for its retained message.
//!
//! A node is healthy while readings leave, or may wait without loss. It is degraded when somebody should look at it. It
//! still works then: a restart would only lose what waits in memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::delivery::inflight::READINGS_IN_FLIGHT;
use super::delivery::outbox::Outbox;
use super::delivery::subscriptions::Purpose;
use super::delivery::vitals::{Connection, Vitals};
use super::io::switches::Switches;
use super::sampling::reads::Reads;
use crate::clock::Stamper;
use crate::health::State;
use crate::reading::Id;
use crate::wire::Health;

/// Longest time without a broker, or without an acknowledgement while readings wait, that is no cause to look: a broker
/// restarts within it.
const PATIENCE: Duration = Duration::from_mins(5);

/// Longest time that a reading is on its way to the broker and back.
const ON_THE_WAY: Duration = Duration::from_secs(30);
/// How long a node tells that another board has its id, after the last sign of it.
const TWIN_TOLD: Duration = Duration::from_mins(10);

/// What the node knows of itself.
#[derive(Debug)]
pub struct NodeHealth {
    pub(super) outbox: Arc<Outbox>,
    pub(super) stamper: Stamper,
    pub(super) reads: Reads,
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
    outputs: &'a BTreeMap<Id, String>,
}

impl Facts<'_> {
    /// What somebody should look at.
    fn complaints(&self, now: Instant) -> Vec<String> {
        let connection = self.connection;
        let long =
            |since: Instant| Some(now.saturating_duration_since(since)).filter(|it| *it > PATIENCE);
        let outputs = self.outputs.iter();
        let mut complaints: Vec<String> =
            outputs.map(|(name, fault)| format!("output `{name}` {fault}")).collect();
        if let Some(cause) = self.write_error {
            complaints.push(format!("the outbox cannot write: {cause}"));
        }
        if self.depth > self.capacity / 2 && self.is_backlog(now) {
            complaints.push(format!(
                "the outbox is more than half full ({} of {} readings); beyond that the oldest are lost",
                self.depth, self.capacity
            ));
        }
        let unacknowledged = self.waiting_since.and_then(|waiting| {
            long(connection.acknowledged.map_or(waiting, |last| last.at.max(waiting)))
        });
        if connection.twin.is_some_and(|last| now.saturating_duration_since(last.at) < TWIN_TOLD) {
            complaints.push(
                "the broker accepts connections and closes them: another board may use this node id, so that they take each other's connection (give each board its own HUMIDOR_NODE), or the broker restarts again and again; its log says which"
                    .to_owned(),
            );
        }
        if let (true, Some((reason, _))) = (connection.rejected, &connection.error) {
            complaints.push(reason.clone());
        } else if let Some(time) = connection.disconnected.and_then(|since| long(since.at)) {
            complaints.push(format!("no broker for {}", words(time)));
        } else if let Some(time) = unacknowledged {
            complaints.push(format!("the broker has acknowledged nothing for {}", words(time)));
        } else if let Some(time) = connection.unproved.and_then(|since| long(since.at)) {
            complaints.push(format!(
                "no connection has lasted for {}, or nothing was acknowledged on it",
                words(time)
            ));
        }
        for missing in &connection.refused {
            let filter = &missing.filter;
            match (missing.left_out, missing.purpose) {
                (true, Purpose::Commands) => complaints.push(format!(
                    "the broker ends the connection at the subscription to {filter}, so it is left out: commands do not arrive"
                )),
                (true, Purpose::Birth) => complaints.push(format!(
                    "the broker ends the connection at the subscription to {filter}, so it is left out"
                )),
                (false, Purpose::Commands) => complaints
                    .push(format!("no subscription to {filter}: commands do not arrive")),
                // Home Assistant finds the node all the same, at the node's next connection at the latest.
                (false, Purpose::Birth) => {}
            }
        }
        complaints
    }

    /// Whether readings wait for more than their acknowledgement: a small outbox is half full of those that are on their way.
    fn is_backlog(&self, now: Instant) -> bool {
        self.connection.disconnected.is_some()
            || self.depth > READINGS_IN_FLIGHT as u64
            || self.waiting_since.is_some_and(|since| since + ON_THE_WAY <= now)
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
        let complaints = self.complaints(&connection, &self.switches.faults(), now);
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
            let to = connection.broker.iter().flat_map(|broker| [" to ", broker]);
            let to: String = to.collect();
            let _ = write!(text, "; connected{to} for {}", ago(connected.at));
        }
        if let Some(last) = connection.acknowledged {
            let _ = write!(text, "; last acknowledgement {} ago", ago(last.at));
        }
        // Not worth a complaint, and said all the same.
        for missing in connection.refused.iter().filter(|missing| !missing.left_out) {
            let _ = write!(text, "; no subscription to {}", missing.filter);
        }
        if let Some((error, at)) = connection.error.as_ref().filter(|_| !connection.rejected) {
            let _ = write!(text, "; last error {} ago: {error}", ago(at.at));
        }
        (state, text)
    }

    fn complaints(
        &self,
        connection: &Connection,
        outputs: &BTreeMap<Id, String>,
        now: Instant,
    ) -> Vec<String> {
        let write_error = self.outbox.write_error();
        let facts = Facts {
            connection,
            depth: self.outbox.depth(),
            capacity: self.outbox.capacity(),
            waiting_since: self.outbox.waiting_since(),
            write_error: write_error.as_deref(),
            outputs,
        };
        facts.complaints(now)
    }

    /// The retained message.
    #[must_use]
    pub fn message(&self) -> Health {
        let (now, outbox) = (self.stamper.now(), &self.outbox);
        let (connection, outputs) = (self.vitals.snapshot(), self.switches.faults());
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
            failures: self.reads.failures(),
            reads_1h: self.reads.last_hour(Instant::now()),
            complaints: self.complaints(&connection, &outputs, Instant::now()),
            output_faults: outputs.into_iter().map(|(name, why)| (name.to_string(), why)).collect(),
            connected_at: connection.connected.map(|since| since.unix_ms),
            acknowledged_at: connection.acknowledged.map(|last| last.unix_ms),
            oldest_at: outbox.oldest_at(),
            last_error: connection.error.as_ref().map(|(error, _)| error.clone()),
            last_error_at: connection.error.as_ref().map(|(_, at)| at.unix_ms),
            refused: connection.refused.into_iter().map(|missing| missing.filter).collect(),
            disk_free: outbox.free_bytes(),
            passed_over: self.switches.passed_over(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::delivery::subscriptions::Missing;
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
            broker: None,
            connected: Some(at(start, 1)),
            disconnected: None,
            unproved: None,
            acknowledged: Some(at(start, 59)),
            error: None,
            rejected: false,
            twin: None,
            refused: Vec::new(),
        };
        let complaints =
            |connection: &Connection, depth, waiting_since: Option<Moment>, write_error| {
                let waiting_since = waiting_since.map(|since| since.at);
                let capacity = 100;
                let outputs = &BTreeMap::new();
                let facts =
                    Facts { connection, depth, capacity, waiting_since, write_error, outputs };
                facts.complaints(now).join(" | ")
            };
        assert_eq!(complaints(&right, 0, None, None), "");
        // Half full of what comes and goes, and a reading just taken after a long pause.
        let paused = Connection { acknowledged: Some(at(start, 1)), ..right.clone() };
        assert_eq!(complaints(&paused, 50, Some(at(start, 59)), None), "");
        assert_eq!(complaints(&right, 50, Some(at(start, 2)), None), "");
        for (found, part) in [
            (complaints(&right, 51, Some(at(start, 59)), None), "more than half full"),
            (complaints(&right, 0, None, Some("disk full")), "cannot write: disk full"),
            (complaints(&paused, 1, Some(at(start, 2)), None), "acknowledged nothing for 58 min"),
        ] {
            assert!(found.contains(part) && !found.contains('|'), "{found}");
        }
        let away =
            Connection { connected: None, disconnected: Some(at(start, 54)), ..right.clone() };
        assert_eq!(complaints(&away, 0, None, None), "no broker for 6 min");
        let twin = Connection { twin: Some(at(start, 55)), ..right.clone() };
        assert!(complaints(&twin, 0, None, None).contains("another board may use this node id"));
        let long_ago = Connection { twin: Some(at(start, 45)), ..twin };
        assert_eq!(complaints(&long_ago, 0, None, None), "");
        let error = Some(("broker refused user `plant`".to_owned(), at(start, 60)));
        let rejected = Connection { rejected: true, error, ..away.clone() };
        assert_eq!(complaints(&rejected, 0, None, None), "broker refused user `plant`");
        let restarting = Connection { disconnected: Some(at(start, 56)), ..away };
        assert_eq!(complaints(&restarting, 9, Some(at(start, 56)), None), "");
        let missing = |purpose, left_out| Missing { filter: "a/+".to_owned(), purpose, left_out };
        for (purpose, left_out, part) in [
            (Purpose::Commands, false, "no subscription to a/+: commands do not arrive"),
            (Purpose::Commands, true, "left out: commands do not arrive"),
            (Purpose::Birth, true, "left out"),
            (Purpose::Birth, false, ""),
        ] {
            let refused = Connection { refused: vec![missing(purpose, left_out)], ..right.clone() };
            let found = complaints(&refused, 0, None, None);
            assert!(found.contains(part) && found.is_empty() == part.is_empty(), "{found}");
        }
        // Connections come and go, and no reading waits.
        let flapping = Connection { unproved: Some(at(start, 50)), ..right };
        assert!(complaints(&flapping, 0, None, None).contains("no connection has lasted for 10"));
    }

    #[test]
    fn an_outbox_of_one_reading_is_no_cause_to_look_while_readings_leave() {
        let now = Instant::now() + Duration::from_mins(1);
        let found = |seconds, disconnected: bool| {
            let moment = Moment { at: now, unix_ms: 0 };
            let connection = Connection {
                broker: None,
                connected: (!disconnected).then_some(moment),
                disconnected: disconnected.then_some(moment),
                unproved: None,
                acknowledged: Some(moment),
                error: None,
                rejected: false,
                twin: None,
                refused: Vec::new(),
            };
            let waiting_since = now.checked_sub(Duration::from_secs(seconds));
            let facts = Facts {
                connection: &connection,
                depth: 1,
                capacity: 1,
                waiting_since,
                write_error: None,
                outputs: &BTreeMap::new(),
            };
            facts.complaints(now).len()
        };
        assert_eq!(
            (found(0, false), found(29, false), found(30, false), found(0, true)),
            (0, 0, 1, 1)
        );
    }
}
