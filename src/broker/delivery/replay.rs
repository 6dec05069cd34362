//! What the writer adds to a commit for persistent sessions: who gets a retained message, and which retained messages
//! a new subscription gets. Decided by the one thread that commits, so that a message which is retained while a session
//! subscribes is either retained already or comes as it is published ([MQTT-3.3.1-6]), and never after a newer one.

use std::collections::HashSet;
use std::sync::Arc;

use crate::mqtt::QoS;

use crate::broker::commit::writer::Batch;
use crate::broker::delivery::outbound::Parcel;
use crate::broker::delivery::retained::Retained;
use crate::broker::delivery::subscriptions::Routes;
use crate::broker::session::session::{Session, lower};
use crate::clock;
use crate::mqtt::Filter;
use crate::store::{Change, Options, Target};

/// Retained messages that the subscriptions of one batch get: as many as may wait for a session.
const RETAINED_MESSAGES: usize = 10_000;

/// A persistent session's new subscription, whose retained messages are committed with it.
#[derive(Debug)]
pub struct Asked {
    pub session: Arc<Session>,
    pub filter: Filter,
    pub options: Options,
}

/// Retained messages as they are delivered to a subscription of `session`.
pub fn parcels(
    retained: &Retained,
    session: &Session,
    filter: &Filter,
    options: Options,
) -> impl Iterator<Item = Parcel> + use<> {
    let identifiers = if options.identifier > 0 { vec![options.identifier] } else { vec![] };
    let client_id = Arc::clone(&session.client_id);
    let found = retained.matching(filter, clock::unix_ms()).into_iter();
    let foreign = found.filter(move |message| !options.no_local || message.publisher != client_id);
    foreign.map(move |message| Parcel {
        qos: lower(options.qos, message.qos),
        message,
        retain: true,
        identifiers: identifiers.clone(),
    })
}

/// Completes batches before their commit.
#[derive(Debug, Clone)]
pub struct Keeper {
    pub routes: Routes,
    pub retained: Retained,
}

impl Keeper {
    /// Records and changes of a batch, with what it will get by [`Keeper::complete`] at most.
    pub fn weight(&self, batch: &Batch) -> usize {
        let retained = self.retained.len().saturating_mul(batch.asked.len());
        batch.len() + retained.min(RETAINED_MESSAGES)
    }

    /// Adds who gets the retained messages of `batch`. Gives the retained messages, as they are before this
    /// commit, of its subscriptions: to be queued before whatever else the commit queues.
    pub fn complete(&self, batch: &mut Batch) -> Vec<Change> {
        if batch.changes.iter().any(|change| matches!(change, Change::Retain(_))) {
            for change in std::mem::take(&mut batch.changes) {
                if let Change::Retain(message) = &change
                    && let Some(found) = self.routes.find_sessions(message)
                {
                    let message = Arc::clone(message);
                    batch.changes.push(Change::Queue { message, targets: found.targets });
                    batch.wake.extend(found.wake);
                }
                batch.changes.push(change);
            }
        }
        let mut owed = Vec::new();
        let mut answered: HashSet<(i64, Filter)> = HashSet::new();
        // The latest options of a filter count.
        for Asked { session, filter, options } in batch.asked.drain(..).rev() {
            let Some(number) = session.persistent else { continue };
            batch.wake.push(Arc::clone(&session.wake));
            let held = session.state().subscriptions.contains_key(&filter);
            if owed.len() >= RETAINED_MESSAGES
                || !held
                || !answered.insert((number, filter.clone()))
            {
                continue;
            }
            let kept = parcels(&self.retained, &session, &filter, options)
                .filter(|parcel| parcel.qos > QoS::AtMostOnce)
                .take(RETAINED_MESSAGES - owed.len());
            owed.extend(kept.map(|Parcel { message, qos, retain, identifiers }| {
                let targets = vec![Target { session: number, qos, retain, identifiers }];
                Change::Queue { message, targets }
            }));
        }
        owed
    }
}
