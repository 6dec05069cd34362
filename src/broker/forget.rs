//! Forgets a node: deletes its retained messages, Home Assistant's device among them, and ends its sessions, before the log
//! deletes its rows. Requests come from HTTP and, through the log, from `humidor db forget`.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::commit::batch::Batch;
use super::commit::group_commit::Stopped;
use super::context::Services;
use crate::clock;
use crate::mqtt::{Filter, Message, QoS};
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::store::Change;
use crate::wire::{CLIENT_ID_PREFIX, Discovery, NodeTopics, node_device_id};

/// Interval of looks for requests of other processes: a small query.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Carries requests out until `shutdown`. `discovery` is where Home Assistant looks for devices.
pub async fn run(services: Services, discovery: Option<Discovery>, mut shutdown: Shutdown) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = services.forgetting.asked.notified() => {}
            () = shutdown.requested() => return,
        }
        let clearing = async {
            for node in requests(&services).await {
                clear(&services, discovery.as_ref(), &node).await?;
            }
            Ok::<_, Stopped>(())
        };
        tokio::select! {
            cleared = clearing => if cleared.is_err() { return },
            () = shutdown.requested() => return,
        }
    }
}

async fn requests(services: &Services) -> Vec<Id> {
    let queued = Arc::clone(&services.queued);
    let found =
        spawn_blocking(move || queued.lock().unwrap_or_else(PoisonError::into_inner).to_clear());
    match found.await {
        Ok(Ok(nodes)) => nodes,
        Ok(Err(error)) => {
            warn!(%error, "cannot look for nodes to forget");
            Vec::new()
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Clears what MQTT keeps of a node, and lets its rows go.
async fn clear(
    services: &Services,
    discovery: Option<&Discovery>,
    node: &Id,
) -> Result<(), Stopped> {
    let device = discovery.map(|discovery| discovery.device(&node_device_id(node)));
    let filters = [Some(NodeTopics::new(node.clone()).everything()), device];
    let filters = filters.into_iter().flatten().filter_map(|filter| filter.parse::<Filter>().ok());
    let mut deleted = 0;
    for filter in filters {
        let mut after = None;
        loop {
            let table = &services.fan_out.retained;
            let (page, next) = table.matching(&filter, after.as_ref(), clock::unix_ms(), |_| true);
            let mut batch = Batch::default();
            for message in &page {
                let empty = Message::own(message.topic.to_string(), Bytes::new());
                batch.accept(Message { qos: QoS::AtLeastOnce, ..empty }, &services.fan_out);
            }
            deleted += page.len();
            if !page.is_empty() {
                services.recorder.commit(batch).await?;
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    let mut changes = services.registry.end_left(&format!("{CLIENT_ID_PREFIX}{node}"));
    let sessions = changes.len();
    changes.push(Change::Cleared { node: node.clone() });
    services.recorder.commit_changes(&mut changes).await?;
    services.forgetting.begun.send_replace(());
    info!(%node, retained = deleted, sessions, "forgetting a node: its messages are deleted, its readings follow");
    Ok(())
}
