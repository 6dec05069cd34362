//! The subscription index: selects the sessions that get a message. Each message is looked up once, and the delivery to
//! each session is decided once.
//!
//! A session that subscribes while a message is retained gets that message exactly once: replayed, or as it is
//! published. For this, retained messages have numbers, and a subscription notes the latest numbers when it enters the
//! index. A message with a higher number is delivered as it is published; the others are replayed
//! ([`Numbers::is_replayed`]).

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use super::outbound_queue::AllQueues;
use super::shared_subscriptions::Group;
use super::state::{Session, State, Wanted, row_bytes};
use crate::broker::access::acl::CompiledAcl;
use crate::broker::net::shares::Shares;
use crate::mqtt::{Filter, Message, QoS, Trie};
use crate::store::{Change, Options, Target, user_of};

#[derive(Debug)]
enum Subscriber {
    Session(Arc<Session>, Options),
    Group(Arc<Group>),
}

impl Subscriber {
    fn is(&self, session: &Arc<Session>) -> bool {
        matches!(self, Self::Session(other, _) if Arc::ptr_eq(other, session))
    }
}

/// Which sessions a look-up selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All of them.
    All,
    /// Those that may outlive their connection, and shared subscriptions: decided before the commit.
    Stored,
    /// Those that end with their connection: decided after the commit.
    Live,
}

/// A session whose queue gets a message.
#[derive(Debug)]
pub struct Recipient {
    pub session: Arc<Session>,
    pub wanted: Wanted,
    /// By a shared subscription: no other session gets the message.
    pub shared: bool,
    /// The session's count of UNSUBSCRIBEs when it was selected.
    pub unsubscribes: usize,
}

/// The sessions that get a message.
#[derive(Debug, Default)]
pub struct Selection {
    /// Sessions for which the message is committed, as targets of the commit and as sessions to notify.
    pub targets: Vec<Target>,
    pub stored: Vec<Arc<Session>>,
    /// Sessions whose queue gets the message.
    pub live: Vec<Recipient>,
}

impl Selection {
    fn add(&mut self, session: Arc<Session>, wanted: Wanted, shared: bool) {
        match session.persistent {
            Some(number) if wanted.qos > QoS::AtMostOnce => {
                let Wanted { qos, retain, identifiers } = wanted;
                self.targets.push(Target { session: number, qos, retain, identifiers });
                self.stored.push(session);
            }
            _ => {
                let unsubscribes = session.unsubscribes.load(Relaxed);
                self.live.push(Recipient { session, wanted, shared, unsubscribes });
            }
        }
    }
}

/// The numbers of a retained message; of a subscription, the latest that were given when it entered the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Given when the stored sessions are selected, before the commit.
    selected: u64,
    /// Given when the message becomes the retained one and the live sessions are selected, after the commit.
    published: u64,
}

impl Numbers {
    /// Whether a retained message with these numbers is replayed to a subscription of `session` that entered at
    /// `entered`; if not, it is delivered to it as it is published.
    pub fn is_replayed(self, entered: Self, session: &Session) -> bool {
        match session.persistent {
            Some(_) => self.selected <= entered.selected,
            None => self.published <= entered.published,
        }
    }
}

/// The latest numbers that were given.
#[derive(Debug, Default)]
struct Latest {
    selected: AtomicU64,
    published: AtomicU64,
}

/// Bytes that subscriptions take in the index and in their sessions, shared by user: see [`cost`]. 20,000 to filters of
/// four levels. It also bounds what a look-up costs: its nodes are all that one can visit.
pub const SUBSCRIPTION_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a subscription beside its filter, and of each level of it.
const SUBSCRIPTION_COST: usize = 256;
const LEVEL_COST: usize = 128;

/// Bytes that a subscription to `filter` is counted with.
fn cost(filter: &Filter) -> usize {
    SUBSCRIPTION_COST + filter.as_str().len() + LEVEL_COST * filter.levels()
}

/// The user has its share of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its user has its share of subscriptions")]
pub struct NoRoom;

#[derive(Debug)]
struct Index {
    trie: Trie<Subscriber>,
    /// By user.
    shares: Shares,
}

impl Default for Index {
    fn default() -> Self {
        Self { trie: Trie::default(), shares: Shares::new(SUBSCRIPTION_BYTES) }
    }
}

impl Index {
    fn holds(&self, filter: &Filter, session: &Arc<Session>) -> bool {
        self.trie.get(filter).iter().any(|subscriber| match subscriber {
            Subscriber::Session(..) => !filter.is_shared() && subscriber.is(session),
            Subscriber::Group(group) => group.filter == *filter && group.has(session),
        })
    }
}

/// All subscriptions by filter.
#[derive(Debug, Clone, Default)]
pub struct Subscriptions {
    index: Arc<RwLock<Index>>,
    latest: Arc<Latest>,
    queues: Arc<AllQueues>,
}

impl Subscriptions {
    /// A new session. Its subscriptions belong in this index.
    pub fn session(&self, client_id: &str, persistent: Option<i64>, state: State) -> Arc<Session> {
        Session::new(client_id, persistent, state, Arc::clone(&self.queues))
    }

    /// The outbound queues of all clients.
    pub const fn queues(&self) -> &Arc<AllQueues> {
        &self.queues
    }

    /// Bytes that wait in memory for all clients together.
    pub fn queued_bytes(&self) -> usize {
        self.queues.bytes()
    }

    /// As [`Subscriptions::add`], within the share of the session's user.
    ///
    /// # Errors
    /// When there is no room for a new subscription.
    pub fn try_add(
        &self,
        filter: &Filter,
        session: &Arc<Session>,
        options: Options,
    ) -> Result<Numbers, NoRoom> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let admits = index.shares.admits(user_of(&session.client_id), cost(filter))
            || index.holds(filter, session);
        drop(index);
        // Clients that subscribe in the same moment exceed the share by that much.
        if admits { Ok(self.add(filter, session, options)) } else { Err(NoRoom) }
    }

    /// Subscribes `session` to `filter`, or changes the options of its subscription.
    pub fn add(&self, filter: &Filter, session: &Arc<Session>, options: Options) -> Numbers {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if !index.holds(filter, session) {
            index.shares.take(&user_of(&session.client_id).into(), cost(filter));
        }
        let index = &mut index.trie;
        if filter.is_shared() {
            let known = index.get(filter).iter().find_map(|subscriber| match subscriber {
                Subscriber::Group(group) if group.filter == *filter => Some(Arc::clone(group)),
                _ => None,
            });
            let group = known.unwrap_or_else(|| {
                let group = Arc::new(Group::new(filter.clone()));
                index.insert(filter, Subscriber::Group(Arc::clone(&group)));
                group
            });
            group.join(session, options);
        } else {
            let known = index.get_mut(filter).iter_mut().find(|known| known.is(session));
            match known {
                Some(Subscriber::Session(_, held)) => *held = options,
                _ => index.insert(filter, Subscriber::Session(Arc::clone(session), options)),
            }
        }
        // Under the write lock, so that no look-up runs meanwhile.
        Numbers {
            selected: self.latest.selected.load(Relaxed),
            published: self.latest.published.load(Relaxed),
        }
    }

    /// Unsubscribes `session` from `filter`.
    pub fn remove(&self, filter: &Filter, session: &Arc<Session>) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        session.unsubscribes.fetch_add(1, Relaxed);
        let left = Cell::new(false);
        index.trie.remove(filter, |subscriber| match subscriber {
            Subscriber::Session(..) => {
                let is_its_own = !filter.is_shared() && subscriber.is(session);
                left.set(left.get() || is_its_own);
                is_its_own
            }
            Subscriber::Group(group) => {
                group.filter == *filter && {
                    left.set(left.get() || group.leave(session));
                    group.is_empty()
                }
            }
        });
        if left.get() {
            index.shares.give_back(user_of(&session.client_id), cost(filter));
        }
    }

    /// Removes all subscriptions of `session`.
    pub fn forget(&self, session: &Arc<Session>) {
        let filters: Vec<Filter> = session.state().subscriptions.keys().cloned().collect();
        for filter in &filters {
            self.remove(filter, session);
        }
    }

    /// Removes the shared subscriptions of `session` that `acl` does not grant any more. Of other subscriptions each
    /// message is checked when it is delivered. Returns the changes to commit.
    pub fn withdraw(&self, session: &Arc<Session>, acl: &CompiledAcl) -> Vec<Change> {
        let withdrawn: Vec<Filter> = {
            let mut state = session.state();
            let denied = |filter: &Filter| filter.is_shared() && !acl.may_subscribe(filter);
            state
                .subscriptions
                .extract_if(|filter, _| denied(filter))
                .map(|(filter, _)| filter)
                .collect()
        };
        for filter in &withdrawn {
            session.state().remove_rows(row_bytes(filter.as_str()));
            self.remove(filter, session);
        }
        let Some(number) = session.persistent else { return Vec::new() };
        let filters = withdrawn.into_iter().map(|filter| filter.as_str().to_owned());
        filters.map(|filter| Change::Unsubscribe { session: number, filter }).collect()
    }

    /// Selects the sessions that get `message`, which is not to be retained.
    pub fn select(&self, message: &Message) -> Selection {
        self.look_up(message, Scope::All, || ()).0
    }

    /// The number of subscriptions of stored sessions for which `message` will wait; a shared one counts once.
    pub fn stored_matches(&self, message: &Message) -> usize {
        if message.qos == QoS::AtMostOnce {
            return 0;
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut matches = 0;
        index.trie.matching(&message.topic, &mut |subscriber| {
            matches += match subscriber {
                Subscriber::Session(session, options) => {
                    let waits = session.persistent.is_some() && options.qos > QoS::AtMostOnce;
                    usize::from(waits)
                }
                Subscriber::Group(_) => 1,
            };
        });
        matches
    }

    /// Selects the stored sessions that get `message`, which is to be retained, and numbers it.
    pub fn select_stored(&self, message: &Message) -> (Selection, u64) {
        self.look_up(message, Scope::Stored, || self.latest.selected.fetch_add(1, Relaxed) + 1)
    }

    /// Calls `retain` with the numbers of `message`, and selects the sessions that get it as it is published: only the
    /// live ones where [`Subscriptions::select_stored`] gave it the number `selected` before.
    pub fn publish_retained(
        &self,
        message: &Message,
        selected: Option<u64>,
        retain: impl FnOnce(Numbers),
    ) -> Selection {
        let scope = if selected.is_some() { Scope::Live } else { Scope::All };
        let retain = || {
            let selected =
                selected.unwrap_or_else(|| self.latest.selected.fetch_add(1, Relaxed) + 1);
            let published = self.latest.published.fetch_add(1, Relaxed) + 1;
            retain(Numbers { selected, published });
        };
        self.look_up(message, scope, retain).0
    }

    /// Looks `message` up. `first` runs under the same lock, so that no subscription enters in between.
    fn look_up<R>(
        &self,
        message: &Message,
        scope: Scope,
        first: impl FnOnce() -> R,
    ) -> (Selection, R) {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let first = first();
        let (mut matching, mut groups) = (Vec::new(), Vec::new());
        index.trie.matching(&message.topic, &mut |subscriber| match subscriber {
            Subscriber::Session(session, options) => {
                let in_scope = match scope {
                    Scope::All => true,
                    Scope::Stored => session.persistent.is_some(),
                    Scope::Live => session.persistent.is_none(),
                };
                let own = options.no_local && *message.publisher == *session.client_id;
                if in_scope && !own {
                    matching.push((session, *options));
                }
            }
            Subscriber::Group(group) if scope != Scope::Live => groups.push(group),
            Subscriber::Group(_) => {}
        });
        let mut selection = Selection::default();
        // A session whose subscriptions overlap gets one delivery. Sorting puts its matches side by side.
        matching.sort_unstable_by_key(|(session, _)| session.serial);
        for overlapping in matching.chunk_by(|(one, _), (other, _)| Arc::ptr_eq(one, other)) {
            let [(session, options), more @ ..] = overlapping else { continue };
            let mut wanted = Wanted::new(*options, message);
            for (_, options) in more {
                wanted.add(*options, message);
            }
            selection.add(Arc::clone(session), wanted, false);
        }
        for group in groups {
            if let Some((session, wanted)) = group.select(message) {
                selection.add(session, wanted, true);
            }
        }
        (selection, first)
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::{FOR_EVER, Registry};
    use super::super::take_over::Lease;
    use super::*;

    fn subscribe(registry: &Registry, session: &Arc<Session>, filter: &str, qos: QoS) {
        subscribe_with(registry, session, filter, qos, 0);
    }

    fn subscribe_with(
        registry: &Registry,
        session: &Arc<Session>,
        filter: &str,
        qos: QoS,
        identifier: u32,
    ) {
        let filter: Filter = filter.parse().unwrap();
        let options = Options {
            qos,
            no_local: identifier == 9,
            retain_as_published: identifier == 2,
            identifier,
        };
        session.state().subscriptions.insert(filter.clone(), options);
        registry.subscriptions.add(&filter, session, options);
    }

    fn take(registry: &Registry, client_id: &str, expiry_s: u32) -> Lease {
        let lease = Lease::take(registry, client_id, expiry_s == 0, expiry_s, 0).unwrap();
        lease.session.queue.open();
        lease
    }

    fn message(qos: QoS) -> Message {
        Message { qos, retain: false, ..Message::own("a/b", "1") }
    }

    #[test]
    fn a_session_gets_a_message_once_however_many_of_its_subscriptions_match() {
        let registry = Registry::default();
        let (stored, live) = (take(&registry, "stored", FOR_EVER), take(&registry, "live", 0));
        for filter in ["a/#", "a/+"] {
            subscribe(&registry, &stored.session, filter, QoS::AtLeastOnce);
            subscribe(&registry, &live.session, filter, QoS::AtLeastOnce);
        }
        let selection = registry.subscriptions.select(&message(QoS::ExactlyOnce));
        assert_eq!((selection.targets.len(), selection.live.len()), (1, 1));
        assert_eq!(selection.targets[0].qos, QoS::AtLeastOnce);
        let selection = registry.subscriptions.select(&message(QoS::AtMostOnce));
        assert_eq!(
            (selection.targets.len(), selection.live.len()),
            (0, 2),
            "at QoS 0 nothing waits"
        );
        registry.subscriptions.forget(&stored.session);
        registry.subscriptions.forget(&live.session);
        let index = registry.subscriptions.index.read().unwrap();
        assert!(index.trie.is_empty() && index.shares.used() == 0);
    }

    #[test]
    fn a_user_has_its_share_of_subscriptions_and_the_next_one_finds_room() {
        let registry = Registry::default();
        let (a, b) = (take(&registry, "a\u{1}c", 0), take(&registry, "b\u{1}c", 0));
        let options = Options {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        let mut filters = Vec::new();
        loop {
            let filter: Filter = format!("{}{}", "a/".repeat(31), filters.len()).parse().unwrap();
            match registry.subscriptions.try_add(&filter, &a.session, options) {
                Ok(_) => filters.push(filter),
                Err(NoRoom) => break,
            }
        }
        let each = SUBSCRIPTION_BYTES / 2 / filters.len();
        assert!((4096..5120).contains(&each), "{} filters of 32 levels", filters.len());
        let again = |filter: &Filter, lease: &Lease| {
            registry.subscriptions.try_add(filter, &lease.session, options).is_ok()
        };
        assert!(again(&filters[0], &a) && again(&filters[0], &b));
        assert!(again(&"$share/g/a".parse().unwrap(), &b));
        for filter in &filters {
            registry.subscriptions.remove(filter, &a.session);
            // Twice, as when a session ends that another connection has taken over.
            registry.subscriptions.remove(filter, &a.session);
        }
        registry.subscriptions.remove(&"$share/g/a".parse().unwrap(), &b.session);
        registry.subscriptions.remove(&filters[0], &b.session);
        let index = registry.subscriptions.index.read().unwrap();
        assert!(index.trie.is_empty() && index.shares.used() == 0);
    }

    #[test]
    fn the_options_of_all_subscriptions_that_match_make_one_delivery() {
        let registry = Registry::default();
        let lease = take(&registry, "a", 0);
        for (filter, qos, identifier) in [
            ("a/#", QoS::AtLeastOnce, 1),
            ("a/+", QoS::ExactlyOnce, 2),
            // No Local, and the message is this client's.
            ("a/b", QoS::AtMostOnce, 9),
            ("c", QoS::AtMostOnce, 3),
        ] {
            subscribe_with(&registry, &lease.session, filter, qos, identifier);
        }
        let mut message = Message { retain: true, ..message(QoS::ExactlyOnce) };
        message.publisher = Arc::from("a");
        let mut wanted = registry.subscriptions.select(&message).live.pop().unwrap().wanted;
        wanted.identifiers.sort_unstable();
        assert_eq!(
            (wanted.qos, wanted.retain, wanted.identifiers),
            (QoS::ExactlyOnce, true, vec![1, 2])
        );
        // Another QoS for the one that gave the highest.
        subscribe_with(&registry, &lease.session, "a/+", QoS::AtMostOnce, 2);
        let wanted = registry.subscriptions.select(&message).live.pop().unwrap().wanted;
        assert_eq!(wanted.qos, QoS::AtLeastOnce);
        message.topic = "d".parse().unwrap();
        assert!(registry.subscriptions.select(&message).live.is_empty());
    }

    #[test]
    fn a_shared_message_goes_to_one_connected_member_in_turn() {
        let registry = Registry::default();
        let members: Vec<_> = ["a", "b", "c"].map(|id| take(&registry, id, 0)).into();
        let away = take(&registry, "away", FOR_EVER);
        away.session.queue.close();
        for member in members.iter().chain([&away]) {
            subscribe(&registry, &member.session, "$share/g/a/#", QoS::AtLeastOnce);
        }
        let selected = || {
            let selection = registry.subscriptions.select(&message(QoS::AtMostOnce));
            selection.live.first().map(|recipient| recipient.session.client_id.to_string())
        };
        let turns: Vec<_> = (0..4).map(|_| selected().unwrap()).collect();
        assert_eq!(turns, ["a", "b", "c", "a"]);
        for member in &members {
            registry.subscriptions.forget(&member.session);
        }
        assert_eq!(selected(), None);
        let waits = registry.subscriptions.select(&message(QoS::AtLeastOnce));
        assert_eq!(waits.targets.len(), 1, "a persistent member can have it later");
        registry.subscriptions.forget(&away.session);
        let index = registry.subscriptions.index.read().unwrap();
        assert!(index.trie.is_empty() && index.shares.used() == 0);
    }

    #[test]
    fn a_retained_message_is_either_replayed_or_delivered_whenever_a_subscription_enters() {
        // The steps of a retained publish, with a subscription entering before each of them.
        for (client, expiry_s) in [("live", 0), ("stored", FOR_EVER)] {
            for entering in 0..3 {
                let registry = Registry::default();
                let lease = take(&registry, client, expiry_s);
                let filter: Filter = "a/#".parse().unwrap();
                let options = Options {
                    qos: QoS::AtLeastOnce,
                    no_local: false,
                    retain_as_published: false,
                    identifier: 0,
                };
                let enter = |step: usize| {
                    (step == entering)
                        .then(|| registry.subscriptions.add(&filter, &lease.session, options))
                };
                let message = message(QoS::AtLeastOnce);
                let mut entered = enter(0);
                let (stored, number) = registry.subscriptions.select_stored(&message);
                entered = entered.or_else(|| enter(1));
                let mut numbers = Numbers::default();
                let live =
                    registry
                        .subscriptions
                        .publish_retained(&message, Some(number), |given| numbers = given);
                let entered = entered.or_else(|| enter(2)).unwrap();
                let delivered = stored.targets.len() + live.live.len();
                let replayed = usize::from(numbers.is_replayed(entered, &lease.session));
                assert_eq!(delivered + replayed, 1, "{client} before step {entering}");
            }
        }
    }
}
