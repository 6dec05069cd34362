//! Who gets a message beside the router: persistent sessions, for which it is committed first, and the members of
//! shared subscriptions, of whom one gets it.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::mqtt::QoS;
use tokio::sync::Notify;

use crate::broker::delivery::outbound::Parcel;
use crate::broker::session::session::{Session, Wanted};
use crate::mqtt::Trie;
use crate::mqtt::{Filter, Message};
use crate::store::Target;

#[derive(Debug, Clone)]
enum Taker {
    Session(Arc<Session>),
    Group(Arc<Group>),
}

/// A shared subscription: a group's name and filter.
#[derive(Debug)]
struct Group {
    filter: Filter,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    sessions: Vec<Arc<Session>>,
    /// Whose turn it is.
    next: usize,
}

impl Group {
    /// The member who gets `message`: the next one who is connected, or else one for whom it can wait.
    fn deal(&self, message: &Message) -> Option<(Arc<Session>, Wanted)> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let count = members.sessions.len();
        let mut patient = None;
        for n in 0..count {
            let turn = (members.next + n) % count;
            let member = &members.sessions[turn];
            let Some((wanted, connected)) = member.share(&self.filter, message) else { continue };
            if connected {
                let dealt = (Arc::clone(member), wanted);
                members.next = turn + 1;
                return Some(dealt);
            }
            if patient.is_none() && member.persistent.is_some() && wanted.qos > QoS::AtMostOnce {
                patient = Some((turn, Arc::clone(member), wanted));
            }
        }
        let (turn, member, wanted) = patient?;
        members.next = turn + 1;
        Some((member, wanted))
    }
}

/// Who gets a message beside the router.
#[derive(Debug, Default)]
pub struct Found {
    /// For whom it is to be committed.
    pub targets: Vec<Target>,
    /// Whom to tell when it is.
    pub wake: Vec<Arc<Notify>>,
    /// To whom it is handed at once.
    pub handed: Vec<(Arc<Session>, Wanted)>,
}

impl Found {
    fn add(&mut self, session: Arc<Session>, wanted: Wanted) {
        match session.persistent {
            Some(number) if wanted.qos > QoS::AtMostOnce => {
                let Wanted { qos, retain, identifiers } = wanted;
                self.targets.push(Target { session: number, qos, retain, identifiers });
                self.wake.push(Arc::clone(&session.wake));
            }
            _ => self.handed.push((session, wanted)),
        }
    }
}

/// Persistent sessions and groups by filter.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    takers: Arc<RwLock<Trie<Taker>>>,
}

impl Routes {
    /// Notes that `session` has subscribed to `filter`. Noting it twice is fine.
    pub fn add(&self, filter: &Filter, session: &Arc<Session>) {
        let mut takers = self.takers.write().unwrap_or_else(PoisonError::into_inner);
        if filter.is_shared() {
            let known = takers.get(filter).iter().find_map(|taker| match taker {
                Taker::Group(group) if group.filter == *filter => Some(Arc::clone(group)),
                _ => None,
            });
            let group = known.unwrap_or_else(|| {
                let group = Arc::new(Group { filter: filter.clone(), members: Mutex::default() });
                takers.insert(filter, Taker::Group(Arc::clone(&group)));
                group
            });
            let mut members = group.members.lock().unwrap_or_else(PoisonError::into_inner);
            if !members.sessions.iter().any(|member| Arc::ptr_eq(member, session)) {
                members.sessions.push(Arc::clone(session));
            }
        } else if session.persistent.is_some()
            && !takers.get(filter).iter().any(|taker| taker.is(session))
        {
            takers.insert(filter, Taker::Session(Arc::clone(session)));
        }
    }

    /// Notes that `session` has unsubscribed from `filter`.
    pub fn remove(&self, filter: &Filter, session: &Arc<Session>) {
        if !filter.is_shared() && session.persistent.is_none() {
            return;
        }
        let mut takers = self.takers.write().unwrap_or_else(PoisonError::into_inner);
        takers.remove(filter, |taker| match taker {
            Taker::Session(_) => !filter.is_shared() && taker.is(session),
            Taker::Group(group) if group.filter == *filter => {
                let mut members = group.members.lock().unwrap_or_else(PoisonError::into_inner);
                members.sessions.retain(|member| !Arc::ptr_eq(member, session));
                members.sessions.is_empty()
            }
            Taker::Group(_) => false,
        });
    }

    /// Forgets `session`.
    pub fn forget(&self, session: &Arc<Session>) {
        let filters: Vec<Filter> = session.state().subscriptions.keys().cloned().collect();
        for filter in &filters {
            self.remove(filter, session);
        }
    }

    /// Who gets `message`; `None` when nobody does, which costs a look.
    pub fn find(&self, message: &Message) -> Option<Found> {
        self.find_among(message, |_| true)
    }

    /// Who of the members of shared subscriptions gets `message`.
    pub fn find_members(&self, message: &Message) -> Option<Found> {
        self.find_among(message, |taker| matches!(taker, Taker::Group(_)))
    }

    /// Which persistent sessions get `message` by subscriptions of their own.
    pub fn find_sessions(&self, message: &Message) -> Option<Found> {
        self.find_among(message, |taker| matches!(taker, Taker::Session(_)))
    }

    fn find_among(&self, message: &Message, among: impl Fn(&Taker) -> bool) -> Option<Found> {
        let takers = self.takers.read().unwrap_or_else(PoisonError::into_inner);
        let mut matching: Vec<Taker> = Vec::new();
        takers.matching(&message.topic, &mut |taker| match taker {
            Taker::Session(_) if message.qos == QoS::AtMostOnce => {}
            Taker::Session(session) if matching.iter().any(|other| other.is(session)) => {}
            _ if among(taker) => matching.push(taker.clone()),
            _ => {}
        });
        drop(takers);
        if matching.is_empty() {
            return None;
        }
        let mut found = Found::default();
        for taker in matching {
            match taker {
                Taker::Session(session) => {
                    // At QoS 0 it comes by the router.
                    if let Some(wanted) =
                        session.wanted(message).filter(|wanted| wanted.qos > QoS::AtMostOnce)
                    {
                        found.add(session, wanted);
                    }
                }
                Taker::Group(group) => {
                    if let Some((session, wanted)) = group.deal(message) {
                        found.add(session, wanted);
                    }
                }
            }
        }
        Some(found)
    }
}

impl Taker {
    fn is(&self, session: &Arc<Session>) -> bool {
        matches!(self, Self::Session(other) if Arc::ptr_eq(other, session))
    }
}

/// Hands a shared message to a connected member. Returns how many messages were lost: this one if the member has
/// left, or those that had to make room.
pub fn hand(session: &Session, message: &Arc<Message>, wanted: Wanted) -> u64 {
    let Wanted { qos, retain, identifiers } = wanted;
    let parcel = Parcel { message: Arc::clone(message), qos, retain, identifiers };
    let inbox = session.state().inbox.clone();
    inbox.map_or(1, |inbox| inbox.put(parcel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::session::registry::{FOR_EVER, Sessions};
    use crate::store::Options;

    fn subscribe(sessions: &Sessions, session: &Arc<Session>, filter: &str) {
        let filter: Filter = filter.parse().unwrap();
        let options = Options {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        session.state().subscriptions.insert(filter.clone(), options);
        sessions.routes.add(&filter, session);
    }

    fn message(qos: QoS) -> Message {
        Message { qos, retain: false, ..Message::own("a/b", "1") }
    }

    #[test]
    fn a_message_waits_once_for_each_persistent_session_that_wants_it() {
        let sessions = Sessions::default();
        let one = sessions.claim("one", false, FOR_EVER, 0).unwrap();
        let two = sessions.claim("two", true, 0, 0).unwrap();
        for filter in ["a/#", "a/+"] {
            subscribe(&sessions, &one.session, filter);
            subscribe(&sessions, &two.session, filter);
        }
        let found = sessions.routes.find(&message(QoS::ExactlyOnce)).unwrap();
        assert_eq!((found.targets.len(), found.handed.len()), (1, 0));
        assert_eq!(found.targets[0].qos, QoS::AtLeastOnce);
        assert!(sessions.routes.find(&message(QoS::AtMostOnce)).is_none());
        sessions.routes.forget(&one.session);
        assert!(sessions.routes.takers.read().unwrap().is_empty());
    }

    #[test]
    fn a_shared_message_goes_to_one_connected_member_in_turn() {
        let sessions = Sessions::default();
        let members: Vec<_> =
            ["a", "b", "c"].map(|id| sessions.claim(id, true, 0, 0).unwrap()).into();
        let away = sessions.claim("away", false, FOR_EVER, 0).unwrap();
        let inbox = Arc::<crate::broker::delivery::inbox::Inbox>::default();
        for member in &members {
            subscribe(&sessions, &member.session, "$share/g/a/#");
            member.session.state().inbox = Some(Arc::clone(&inbox));
        }
        subscribe(&sessions, &away.session, "$share/g/a/#");
        let dealt = || {
            let found = sessions.routes.find(&message(QoS::AtMostOnce))?;
            found.handed.first().map(|(session, _)| session.client_id.to_string())
        };
        let turns: Vec<_> = (0..4).map(|_| dealt().unwrap()).collect();
        assert_eq!(turns, ["a", "b", "c", "a"]);
        for member in &members {
            sessions.routes.forget(&member.session);
        }
        assert_eq!(dealt(), None);
        let waits = sessions.routes.find(&message(QoS::AtLeastOnce)).unwrap();
        assert_eq!(waits.targets.len(), 1, "a persistent member can have it later");
        sessions.routes.forget(&away.session);
        assert!(sessions.routes.takers.read().unwrap().is_empty());
    }
}
