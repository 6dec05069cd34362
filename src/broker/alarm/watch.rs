//! Watches committed readings and what boards say of themselves, and reports each change of an alarm: on MQTT, in the log, and by commands to outputs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

use crate::broker::alarm::config::{AlarmConfig, AlarmRule};
use crate::broker::alarm::history::History;
use crate::broker::alarm::rule::{Alarm, Change, Now, Seen};
use crate::broker::alarm::state::{AlarmState, Alarms, Kept};
use crate::broker::commit::live::Live;
use crate::broker::context::Services;
use crate::broker::counters::Counters;
use crate::broker::status::local_client::{LocalClient, LocalSubscription};
use crate::clock::unix_ms;
use crate::mqtt::{Filter, Message};
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::store::{AlarmRow, Record};
use crate::throttled_log::ThrottledLog;
use crate::wire::{
    BROKER_DEVICE_ID, BROKER_STATUS, BoardTopic, Component, Device, Discovery, Health, NodeTopics,
    ONLINE, Platform, STATUSES, Switch, alarm_topic,
};

/// Shortest time between two log lines of one alarm: who may publish for a board can change its alarms at any rate.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time without a look at what expires.
const EXPIRY_LOOK: Duration = Duration::from_hours(1);
/// How long the broker's end waits for the last changes to be committed.
const LAST_CHANGES: Duration = Duration::from_secs(1);

/// Starts to watch. `left` has the state of each alarm at the broker's last stop. Alarms that are no longer configured
/// are removed from Home Assistant.
pub fn start(
    configs: Vec<AlarmConfig>,
    left: &[AlarmRow],
    services: &Services,
    discovery: Option<&Discovery>,
    shutdown: Shutdown,
) -> (Alarms, Option<JoinHandle<()>>) {
    let start = Instant::now();
    let known: BTreeSet<Id> = configs.iter().map(|config| config.name.clone()).collect();
    let gone: Vec<Id> = left
        .iter()
        .filter_map(|row| row.name.parse().ok())
        .filter(|name| !known.contains(name))
        .collect();
    if let Some(discovery) = discovery
        && !(known.is_empty() && gone.is_empty())
    {
        let device = discovery.device(BROKER_DEVICE_ID);
        services.fan_out.publish_own(Message::own(device, announcement(&known, &gone)));
    }
    if configs.is_empty() {
        return (Alarms::default(), None);
    }

    let mut states = Vec::new();
    let mut alarms = Vec::new();
    for config in configs {
        let row = left.iter().find(|row| row.name == config.name.as_str());
        let raised = row.is_some_and(|row| row.raised);
        info!(alarm = %config.name, raised, "watching");
        services.fan_out.publish_own(state_message(&config.name, raised));
        let state = AlarmState {
            name: config.name.clone(),
            node: config.node.clone(),
            rule: config.rule.clone(),
            source: config.source(),
            raised,
            since_ms: row.map(|row| row.at),
            detail: row.map(|row| row.detail.clone()).unwrap_or_default(),
            raised_count: 0,
        };
        states.push(Kept { state, correction_ms: row.and_then(|row| row.correction_ms) });
        alarms.push(Alarm::new(config, raised, start));
    }
    let filters = board_filters(&alarms);
    let boards = (!filters.is_empty())
        .then(|| LocalClient::new(services.clone()).subscribe(&Vec::from_iter(filters)));
    // Before any client can connect: what it publishes comes later.
    let said = boards.as_ref().map(LocalSubscription::retained).unwrap_or_default();
    let handle = Alarms::new(states, services.fan_out.timeline.clone());
    let history = History::default();
    let mut committing = tokio::spawn(history.clone().commit(services.recorder.clone()));
    let live = services.recorder.live();
    let watch = Watch {
        lines: alarms.iter().map(|_| ThrottledLog::new(LINE_INTERVAL)).collect(),
        alarms,
        states: handle.clone(),
        services: services.clone(),
        history: history.clone(),
        expiries: BTreeMap::new(),
    };
    let running = tokio::spawn(async move {
        watch.run(live, boards, said, shutdown).await;
        history.close();
        // A store that cannot commit does not delay the end.
        if timeout(LAST_CHANGES, &mut committing).await.is_err() {
            committing.abort();
            let _ = committing.await;
        }
    });
    (handle, Some(running))
}

struct Watch {
    alarms: Vec<Alarm>,
    states: Alarms,
    services: Services,
    history: History,
    /// The log lines of each alarm.
    lines: Vec<ThrottledLog>,
    /// When the latest health of a board expires, log time in ms.
    expiries: BTreeMap<Id, i64>,
}

impl Watch {
    async fn run(
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
        for said in said {
            if let Some((node, BoardTopic::Health)) = BoardTopic::parse(&said.topic) {
                gone.remove(&node);
                self.hear(&node, said);
            }
        }
        for node in &gone {
            self.apply(node, None);
        }
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
        self.alarms.iter().filter_map(Alarm::deadline).chain(lines).chain(expiry).min()
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
            }
        }
    }

    /// A board's health. An empty one to be retained deletes it; another one that cannot be read says nothing.
    fn hear(&mut self, node: &Id, said: &Message) {
        let health = Health::parse(&said.payload);
        if health.is_none() && !(said.payload.is_empty() && said.retain) {
            return;
        }
        match said.expires_at_ms.filter(|_| health.is_some()) {
            Some(at_ms) => self.expiries.insert(node.clone(), at_ms),
            None => self.expiries.remove(node),
        };
        self.apply(node, health.as_ref());
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

/// The topics of boards that alarms need: what they check, and when a node with outputs of theirs comes.
fn board_filters(alarms: &[Alarm]) -> HashSet<Filter> {
    let configs = || alarms.iter().map(Alarm::config);
    let faults = configs().filter(|config| matches!(config.rule, AlarmRule::Fault { .. }));
    let statuses = configs().any(|config| config.output.is_some());
    let statuses = statuses.then(|| STATUSES.parse().expect("STATUSES is a filter"));
    faults.map(AlarmConfig::source).chain(statuses).collect()
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

fn state_message(name: &Id, raised: bool) -> Message {
    let state = if raised { Switch::On } else { Switch::Off };
    Message::own(alarm_topic(name), state.as_str())
}

/// The device discovery of the broker's alarms for Home Assistant. A component with nothing but its platform is
/// removed there.
fn announcement(known: &BTreeSet<Id>, gone: &[Id]) -> Vec<u8> {
    if known.is_empty() {
        return Vec::new();
    }
    let mut device = Device::new(
        BROKER_DEVICE_ID.to_owned(),
        "humidor alarms".to_owned(),
        "broker",
        vec![BROKER_STATUS.to_owned()],
    );
    for name in gone {
        device.add(format!("alarm_{name}"), Component::removed(Platform::BinarySensor));
    }
    for name in known {
        let id = format!("humidor_alarm_{name}");
        let platform = Platform::BinarySensor;
        let alarm = Component::new(platform, name.to_string(), id, alarm_topic(name));
        device.add(format!("alarm_{name}"), Component { device_class: Some("problem"), ..alarm });
    }
    device.to_json()
}
