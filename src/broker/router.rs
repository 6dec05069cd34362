//! rumqttd behind one file: its router fans out what was accepted, nothing more.
//!
//! What its source and measurements taught, and where it is answered:
//! - It acknowledges before it appends. So it is given `QoS` 0 copies, and the connection acknowledges.
//! - It keeps counters of every client id for ever and panics on some ids. So a link's name is a
//!   number of ours that is used again, and a client that only publishes has no link at all.
//! - `topic[..1]` panics on a topic whose first character is not ASCII. So such topics and filters
//!   travel inside with a marker in front.
//! - A persistent member that is the last of a `$share` group panics it on leaving, and a member that
//!   stalls makes it spin. So there are no shared subscriptions (`access`).
//! - An acknowledgement out of order makes it drop the link, and a word on a dropped link panics it. So a
//!   link keeps its own count and lets only acknowledgements in order through.
//! - It remembers every filter, topic and retained message. So `ledger` counts what goes in.
//! - An UNSUBSCRIBE from what was not subscribed is never answered, and one from two filters twice.
//!   So the connection answers SUBSCRIBE and UNSUBSCRIBE itself.
//! - It has no end and no error to wait for. So a link that breaks by itself means that it died.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter as RouterFilter, Packet, PubAck, PubAckReason,
    PubComp, PubCompReason, PubRec, PubRecReason, Publish, QoS, RetainForwardRule, Subscribe,
    Unsubscribe,
};
use rumqttd::{Notification, RouterConfig};
use tokio::sync::Mutex;

use super::ledger::Ledger;
use super::packet::Message;
use crate::wire::Filter;

/// Links at once: subscribers, and the one that publishes.
const LINKS: usize = 4096;
/// Log segments a filter keeps for readers that lag, and their size in bytes.
const SEGMENTS: usize = 2;
const SEGMENT_BYTES: usize = 256 * 1024;
/// Most messages in one go to a `QoS` 0 subscriber. rumqttd also cuts off retained messages here, so it
/// is far above what one hall has (a node has about ten).
const OUTGOING_BURST: u64 = 5000;
/// Messages that wait for the router before publishers wait too, and how long they wait between looks.
const PENDING_MESSAGES: usize = 4096;
const PENDING_PAUSE: Duration = Duration::from_millis(1);
/// In front of a topic whose first character is not ASCII. No client can send it: topics with control
/// characters are refused.
const MARKER: &str = "\u{1}";

/// The router's thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message router died")]
pub struct RouterDied;

type Connect = dyn Fn(&str, bool) -> Result<(LinkTx, LinkRx), RouterDied> + Send + Sync;

/// A running rumqttd router.
#[derive(Clone)]
pub struct Router {
    /// rumqttd does not export the type of its event channel, so the sender lives in a closure.
    connect: Arc<Connect>,
    publisher: Arc<Mutex<LinkTx>>,
    ledger: Arc<StdMutex<Ledger>>,
    names: Arc<Names>,
}

/// Names of clean links. They are used again, so that the router's memory of names stays as small as
/// the most links that were ever open at once.
#[derive(Debug, Default)]
struct Names {
    free: StdMutex<(u64, Vec<u64>)>,
}

impl Names {
    fn take(&self) -> u64 {
        let mut guard = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, free) = &mut *guard;
        free.pop().unwrap_or_else(|| {
            *next += 1;
            *next
        })
    }

    fn give_back(&self, name: u64) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).1.push(name);
    }
}

impl Router {
    /// Starts the router's thread. The future resolves when that has died.
    ///
    /// # Errors
    /// When it dies at once.
    pub async fn start()
    -> Result<(Self, impl Future<Output = RouterDied> + Send + 'static), RouterDied> {
        let config = RouterConfig {
            max_connections: LINKS,
            max_outgoing_packet_count: OUTGOING_BURST,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        };
        let events = rumqttd::Router::new(0, config).spawn();
        let connect: Arc<Connect> = Arc::new(move |name, clean| {
            let built = LinkBuilder::new(name, events.clone()).clean_session(clean).build();
            built.map(|(tx, rx, _)| (tx, rx)).map_err(|_| RouterDied)
        });
        let (publisher, mut watch) = open(&connect, "publisher".to_owned(), true).await?;
        let died = async move {
            // This link never subscribes, so the only thing it can hear is its own end.
            while watch.next().await.is_ok() {}
            RouterDied
        };
        let publisher = Arc::new(Mutex::new(publisher));
        Ok((Self { connect, publisher, ledger: Arc::default(), names: Arc::default() }, died))
    }

    /// Passes messages on to whoever is subscribed, in this order.
    ///
    /// # Errors
    /// When the router has died.
    pub async fn publish(&self, messages: &[Message]) -> Result<(), RouterDied> {
        let packets: Vec<Packet> = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let passed = messages.iter().filter_map(|message| {
                let retain = ledger.pass(message)?;
                let topic = Bytes::copy_from_slice(inside(&message.topic).as_bytes());
                Some(Packet::Publish(Publish::new(topic, message.payload.clone(), retain), None))
            });
            passed.collect()
        };
        if packets.is_empty() {
            return Ok(());
        }
        let mut publisher = self.publisher.lock().await;
        // The router says nothing when it has caught up, so it is looked at.
        while publisher.buffer().len() > PENDING_MESSAGES {
            tokio::time::sleep(PENDING_PAUSE).await;
        }
        push(&mut publisher, packets).await
    }

    /// Whether a filter may be subscribed: the router keeps a log for each one ever.
    pub fn admit(&self, filter: &Filter) -> bool {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).subscribe(filter)
    }

    /// Opens a link for a subscriber that leaves nothing behind.
    ///
    /// # Errors
    /// When the router has died or all links are taken.
    pub async fn clean_link(&self) -> Result<Link, RouterDied> {
        let name = self.names.take();
        match open(&self.connect, format!("c{name}"), true).await {
            Ok((tx, rx)) => Ok(Link::new(tx, rx, Some((name, Arc::clone(&self.names))))),
            Err(died) => {
                self.names.give_back(name);
                Err(died)
            }
        }
    }

    /// Opens the link of persistent session `number`, which finds its subscriptions, and what waits
    /// for it, again. With `clean` it forgets them.
    ///
    /// # Errors
    /// When the router has died or all links are taken.
    pub async fn persistent_link(&self, number: u64, clean: bool) -> Result<Link, RouterDied> {
        let (tx, rx) = open(&self.connect, format!("p{number}"), clean).await?;
        Ok(Link::new(tx, rx, None))
    }
}

async fn open(
    connect: &Arc<Connect>,
    name: String,
    clean: bool,
) -> Result<(LinkTx, LinkRx), RouterDied> {
    let connect = Arc::clone(connect);
    // `build` waits for the router's thread.
    tokio::task::spawn_blocking(move || connect(&name, clean)).await.map_err(|_| RouterDied)?
}

/// Hands packets to the router with at most one wake-up.
///
/// The router swaps the whole buffer out on a wake-up, so whoever finds it empty sends one and the
/// others' packets ride along. Without this, every batch of every connection would queue an event of
/// its own on a channel whose `send` blocks the thread when 1,000 wait.
async fn push(
    link: &mut LinkTx,
    packets: impl IntoIterator<Item = Packet>,
) -> Result<(), RouterDied> {
    let wake = {
        let mut buffer = link.buffer();
        let riding = !buffer.is_empty();
        buffer.extend(packets);
        if riding { None } else { buffer.pop_back() }
    };
    match wake {
        Some(last) => link.send(last).await.map(|_| ()).map_err(|_| RouterDied),
        None => Ok(()),
    }
}

/// A subscriber's link to the router. Dropping it disconnects.
pub struct Link {
    tx: LinkTx,
    rx: LinkRx,
    name: Option<(u64, Arc<Names>)>,
    /// Delivered, not acknowledged; and whether the client has acknowledged already, before its turn.
    delivered: Acknowledgements,
    /// Released (PUBREL sent), not completed.
    released: Acknowledgements,
}

/// What the router has for a connection.
// On the stack for a moment; a box would cost an allocation a message.
#[allow(clippy::large_enum_variant)]
pub enum Delivery {
    /// For the client: a PUBLISH or a PUBREL.
    Packet(Packet),
    /// The router knows the filters of the oldest SUBSCRIBE that is not confirmed yet.
    Subscribed,
    /// Something between the router and us.
    Nothing,
}

/// Packet ids in the order in which the router wants them acknowledged.
#[derive(Debug, Default)]
struct Acknowledgements(VecDeque<(u16, bool)>);

impl Acknowledgements {
    fn expect(&mut self, pkid: u16) {
        self.0.push_back((pkid, false));
    }

    /// Notes one and returns those whose turn has come; `None` when it was not expected.
    fn take(&mut self, pkid: u16) -> Option<Vec<u16>> {
        self.0.iter_mut().find(|(expected, taken)| *expected == pkid && !taken)?.1 = true;
        let mut due = Vec::new();
        while let Some((pkid, true)) = self.0.front().copied() {
            self.0.pop_front();
            due.push(pkid);
        }
        Some(due)
    }
}

/// Why a link does not take an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Of nothing that was sent.
    #[error("an acknowledgement of what was never sent")]
    Unasked,
    /// See [`RouterDied`].
    #[error(transparent)]
    Died(#[from] RouterDied),
}

impl Link {
    fn new(tx: LinkTx, rx: LinkRx, name: Option<(u64, Arc<Names>)>) -> Self {
        Self {
            tx,
            rx,
            name,
            delivered: Acknowledgements::default(),
            released: Acknowledgements::default(),
        }
    }

    /// What comes next. Cancelling and calling again loses nothing.
    ///
    /// # Errors
    /// When the router has died or dropped this link.
    pub async fn next(&mut self) -> Result<Delivery, RouterDied> {
        let Some(notification) = self.rx.next().await.map_err(|_| RouterDied)? else {
            return Ok(Delivery::Nothing);
        };
        Ok(match notification {
            // Without an answer the router never sends on this link again. `ready` and not `wake`: that one
            // may be cancelled half-way, and the answer with it.
            Notification::Unschedule => {
                self.rx.ready().map_err(|_| RouterDied)?;
                Delivery::Nothing
            }
            Notification::Forward(mut forward) => {
                if let Some(topic) = forward.publish.topic.strip_prefix(MARKER.as_bytes()) {
                    forward.publish.topic = forward.publish.topic.slice_ref(topic);
                }
                Delivery::Packet(Packet::Publish(forward.publish, forward.properties))
            }
            other => match Option::<Packet>::from(other) {
                Some(Packet::PubRel(release, properties)) => {
                    self.released.expect(release.pkid);
                    Delivery::Packet(Packet::PubRel(release, properties))
                }
                Some(Packet::SubAck(..)) => Delivery::Subscribed,
                // Everything else the connection has said itself.
                _ => Delivery::Nothing,
            },
        })
    }

    /// Notes that a PUBLISH with this packet id went to the client.
    pub fn sent(&mut self, pkid: u16) {
        self.delivered.expect(pkid);
    }

    /// Subscribes, with retained messages to follow.
    ///
    /// # Errors
    /// When the router has died.
    pub async fn subscribe(&mut self, filters: &[(Filter, u8)]) -> Result<(), RouterDied> {
        let filters = filters
            .iter()
            .map(|(filter, qos)| RouterFilter {
                path: inside_filter(filter),
                qos: rumqttd::protocol::qos(*qos).unwrap_or(QoS::AtMostOnce),
                nolocal: false,
                preserve_retain: false,
                retain_forward_rule: RetainForwardRule::OnEverySubscribe,
            })
            .collect();
        self.send(Packet::Subscribe(Subscribe { pkid: 1, filters }, None)).await
    }

    /// Unsubscribes from filters that were subscribed.
    ///
    /// # Errors
    /// When the router has died.
    pub async fn unsubscribe(&mut self, filters: &[Filter]) -> Result<(), RouterDied> {
        let filters = filters.iter().map(inside_filter).collect();
        self.send(Packet::Unsubscribe(Unsubscribe { pkid: 1, filters }, None)).await
    }

    /// The subscriber's PUBACK.
    ///
    /// # Errors
    /// When it was not asked for, or the router has died.
    pub async fn puback(&mut self, pkid: u16) -> Result<(), LinkError> {
        let due = self.delivered.take(pkid).ok_or(LinkError::Unasked)?;
        let reason = PubAckReason::Success;
        let packets = due.into_iter().map(|pkid| Packet::PubAck(PubAck { pkid, reason }, None));
        Ok(push(&mut self.tx, packets).await?)
    }

    /// The subscriber's PUBREC.
    ///
    /// # Errors
    /// When it was not asked for, or the router has died.
    pub async fn pubrec(&mut self, pkid: u16) -> Result<(), LinkError> {
        let due = self.delivered.take(pkid).ok_or(LinkError::Unasked)?;
        let reason = PubRecReason::Success;
        let packets = due.into_iter().map(|pkid| Packet::PubRec(PubRec { pkid, reason }, None));
        Ok(push(&mut self.tx, packets).await?)
    }

    /// The subscriber's PUBCOMP.
    ///
    /// # Errors
    /// When it was not asked for, or the router has died.
    pub async fn pubcomp(&mut self, pkid: u16) -> Result<(), LinkError> {
        let due = self.released.take(pkid).ok_or(LinkError::Unasked)?;
        let reason = PubCompReason::Success;
        let packets = due.into_iter().map(|pkid| Packet::PubComp(PubComp { pkid, reason }, None));
        Ok(push(&mut self.tx, packets).await?)
    }

    async fn send(&mut self, packet: Packet) -> Result<(), RouterDied> {
        push(&mut self.tx, [packet]).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        self.tx.buffer().push_back(Packet::Disconnect(Disconnect { reason_code }, None));
        // Only a packet brings a wake-up with it, and the router stops at the DISCONNECT before it
        // sees this one. An error means that the router is gone, which its watch reports.
        let _ = self.tx.unsubscribe(String::new());
        if let Some((name, names)) = self.name.take() {
            names.give_back(name);
        }
    }
}

fn inside(topic: &str) -> Cow<'_, str> {
    if topic.is_ascii() || topic.starts_with(|first: char| first.is_ascii()) {
        Cow::Borrowed(topic)
    } else {
        Cow::Owned([MARKER, topic].concat())
    }
}

fn inside_filter(filter: &Filter) -> String {
    let (share, filter) = filter.parts();
    [share, &inside(filter)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_reach_the_router_in_its_order_and_unasked_ones_never() {
        let mut expected = Acknowledgements::default();
        (1..=3).for_each(|pkid| expected.expect(pkid));
        assert_eq!(expected.take(2), Some(vec![]));
        assert_eq!(expected.take(2), None);
        assert_eq!(expected.take(9), None);
        assert_eq!(expected.take(1), Some(vec![1, 2]));
        assert_eq!(expected.take(3), Some(vec![3]));
        assert_eq!(expected.take(3), None);
    }
}
