//! Watches committed readings and what boards say of themselves, and reports each change of an alarm: on MQTT, in the log, and by commands to outputs.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

use crate::broker::alarm::config::{AlarmConfig, AlarmRule};
use crate::broker::alarm::rule::{Alarm, Change, Now, Seen};
use crate::broker::commit::batch::Batch;
use crate::broker::commit::group_commit::Recorder;
use crate::broker::commit::live::Live;
use crate::broker::context::Services;
use crate::broker::counters::Counters;
use crate::broker::status::local_client::{LocalClient, LocalSubscription};
use crate::clock::unix_ms;
use crate::mqtt::{Filter, Message};
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::store::{AlarmRow, Record};
use crate::timeline::{BrokerClock, Timeline};
use crate::wire::{
    BROKER_DEVICE_ID, BROKER_STATUS, BoardTopic, Component, Device, Discovery, Health, NodeTopics,
    ONLINE, Platform, STATUSES, Switch, alarm_topic,
};

/// Changes that wait for the store, at most. While it cannot commit, only silence raises alarms, each once.
const HISTORY_CHANGES: usize = 256;
/// How long the broker's end waits for the last changes to be committed.
const LAST_CHANGES: Duration = Duration::from_secs(1);

/// The state of an alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct AlarmState {
    /// Its name.
    pub name: Id,
    /// The node that it checks.
    pub node: Id,
    /// The rule that raises it.
    pub rule: AlarmRule,
    /// Whether it is raised.
    pub raised: bool,
    /// The topics of what it checks.
    pub source: Filter,
    /// Unix ms UTC of the latest change; `None` when it never changed.
    pub since_ms: Option<i64>,
    /// Why, for people; empty when it never changed.
    pub detail: String,
    /// How often it was raised since the start.
    pub raised_count: u64,
}

/// The states of all alarms. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Alarms {
    kept: Arc<Mutex<Vec<Kept>>>,
    timeline: Timeline,
}

#[derive(Debug)]
struct Kept {
    state: AlarmState,
    /// As [`AlarmRow::correction_ms`], of its latest change.
    correction_ms: Option<i64>,
}

impl Alarms {
    /// A copy of the states, in the order of the configuration. Times from before the clock was set are corrected, as they
    /// are in the log.
    #[must_use]
    pub fn states(&self) -> Vec<AlarmState> {
        let clock = self.timeline.clock();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for Kept { state, correction_ms } in kept.iter_mut() {
            let Some((since_ms, before_ms)) = state.since_ms.zip(*correction_ms) else { continue };
            let arrived_ms = since_ms.saturating_sub(before_ms);
            let (now_ms, settled) = clock.correction_of(arrived_ms, before_ms);
            state.since_ms = Some(arrived_ms.saturating_add(now_ms));
            *correction_ms = (!settled).then_some(now_ms);
        }
        kept.iter().map(|kept| kept.state.clone()).collect()
    }

    fn note(&self, index: usize, change: &Change, clock: &BrokerClock) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Kept { state, correction_ms }) = kept.get_mut(index) {
            let known = &clock.timeline;
            *correction_ms = (!known.is_set).then_some(known.correction_ms);
            state.raised = change.raised;
            state.since_ms = Some(clock.now_ms());
            state.detail.clone_from(&change.detail);
            state.raised_count += u64::from(change.raised);
        }
    }
}

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
    let handle =
        Alarms { kept: Arc::new(Mutex::new(states)), timeline: services.fan_out.timeline.clone() };
    let (history, changes) = mpsc::channel(HISTORY_CHANGES);
    let mut committing = tokio::spawn(commit_changes(changes, services.recorder.clone()));
    let live = services.recorder.live();
    let watch = Watch { alarms, states: handle.clone(), services: services.clone(), history };
    let running = tokio::spawn(async move {
        watch.run(live, boards, shutdown).await;
        // A store that cannot commit does not delay the end.
        if timeout(LAST_CHANGES, &mut committing).await.is_err() {
            committing.abort();
            let _ = committing.await;
        }
    });
    (handle, Some(running))
}

/// Commits changes in their order, on a task of its own: alarms do not wait for a full disk.
async fn commit_changes(mut changes: mpsc::Receiver<Record>, recorder: Recorder) {
    while let Some(change) = changes.recv().await {
        if recorder.commit(Batch { records: vec![change], ..Batch::default() }).await.is_err() {
            return;
        }
    }
}

struct Watch {
    alarms: Vec<Alarm>,
    states: Alarms,
    services: Services,
    history: mpsc::Sender<Record>,
}

impl Watch {
    async fn run(
        mut self,
        mut live: tokio::sync::broadcast::Receiver<Live>,
        boards: Option<LocalSubscription>,
        mut shutdown: Shutdown,
    ) {
        // What the boards said last. Their `online` says nothing: they connect again.
        for said in boards.iter().flat_map(LocalSubscription::retained) {
            if let Some((node, BoardTopic::Health)) = BoardTopic::parse(&said.topic) {
                self.hear(&node, &said.payload);
            }
        }
        let counters = Arc::clone(self.services.recorder.counters());
        loop {
            let deadline = self.alarms.iter().filter_map(Alarm::deadline).min();
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
                said = next(boards.as_ref()) => match BoardTopic::parse(&said.topic) {
                    Some((node, BoardTopic::Status)) if said.payload == ONLINE.as_bytes() => self.tell_again(&node),
                    Some((node, BoardTopic::Health)) => self.hear(&node, &said.payload),
                    _ => {}
                },
                () = shutdown.requested() => return,
            }
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

    /// A board's health; an empty one was deleted, and one that cannot be read says nothing.
    fn hear(&mut self, node: &Id, payload: &[u8]) {
        let health = Health::parse(payload);
        if health.is_none() && !payload.is_empty() {
            return;
        }
        let now = Instant::now();
        for index in 0..self.alarms.len() {
            for change in self.alarms[index].hear(node, health.as_ref(), now) {
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
        let now = Instant::now();
        for index in 0..self.alarms.len() {
            if let Some(change) = self.alarms[index].pass(now) {
                self.tell(index, change);
            }
        }
    }

    /// Reports a change of an alarm: to the log, the states, the history, MQTT and outputs.
    fn tell(&mut self, index: usize, change: Change) {
        let (name, output) =
            (self.alarms[index].config().name.clone(), self.alarms[index].config().output.clone());
        let clock = self.services.fan_out.timeline.clock();
        if change.raised {
            warn!(alarm = %name, why = change.detail, "raised");
        } else {
            info!(alarm = %name, why = change.detail, "cleared");
        }
        self.states.note(index, &change, &clock);
        let mut messages = vec![state_message(&name, change.raised)];
        messages.extend(output.map(|(node, output)| self.command(&node, &output)));
        let (Change { raised, detail }, at_ms) = (change, clock.timeline.latest_ms);
        if self
            .history
            .try_send(Record::Alarm { name: name.clone(), at_ms, raised, detail })
            .is_err()
        {
            warn!(alarm = %name, "the change is not in the history: {HISTORY_CHANGES} changes wait for the store already");
        }
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
