//! Watches committed readings, what boards say of themselves, and the upstream database, and reports each change of an
//! alarm: on MQTT, in the log, and by commands to outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::sleep_until;
use tracing::{info, warn};

use crate::broker::alarm::announcement::state_message;
use crate::broker::alarm::config::AlarmRule;
use crate::broker::alarm::halls::{Halls, Hole};
use crate::broker::alarm::history::History;
use crate::broker::alarm::rule::{Alarm, Change, Now, Seen};
use crate::broker::alarm::state::Alarms;
use crate::broker::alarm::versions::Versions;
use crate::broker::commit::live::Live;
use crate::broker::context::Services;
use crate::broker::counters::Counters;
use crate::broker::status::local_client::LocalSubscription;
use crate::clock::unix_ms;
use crate::mqtt::Message;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::store::Record;
use crate::throttled_log::ThrottledLog;
use crate::wire::{BoardTopic, Health, NodeTopics, ONLINE, Switch};

/// Shortest time between two log lines of one alarm: who may publish for a board can change its alarms at any rate.
pub(super) const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time without a look at what expires.
const EXPIRY_LOOK: Duration = Duration::from_hours(1);
/// A board has said what its outputs are when it publishes its health for this time.
const ANNOUNCED_BY: u8 = 2;
/// How often the forwarder's state is looked at.
const UPSTREAM_LOOK: Duration = Duration::from_secs(1);

/// The alarms, and what they need.
pub struct Watch {
    pub(super) alarms: Vec<Alarm>,
    pub(super) states: Alarms,
    pub(super) services: Services,
    pub(super) history: History,
    /// The log lines of each alarm.
    pub(super) lines: Vec<ThrottledLog>,
    /// Of each alarm the healths of its board that came while what it watches was no output of that.
    pub(super) without_output: Vec<u8>,
    /// When the latest health of a board expires, log time in ms.
    pub(super) expiries: BTreeMap<Id, i64>,
    /// What the boards run, where an alarm is about it.
    pub(super) versions: Versions,
    /// Asks what other halls have, where an alarm is about gaps and there is an upstream database.
    pub(super) halls: Option<Halls>,
    /// When to look at the forwarder's state next, where an alarm is about it.
    pub(super) look_at: Option<Instant>,
}

impl Watch {
    /// Watches until `shutdown`, and then to the end of what the connections have left.
    pub(super) async fn run(
        mut self,
        mut live: tokio::sync::broadcast::Receiver<Live>,
        boards: Option<LocalSubscription>,
        said: Vec<Arc<Message>>,
        mut shutdown: Shutdown,
    ) {
        self.begin(&said);
        let counters = Arc::clone(self.services.recorder.counters());
        loop {
            let deadline = self.deadline();
            let time = async {
                match deadline {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                committed = live.recv() => match committed {
                    Ok(records) => self.see(&records),
                    Err(RecvError::Lagged(batches)) => {
                        warn!(batches, "alarms missed readings; silence and gaps count from now");
                        let now = Instant::now();
                        self.alarms.iter_mut().for_each(|alarm| alarm.lost_track(now));
                    }
                    Err(RecvError::Closed) => return,
                },
                () = time => self.pass(),
                () = counters.next_disk_error() => self.disk_failed(&counters),
                said = next(boards.as_ref()) => self.take(&said),
                hole = next_missing(self.halls.as_mut()) => self.missing(&hole),
                () = shutdown.requested() => break,
            }
        }
        // The connections have ended; what they left counts.
        loop {
            match live.try_recv() {
                Ok(records) => self.see(&records),
                Err(TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        while let Some(said) = boards.as_ref().and_then(LocalSubscription::try_next) {
            self.take(&said);
        }
        for index in 0..self.lines.len() {
            if let Some(at) = self.lines[index].overdue_at() {
                self.make_up(index, at);
            }
        }
    }

    /// Applies what the boards said last, and clears alarms whose board's health is there no more. That a board is `online`
    /// says nothing: it connects again.
    fn begin(&mut self, said: &[Arc<Message>]) {
        let mut gone: BTreeSet<Id> = self.fault_nodes().cloned().collect();
        let healths = said.iter().filter_map(|said| match BoardTopic::parse(&said.topic) {
            Some((node, BoardTopic::Health)) => Some((node, said)),
            _ => None,
        });
        // All before any is compared: an alarm that is raised stays so.
        for (node, said) in healths.clone() {
            self.note_version(&node, Health::parse(&said.payload).as_ref());
        }
        for (node, said) in healths {
            gone.remove(&node);
            self.hear(&node, said);
        }
        self.compare();
        for node in &gone {
            self.apply(node, None);
        }
    }

    /// Whether there is an alarm of such a rule.
    pub(super) fn any(&self, is_it: impl Fn(&AlarmRule) -> bool) -> bool {
        self.alarms.iter().any(|alarm| is_it(&alarm.config().rule))
    }

    fn fault_nodes(&self) -> impl Iterator<Item = &Id> {
        let configs = self.alarms.iter().map(Alarm::config);
        configs.filter(|it| matches!(it.rule, AlarmRule::Fault { .. })).map(|it| &it.node)
    }

    /// When [`Self::pass`] is due next, if nothing happens before.
    fn deadline(&self) -> Option<Instant> {
        let expiry = self.expiries.values().min().map(|at| {
            let left_ms = at.saturating_sub(self.services.fan_out.timeline.now_ms()).max(0);
            Instant::now() + Duration::from_millis(left_ms.unsigned_abs()).min(EXPIRY_LOOK)
        });
        let lines = self.lines.iter().filter_map(ThrottledLog::overdue_at);
        self.alarms
            .iter()
            .filter_map(Alarm::deadline)
            .chain(lines)
            .chain(expiry)
            .chain(self.look_at)
            .min()
    }

    /// Takes a message of a board.
    fn take(&mut self, said: &Message) {
        match BoardTopic::parse(&said.topic) {
            Some((node, BoardTopic::Status)) if said.payload == ONLINE.as_bytes() => {
                self.tell_again(&node);
            }
            Some((node, BoardTopic::Health)) => self.hear(&node, said),
            _ => {}
        }
    }

    fn see(&mut self, records: &[Record]) {
        for record in records {
            let Record::Reading { node, sensor, telemetry } = record else { continue };
            let now = Now { instant: Instant::now(), unix_ms: unix_ms() };
            for index in 0..self.alarms.len() {
                for change in self.alarms[index].see(Seen { node, sensor, telemetry }, now) {
                    self.tell(index, change);
                }
                self.ask(index, now.instant);
            }
        }
    }

    /// A board's health. An empty one to be retained deletes it; another one that cannot be read says nothing.
    fn hear(&mut self, node: &Id, said: &Message) {
        let health = Health::parse(&said.payload);
        if health.is_none() && !(said.payload.is_empty() && said.retain) {
            return;
        }
        let changed = self.note_version(node, health.as_ref());
        // Of a bounded number of boards.
        let concerns = self.versions.knows(node) || self.fault_nodes().any(|known| known == node);
        match said.expires_at_ms.filter(|_| health.is_some() && concerns) {
            Some(at_ms) => self.expiries.insert(node.clone(), at_ms),
            None => self.expiries.remove(node),
        };
        self.apply(node, health.as_ref());
        if let Some(health) = &health {
            self.look_for_outputs(node, health);
        }
        if changed {
            self.compare();
        }
    }

    /// Tells once of an alarm on an output that its board does not have: a mistyped name is no output that follows.
    fn look_for_outputs(&mut self, node: &Id, health: &Health) {
        for (alarm, healths) in self.alarms.iter().map(Alarm::config).zip(&mut self.without_output)
        {
            let AlarmRule::Fault { output, .. } = &alarm.rule else { continue };
            let state = NodeTopics::new(node.clone()).output(output);
            let fan_out = &self.services.fan_out;
            if alarm.node != *node
                || health.output_faults.contains_key(output.as_str())
                || fan_out.retained.contains(&state, fan_out.timeline.now_ms())
            {
                continue;
            }
            *healths = healths.saturating_add(1);
            if *healths == ANNOUNCED_BY {
                warn!(
                    alarm = %alarm.name, %node, %output,
                    "this alarm watches an output that its board does not have: correct its name in HUMIDOR_ALARMS, or add it to HUMIDOR_OUTPUTS of the board"
                );
            }
        }
    }

    /// Notes what a board runs; whether that changed anything.
    fn note_version(&mut self, node: &Id, health: Option<&Health>) -> bool {
        self.any(|rule| matches!(rule, AlarmRule::Version { .. }))
            && self.versions.note(node, health)
    }

    fn compare(&mut self) {
        let now = Instant::now();
        for index in 0..self.alarms.len() {
            for change in self.alarms[index].compare(&self.versions, now) {
                self.tell(index, change);
            }
        }
    }

    /// Has the upstream database asked for the holes that an alarm has seen.
    fn ask(&mut self, index: usize, now: Instant) {
        let AlarmRule::Gap { wait, .. } = self.alarms[index].config().rule else { return };
        for gap in self.alarms[index].holes() {
            let hole = Hole { alarm: index, gap, ask_at: now + wait };
            let refused = match &self.halls {
                Some(halls) => halls.ask(hole),
                None => Some(hole),
            };
            if let Some(hole) = refused {
                self.missing(&hole);
            }
        }
    }

    /// A hole is one upstream, too.
    fn missing(&mut self, hole: &Hole) {
        for change in self.alarms[hole.alarm].missing(&hole.gap, Instant::now()) {
            self.tell(hole.alarm, change);
        }
    }

    /// Applies the forwarder's state.
    fn look_upstream(&mut self, now: Instant) {
        self.look_at = Some(now + UPSTREAM_LOOK);
        let forwarding = self.services.recorder.counters().upstream().cloned();
        let Some(status) = forwarding.map(|forwarding| forwarding.status()) else { return };
        for index in 0..self.alarms.len() {
            for change in self.alarms[index].look_upstream(&status, now) {
                self.tell(index, change);
            }
        }
    }

    /// Applies a board's health; `None`: it is there no more.
    fn apply(&mut self, node: &Id, health: Option<&Health>) {
        let now = Instant::now();
        for index in 0..self.alarms.len() {
            for change in self.alarms[index].hear(node, health, now) {
                self.tell(index, change);
            }
        }
    }

    fn disk_failed(&mut self, counters: &Counters) {
        let (_, latest) = counters.disk_errors();
        let (why, now) = (latest.unwrap_or_default(), Instant::now());
        for index in 0..self.alarms.len() {
            if let Some(change) = self.alarms[index].disk_failed(&why, now) {
                self.tell(index, change);
            }
        }
    }

    fn pass(&mut self) {
        let (now, now_ms) = (Instant::now(), self.services.fan_out.timeline.now_ms());
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_upstream(now);
        }
        for index in 0..self.alarms.len() {
            if let Some(change) = self.alarms[index].pass(now) {
                self.tell(index, change);
            }
            self.make_up(index, now);
        }
        let expired = self.expiries.iter().filter(|(_, at_ms)| **at_ms <= now_ms);
        let expired: Vec<Id> = expired.map(|(node, _)| node.clone()).collect();
        for node in expired {
            self.expiries.remove(&node);
            self.apply(&node, None);
            if self.note_version(&node, None) {
                self.compare();
            }
        }
    }

    /// Writes the log line that is overdue at `now`, if one is.
    fn make_up(&self, index: usize, now: Instant) {
        if let Some(left_out) = self.lines[index].overdue(now)
            && let Some(state) = self.states.states().get(index)
        {
            write_line(&state.name, state.raised, &state.detail, left_out);
        }
    }

    /// Reports a change of an alarm: to the log, the states, the history, MQTT and outputs.
    fn tell(&mut self, index: usize, change: Change) {
        let (name, output) =
            (self.alarms[index].config().name.clone(), self.alarms[index].config().output.clone());
        let clock = self.services.fan_out.timeline.clock();
        if let Some(left_out) = self.lines[index].due(Instant::now()) {
            write_line(&name, change.raised, &change.detail, left_out);
        }
        self.states.note(index, &change, &clock);
        let mut messages = vec![state_message(&name, change.raised)];
        messages.extend(output.map(|(node, output)| self.command(&node, &output)));
        let (Change { raised, detail }, at_ms) = (change, clock.timeline.latest_ms);
        self.history.push(Record::Alarm { name, at_ms, raised, detail });
        for message in messages {
            self.services.fan_out.publish_own(message);
        }
    }

    /// Repeats the commands to a node that is back: its outputs have their safe level.
    fn tell_again(&self, node: &Id) {
        let outputs = self.alarms.iter().filter_map(|alarm| alarm.config().output.as_ref());
        let outputs: BTreeSet<&(Id, Id)> = outputs.filter(|(owner, _)| owner == node).collect();
        let commands = outputs.into_iter().map(|(node, output)| self.command(node, output));
        for command in commands {
            self.services.fan_out.publish_own(command);
        }
    }

    /// An output is on while any of its alarms is raised.
    fn command(&self, node: &Id, output: &Id) -> Message {
        let mut drives = self.alarms.iter().filter(|alarm| {
            alarm
                .config()
                .output
                .as_ref()
                .is_some_and(|found| found.0 == *node && found.1 == *output)
        });
        let state = if drives.any(Alarm::is_raised) { Switch::On } else { Switch::Off };
        let topic = NodeTopics::new(node.clone()).command(output);
        Message { retain: false, ..Message::own(topic, state.as_str()) }
    }
}

/// Waits for the next hole that no hall has filled.
async fn next_missing(halls: Option<&mut Halls>) -> Hole {
    match halls {
        Some(halls) => halls.missing().await,
        None => std::future::pending().await,
    }
}

/// Waits for the next message of a board.
async fn next(boards: Option<&LocalSubscription>) -> Arc<Message> {
    match boards {
        Some(boards) => boards.next().await,
        None => std::future::pending().await,
    }
}

/// The log line of an alarm's state. `left_out` changes before it had none.
fn write_line(name: &Id, raised: bool, why: &str, left_out: u64) {
    let left_out = (left_out > 0).then_some(left_out);
    if raised {
        warn!(alarm = %name, why, left_out, "raised");
    } else {
        info!(alarm = %name, why, left_out, "cleared");
    }
}
