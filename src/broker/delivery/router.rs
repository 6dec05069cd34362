//! rumqttd behind one file: its router fans out what was accepted, nothing more.
//!
//! What its source and measurements taught, and where it is answered:
//! - It acknowledges before it appends. So it is given `QoS` 0 copies, what else a subscriber must know travels
//!   in the payload (`envelope`), and the connections number and acknowledge.
//! - It keeps counters of every client id for ever and panics on some ids. So a link's name is a
//!   number of ours that is used again, and a client that only publishes has no link at all.
//! - `topic[..1]` panics on a topic whose first character is not ASCII, and `$…` cannot be subscribed to. So such
//!   topics and filters travel inside with a marker in front.
//! - A persistent member that is the last of a `$share` group panics it on leaving, and a member that
//!   stalls makes it spin. So shared subscriptions are dealt out by `routes`.
//! - Retained messages are lost with it, deleted by any empty message and cut off at a count. So it has none
//!   (`retained`).
//! - It remembers every filter and topic. So `ledger` counts what goes in.
//! - Each filter of a subscriber that matches brings a copy. So a link lets one of them through.
//! - An UNSUBSCRIBE from what was not subscribed is never answered, and one from two filters twice.
//!   So the connection answers SUBSCRIBE and UNSUBSCRIBE itself.
//! - It has no end and no error to wait for. So a link that breaks by itself means that it died.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter as RouterFilter, Packet, Publish, QoS,
    RetainForwardRule, Subscribe, Unsubscribe,
};
use rumqttd::{Notification, RouterConfig};
use tokio::sync::Mutex;

use crate::broker::delivery::copies::Copies;
use crate::broker::delivery::envelope;
use crate::broker::delivery::ledger::Ledger;
use crate::mqtt::{Filter, Message};

/// Links at once: subscribers, and the one that publishes.
const LINKS: usize = 4096;
/// Links kept open for who subscribes next: opening one takes a turn of the router's thread, and meanwhile a
/// message that is published after the SUBSCRIBE would overtake it.
const SPARE_LINKS: usize = 4;
/// Log segments a filter keeps for readers that lag, and their size in bytes.
const SEGMENTS: usize = 2;
const SEGMENT_BYTES: usize = 256 * 1024;
/// Most messages in one go to a subscriber.
const OUTGOING_BURST: u64 = 5000;
/// Messages and their bytes that wait for the router before publishers wait too, and how long they wait between
/// looks.
const PENDING_MESSAGES: usize = 4096;
const PENDING_BYTES: usize = 4 * 1024 * 1024;
const PENDING_PAUSE: Duration = Duration::from_millis(1);
/// In front of a topic whose first character is not ASCII, or `$`. No client can send it: topics with control
/// characters are refused.
const MARKER: &str = "\u{1}";
/// The filter that gets everything, `$…` too, whose first level inside is not `$…`.
const EVERYTHING: &str = "#";

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
    publisher: Arc<Mutex<Publisher>>,
    ledger: Arc<StdMutex<Ledger>>,
    /// Messages passed on so far.
    serial: Arc<AtomicU64>,
    names: Arc<Names>,
    spare: Arc<StdMutex<Vec<Link>>>,
}

struct Publisher {
    link: LinkTx,
    /// Bytes handed over since the router last took all.
    pending_bytes: usize,
}

/// Names of links. They are used again, so that the router's memory of names stays as small as
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
        let publisher = Arc::new(Mutex::new(Publisher { link: publisher, pending_bytes: 0 }));
        let (ledger, names, serial) = <(Arc<_>, Arc<_>, Arc<_>)>::default();
        let spare = Arc::default();
        let router = Self { connect, publisher, ledger, serial, names, spare };
        for _ in 0..SPARE_LINKS {
            let link = router.open_link().await?;
            router.spare().push(link);
        }
        Ok((router, died))
    }

    /// Passes messages on to whoever is subscribed, in this order.
    ///
    /// # Errors
    /// When the router has died.
    pub async fn publish(&self, messages: &[Message]) -> Result<(), RouterDied> {
        let mut bytes = 0;
        let packets: Vec<Packet> = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let passed = messages.iter().filter(|message| ledger.pass(&message.topic));
            let packed = passed.map(|message| {
                let topic = Bytes::copy_from_slice(inside(&message.topic).as_bytes());
                let packed = envelope::pack(message, self.serial.fetch_add(1, Relaxed));
                bytes += topic.len() + packed.len();
                Packet::Publish(Publish::new(topic, packed, false), None)
            });
            packed.collect()
        };
        if packets.is_empty() {
            return Ok(());
        }
        let mut publisher = self.publisher.lock().await;
        // The router says nothing when it has caught up, so it is looked at.
        loop {
            let pending = publisher.link.buffer().len();
            if pending == 0 {
                publisher.pending_bytes = 0;
            }
            if pending <= PENDING_MESSAGES && publisher.pending_bytes <= PENDING_BYTES {
                break;
            }
            tokio::time::sleep(PENDING_PAUSE).await;
        }
        publisher.pending_bytes += bytes;
        push(&mut publisher.link, packets).await
    }

    /// A link for a subscriber.
    ///
    /// # Errors
    /// When the router has died or all links are taken.
    pub async fn link(&self) -> Result<Link, RouterDied> {
        let spare = self.spare().pop();
        let Some(link) = spare else { return self.open_link().await };
        let router = self.clone();
        tokio::spawn(async move {
            // Whoever subscribes next hears of it when it fails.
            if let Ok(link) = router.open_link().await {
                router.spare().push(link);
            }
        });
        Ok(link)
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_link(&self) -> Result<Link, RouterDied> {
        let name = self.names.take();
        match open(&self.connect, format!("c{name}"), true).await {
            Ok((tx, rx)) => Ok(Link {
                tx,
                rx,
                name,
                names: Arc::clone(&self.names),
                ledger: Arc::clone(&self.ledger),
                filters: HashMap::new(),
                leaving: VecDeque::new(),
                copies: Copies::default(),
            }),
            Err(died) => {
                self.names.give_back(name);
                Err(died)
            }
        }
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
    name: u64,
    names: Arc<Names>,
    ledger: Arc<StdMutex<Ledger>>,
    /// What is subscribed, and under which filter the router knows it.
    filters: HashMap<Filter, Filter>,
    /// The router's filters that it has not confirmed to be gone: what it has of them is still on its way.
    leaving: VecDeque<Filter>,
    copies: Copies,
}

/// What the router has for a connection.
#[derive(Debug)]
pub enum Delivery {
    /// A message that one of the filters matches, once.
    Message(Box<Message>),
    /// The router knows the filters of the oldest SUBSCRIBE that is not confirmed yet.
    Subscribed,
    /// Something between the router and us.
    Nothing,
}

impl Link {
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
            Notification::Forward(forward) => {
                let topic = &forward.publish.topic;
                let topic = topic.strip_prefix(MARKER.as_bytes()).unwrap_or(topic);
                match envelope::unpack(topic, forward.publish.payload) {
                    Some((message, serial)) if self.is_first(&message.topic, serial) => {
                        Delivery::Message(Box::new(message))
                    }
                    _ => Delivery::Nothing,
                }
            }
            other => match Option::<Packet>::from(other) {
                Some(Packet::SubAck(..)) => Delivery::Subscribed,
                // One for each filter, in their order.
                Some(Packet::UnsubAck(..)) => {
                    self.leaving.pop_front();
                    Delivery::Nothing
                }
                // Everything else the connection has said itself.
                _ => Delivery::Nothing,
            },
        })
    }

    fn is_first(&mut self, topic: &str, serial: u64) -> bool {
        if self.copies.are_none() && self.filters.len() + self.leaving.len() < 2 {
            return true;
        }
        self.copies.is_first(topic, serial, self.filters.values().chain(&self.leaving))
    }

    /// Subscribes; [`Delivery::Subscribed`] follows.
    ///
    /// # Errors
    /// When the router has died.
    pub async fn subscribe(&mut self, filters: &[Filter]) -> Result<(), RouterDied> {
        let known = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let known = filters.iter().map(|filter| match EVERYTHING.parse() {
                Ok(everything) if !ledger.subscribe(filter) => {
                    ledger.subscribe_to_everything();
                    everything
                }
                _ => filter.clone(),
            });
            known.collect::<Vec<Filter>>()
        };
        let wanted = known.iter().map(|filter| RouterFilter {
            path: inside(filter.as_str()).into_owned(),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        });
        let subscribe = Subscribe { pkid: 1, filters: wanted.collect() };
        self.filters.extend(filters.iter().cloned().zip(known));
        push(&mut self.tx, [Packet::Subscribe(subscribe, None)]).await
    }

    /// Unsubscribes from filters that were subscribed.
    ///
    /// # Errors
    /// When the router has died.
    pub async fn unsubscribe(&mut self, filters: &[Filter]) -> Result<(), RouterDied> {
        let gone: Vec<Filter> =
            filters.iter().filter_map(|filter| self.filters.remove(filter)).collect();
        let unused =
            gone.iter().filter(|known| !self.filters.values().any(|other| other == *known));
        let mut unused: Vec<Filter> = unused.cloned().collect();
        unused.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        unused.dedup();
        let filters: Vec<String> =
            unused.iter().map(|known| inside(known.as_str()).into_owned()).collect();
        if filters.is_empty() {
            return Ok(());
        }
        self.leaving.extend(unused);
        push(&mut self.tx, [Packet::Unsubscribe(Unsubscribe { pkid: 1, filters }, None)]).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        self.tx.buffer().push_back(Packet::Disconnect(Disconnect { reason_code }, None));
        // Only a packet brings a wake-up with it, and the router stops at the DISCONNECT before it
        // sees this one. An error means that the router is gone, which its watch reports.
        let _ = self.tx.unsubscribe(String::new());
        self.names.give_back(self.name);
    }
}

fn inside(topic: &str) -> Cow<'_, str> {
    if topic.starts_with(|first: char| first.is_ascii() && first != '$') {
        Cow::Borrowed(topic)
    } else {
        Cow::Owned([MARKER, topic].concat())
    }
}
