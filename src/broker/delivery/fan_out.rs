//! The fan-out: after its commit, an accepted message enters the queue of each selected session.

use std::sync::Arc;

use super::retained_messages::{NoRoom, Retained, Room};
use crate::broker::counters::Traffic;
use crate::broker::session::outbound_queue::{Delivery, Pushed};
use crate::broker::session::state::Session;
use crate::broker::session::subscriptions::{Recipient, Selection, Subscriptions};
use crate::mqtt::Message;
use crate::store::Change;
use crate::timeline::Timeline;

/// A message that was accepted from its publisher.
#[derive(Debug)]
pub struct Accepted {
    message: Arc<Message>,
    route: Route,
    /// Its room among the retained messages, until it is one.
    _room: Option<Room>,
}

#[derive(Debug)]
enum Route {
    /// It is not retained; all sessions are selected.
    Selected(Selection),
    /// It is to be retained. Its commit selects the stored sessions and numbers it, so that messages are retained in
    /// the order of the disk.
    Retained(Option<(Selection, u64)>),
}

impl Accepted {
    /// Whether it has to be committed before it is delivered.
    pub const fn needs_commit(&self) -> bool {
        match &self.route {
            Route::Selected(selection) => !selection.targets.is_empty(),
            Route::Retained(_) => true,
        }
    }

    /// The sessions for which it was committed.
    pub fn stored(&self) -> &[Arc<Session>] {
        match &self.route {
            Route::Selected(selection) | Route::Retained(Some((selection, _))) => &selection.stored,
            Route::Retained(None) => &[],
        }
    }

    /// Whether it is to be retained.
    pub const fn is_retained(&self) -> bool {
        matches!(self.route, Route::Retained(_))
    }
}

/// Delivers messages to the sessions that have subscribed to them.
#[derive(Debug, Clone)]
pub struct FanOut {
    pub subscriptions: Subscriptions,
    pub retained: Retained,
    pub traffic: Arc<Traffic>,
    /// The time in which messages and sessions expire.
    pub timeline: Timeline,
}

impl FanOut {
    /// Accepts a message. Selects its sessions, unless it is to be retained: then `room` is its room, where it has any.
    pub fn accept(&self, message: Message, room: Result<Option<Room>, NoRoom>) -> Accepted {
        let (route, room) = match room {
            Ok(room) if message.retain => (Route::Retained(None), room),
            _ => (Route::Selected(self.subscriptions.select(&message)), None),
        };
        Accepted { message: Arc::new(message), route, _room: room }
    }

    /// The number of stored sessions for which `accepted` will be committed.
    pub fn waiting(&self, accepted: &Accepted) -> usize {
        match &accepted.route {
            Route::Selected(selection) => selection.targets.len(),
            Route::Retained(_) => self.subscriptions.stored_matches(&accepted.message),
        }
    }

    /// Room among the retained messages for a message that is to be retained.
    ///
    /// # Errors
    /// When its publisher's user has its share.
    pub fn reserve(&self, message: &Message) -> Result<Option<Room>, NoRoom> {
        if message.retain { self.retained.reserve(message) } else { Ok(None) }
    }

    /// Adds the changes that are committed for a message to `changes`. Only the writer thread calls this.
    pub fn prepare(&self, accepted: &mut Accepted, changes: &mut Vec<Change>) {
        let message = &accepted.message;
        let retained = accepted.is_retained();
        if let Route::Retained(selected) = &mut accepted.route {
            *selected = Some(self.subscriptions.select_stored(message));
        }
        if let Route::Selected(selection) | Route::Retained(Some((selection, _))) =
            &mut accepted.route
            && !selection.targets.is_empty()
        {
            let targets = std::mem::take(&mut selection.targets);
            changes.push(Change::Queue { message: Arc::clone(message), targets });
        }
        if retained {
            changes.push(Change::Retain(Arc::clone(message)));
        }
    }

    /// Delivers a message that is committed, or that needs no commit. Sessions whose queues are congested by it are
    /// added to `congested`: its publisher is held back for them.
    pub fn deliver(
        &self,
        Accepted { message, route, _room }: Accepted,
        congested: &mut Vec<Arc<Session>>,
    ) {
        let selection = match route {
            Route::Selected(selection) => selection,
            Route::Retained(selected) => {
                let number = selected.as_ref().map(|(_, number)| *number);
                if let Some((selection, _)) = selected {
                    self.enqueue(&message, selection, congested);
                }
                self.publish_retained(&message, number)
            }
        };
        self.enqueue(&message, selection, congested);
    }

    /// Publishes a message of the broker's own. A retained one is retained in memory only: the broker publishes it
    /// again at each start.
    pub fn publish_own(&self, message: Message) {
        let message = Arc::new(message);
        let selection = if message.retain {
            self.publish_retained(&message, None)
        } else {
            self.subscriptions.select(&message)
        };
        self.enqueue(&message, selection, &mut Vec::new());
    }

    fn publish_retained(&self, message: &Arc<Message>, selected: Option<u64>) -> Selection {
        self.subscriptions.publish_retained(message, selected, |numbers| {
            self.retained.set(Arc::clone(message), numbers);
        })
    }

    fn enqueue(
        &self,
        message: &Arc<Message>,
        selection: Selection,
        congested: &mut Vec<Arc<Session>>,
    ) {
        for session in selection.stored {
            session.queue.notify_stored();
        }
        if selection.live.is_empty() {
            return;
        }
        let counted = self.subscriptions.queues().share(message);
        for Recipient { session, wanted, shared, unsubscribes } in selection.live {
            if !shared && !session.still_wants(&message.topic, unsubscribes) {
                continue;
            }
            let delivery = Delivery {
                message: Arc::clone(&counted),
                qos: wanted.qos,
                retain: wanted.retain,
                identifiers: wanted.identifiers,
            };
            let lost = match session.queue.push(delivery) {
                Pushed::Waits { dropped, congested: false } => dropped,
                Pushed::Waits { dropped, congested: true } => {
                    if !congested.iter().any(|other| Arc::ptr_eq(other, &session)) {
                        congested.push(Arc::clone(&session));
                    }
                    dropped
                }
                // The member has left since it was selected, and no other one gets the message.
                Pushed::Closed if shared => 1,
                // Its session has ended or takes nothing at QoS 0 while its client is away.
                Pushed::Closed => 0,
            };
            self.traffic.losses.add(&session.client_id, lost);
        }
        drop(counted);
        if let Some((client, dropped)) = self.subscriptions.queues().make_room() {
            self.traffic.losses.add(&client, dropped);
        }
    }
}
