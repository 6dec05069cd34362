//! Replay: the retained messages that a new subscription gets.

use std::collections::HashSet;
use std::sync::Arc;

use super::retained_messages::Retained;
use crate::broker::session::outbound_queue::Delivery;
use crate::broker::session::state::Session;
use crate::broker::session::subscriptions::Numbers;
use crate::clock;
use crate::mqtt::{Filter, QoS};
use crate::store::{Change, Options, Target};

/// Retained messages for the subscriptions of one batch: as many as may wait for a session.
const REPLAYED_MESSAGES: usize = 10_000;

/// A request to replay retained messages to a new subscription.
#[derive(Debug, Clone)]
pub struct ReplayRequest {
    pub session: Arc<Session>,
    pub filter: Filter,
    pub options: Options,
    /// When the subscription entered the index.
    pub entered: Numbers,
}

impl ReplayRequest {
    /// The retained messages as they are delivered to the subscription; none when it has been unsubscribed
    /// meanwhile ([MQTT-3.10.4-2]).
    pub fn deliveries(&self, retained: &Retained) -> impl Iterator<Item = Delivery> + use<'_> {
        let Self { session, filter, options, entered } = self;
        let held = session.state().subscriptions.contains_key(filter);
        let found = if held {
            retained.matching(filter, clock::unix_ms(), |numbers| {
                numbers.is_replayed(*entered, session)
            })
        } else {
            Vec::new()
        };
        let foreign = found
            .into_iter()
            .filter(|message| !options.no_local || message.publisher != session.client_id);
        foreign.map(|message| Delivery {
            qos: options.qos.min(message.qos),
            message,
            retain: true,
            identifiers: if options.identifier > 0 { vec![options.identifier] } else { vec![] },
        })
    }

    /// Whether a delivery of [`ReplayRequest::deliveries`] waits in the log instead of in memory.
    pub fn is_stored(&self, qos: QoS) -> bool {
        self.session.persistent.is_some() && qos > QoS::AtMostOnce
    }
}

/// The retained messages that are committed for persistent sessions, as they are before this commit. The commit queues
/// them before its other messages. Of several requests of one batch for a filter the latest counts.
pub fn stored(requests: &[ReplayRequest], retained: &Retained) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut answered: HashSet<(i64, &Filter)> = HashSet::new();
    for request in requests.iter().rev() {
        let Some(number) = request.session.persistent else { continue };
        if changes.len() >= REPLAYED_MESSAGES || !answered.insert((number, &request.filter)) {
            continue;
        }
        let deliveries = request
            .deliveries(retained)
            .filter(|delivery| request.is_stored(delivery.qos))
            .take(REPLAYED_MESSAGES - changes.len());
        changes.extend(deliveries.map(|Delivery { message, qos, retain, identifiers }| {
            let targets = vec![Target { session: number, qos, retain, identifiers }];
            Change::Queue { message, targets }
        }));
    }
    changes
}

/// Most changes that [`stored`] returns.
pub fn weight(requests: &[ReplayRequest], retained: &Retained) -> usize {
    retained.len().saturating_mul(requests.len()).min(REPLAYED_MESSAGES)
}
