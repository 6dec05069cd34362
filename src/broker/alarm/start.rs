//! Starts the watch over alarms: their states are those of the last run, and known before any client can connect.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::info;

use crate::broker::alarm::announcement::{announcement, state_message};
use crate::broker::alarm::config::{AlarmConfig, AlarmRule};
use crate::broker::alarm::halls::Halls;
use crate::broker::alarm::history::History;
use crate::broker::alarm::rule::Alarm;
use crate::broker::alarm::state::{AlarmState, Alarms, Kept};
use crate::broker::alarm::versions::Versions;
use crate::broker::alarm::watch::{LINE_INTERVAL, Watch};
use crate::broker::context::Services;
use crate::broker::status::local_client::{LocalClient, LocalSubscription};
use crate::mqtt::{Filter, Message};
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::store::AlarmRow;
use crate::throttled_log::ThrottledLog;
use crate::upstream::Target;
use crate::wire::{BROKER_DEVICE_ID, Discovery, HEALTHS, STATUSES};

/// How long the broker's end waits for the last changes to be committed.
const LAST_CHANGES: Duration = Duration::from_secs(1);

/// Starts to watch. `left` has the state of each alarm at the broker's last stop. Alarms that are no longer configured
/// are removed from Home Assistant. With an upstream database holes count when that has them, too.
pub fn watch(
    configs: Vec<AlarmConfig>,
    left: &[AlarmRow],
    services: &Services,
    discovery: Option<&Discovery>,
    upstream: Option<Target>,
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
        let alarm = Alarm::new(config, raised, start);
        alarms.push(if upstream.is_some() { alarm.over_halls() } else { alarm });
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
    let mut watch = Watch {
        without_output: vec![0; alarms.len()],
        lines: alarms.iter().map(|_| ThrottledLog::new(LINE_INTERVAL)).collect(),
        alarms,
        states: handle.clone(),
        services: services.clone(),
        history: history.clone(),
        expiries: BTreeMap::new(),
        versions: Versions::default(),
        halls: None,
        look_at: None,
    };
    watch.halls = upstream
        .filter(|_| watch.any(|rule| matches!(rule, AlarmRule::Gap { .. })))
        .map(Halls::start);
    watch.look_at = watch.any(|rule| matches!(rule, AlarmRule::Upstream { .. })).then_some(start);
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

/// The topics of boards that alarms need: what they check, and when a node with outputs of theirs comes.
fn board_filters(alarms: &[Alarm]) -> HashSet<Filter> {
    let configs = || alarms.iter().map(Alarm::config);
    let faults = configs().filter(|config| matches!(config.rule, AlarmRule::Fault { .. }));
    let statuses = configs().any(|config| config.output.is_some());
    let statuses = statuses.then(|| STATUSES.parse().expect("STATUSES is a filter"));
    let versions = configs().any(|config| matches!(config.rule, AlarmRule::Version { .. }));
    let healths = versions.then(|| HEALTHS.parse().expect("HEALTHS is a filter"));
    faults.map(AlarmConfig::source).chain(statuses).chain(healths).collect()
}
