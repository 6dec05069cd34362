//! Replay: the retained messages that a new subscription gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::retained_messages::Retained;
use crate::broker::counters::Losses;
use crate::broker::session::outbound_queue::{Delivery, Shared};
use crate::broker::session::state::Session;
use crate::broker::session::subscriptions::Numbers;
use crate::mqtt::{Filter, Message, QoS, Topic, Trie};
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
    /// The topic up to which the retained messages were looked up.
    pub after: Option<Topic>,
}

impl ReplayRequest {
    /// A page of the retained messages as they are delivered to the subscription, and whether it is the last one; none
    /// when it has been unsubscribed meanwhile ([MQTT-3.10.4-2]). A client that reads nothing keeps no more than a page
    /// in memory.
    pub fn next_page(&mut self, retained: &Retained, now_ms: i64) -> (Vec<Delivery>, bool) {
        if !self.session.state().subscriptions.contains_key(&self.filter) {
            return (Vec::new(), true);
        }
        let (found, after) =
            retained.matching(&self.filter, self.after.as_ref(), now_ms, |numbers| {
                numbers.is_replayed(self.entered, &self.session)
            });
        let is_last = after.is_none();
        self.after = after;
        let foreign = found.into_iter().filter(|message| !self.is_own(message));
        let deliveries = foreign.map(|message| Delivery {
            qos: self.options.qos.min(message.qos),
            message: Shared::uncounted(message),
            retain: true,
            identifiers: self.identifiers(),
        });
        (deliveries.collect(), is_last)
    }

    /// Whether a retained message with these numbers is replayed.
    fn wants(&self, message: &Message, numbers: Numbers) -> bool {
        numbers.is_replayed(self.entered, &self.session)
            && !self.is_own(message)
            && self.session.state().subscriptions.contains_key(&self.filter)
    }

    /// Whether No Local keeps the message from the client that published it.
    fn is_own(&self, message: &Message) -> bool {
        self.options.no_local && message.publisher == self.session.client_id
    }

    fn identifiers(&self) -> Vec<u32> {
        if self.options.identifier > 0 { vec![self.options.identifier] } else { vec![] }
    }

    /// Whether a delivery of [`ReplayRequest::next_page`] waits in the log instead of in memory.
    pub fn is_stored(&self, qos: QoS) -> bool {
        self.session.persistent.is_some() && qos > QoS::AtMostOnce
    }
}

/// The retained messages that are committed for persistent sessions, as they are before this commit. The commit queues
/// them before its other messages. Of several requests for a filter the latest counts. One walk over the retained
/// messages serves all requests: a look-up for each filter of a large SUBSCRIBE would delay every commit by seconds.
///
/// Messages beyond [`REPLAYED_MESSAGES`] are counted in `losses`.
pub fn stored<'a>(
    requests: impl Iterator<Item = &'a ReplayRequest>,
    retained: &Retained,
    now_ms: i64,
    losses: &Losses,
) -> Vec<Change> {
    let mut latest: BTreeMap<(i64, &str), &ReplayRequest> = BTreeMap::new();
    for request in requests {
        if let Some(number) = request.session.persistent {
            latest.insert((number, request.filter.as_str()), request);
        }
    }
    if latest.is_empty() {
        return Vec::new();
    }
    let mut filters = Trie::default();
    for (place, request) in latest.values().enumerate() {
        filters.insert(&request.filter, (place, *request));
    }
    let mut found: Vec<(usize, &ReplayRequest, Arc<Message>)> = Vec::new();
    retained.each(now_ms, |message, numbers| {
        filters.matching(&message.topic, &mut |(place, request): &(usize, &ReplayRequest)| {
            if request.is_stored(request.options.qos.min(message.qos))
                && request.wants(message, numbers)
            {
                found.push((*place, request, Arc::clone(message)));
            }
        });
    });
    found.sort_unstable_by(|one, other| (one.0, &one.2.topic).cmp(&(other.0, &other.2.topic)));
    let beyond = found.split_off(REPLAYED_MESSAGES.min(found.len()));
    for (_, request, _) in &beyond {
        losses.add(&request.session.client_id, 1);
    }
    let changes = found.into_iter().map(|(_, request, message)| {
        let targets = vec![Target {
            session: request.session.persistent.unwrap_or_default(),
            qos: request.options.qos.min(message.qos),
            retain: true,
            identifiers: request.identifiers(),
        }];
        Change::Queue { message, targets }
    });
    changes.collect()
}

/// Most changes that [`stored`] returns.
pub fn weight(requests: &[ReplayRequest], retained: &Retained) -> usize {
    retained.len().saturating_mul(requests.len()).min(REPLAYED_MESSAGES)
}
