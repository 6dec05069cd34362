//! The local client: subscribes and publishes inside the process, without a socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::broker::access::permissions::Owner;
use crate::broker::context::{Services, Stopping};
use crate::broker::delivery::fan_out::FanOut;
use crate::broker::session::state::{Session, State};
use crate::broker::session::subscriptions::Numbers;
use crate::broker::status::sys::loss_topic;
use crate::mqtt::{Filter, Message, QoS};
use crate::reading::Id;
use crate::store::{Change, Options};

/// The client id of the broker's own subscriptions, where messages that they lost are counted.
const CLIENT_ID: &str = "$local";

/// A client inside the process. It holds the recorder, which ends when its last holder is dropped.
#[derive(Clone)]
pub struct LocalClient {
    services: Services,
}

/// A message that the local client got.
#[derive(Debug, Clone, Copy)]
pub struct LocalMessage<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Whether it was retained from before the subscription.
    pub retained: bool,
}

/// The broker's load at present, and its refusals.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Clients connected.
    pub clients: usize,
    /// Batches that wait for their commit.
    pub batches: usize,
    /// Since the start: logins that were refused.
    pub refused_logins: u64,
    /// Since the start: messages to topics that their publisher may not write.
    pub refused_publishes: u64,
    /// Since the start: connections that were closed for a malformed packet.
    pub malformed: u64,
}

/// Messages that one client lost since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// `<client id>` or `<user>/<client id>`.
    pub client: String,
    /// The topic in `$SYS` that has this number over MQTT.
    pub topic: String,
    /// Their number.
    pub count: u64,
}

impl LocalClient {
    pub(in crate::broker) const fn new(services: Services) -> Self {
        Self { services }
    }

    /// Publishes a message that is not retained, at the `QoS` of each subscription.
    ///
    /// # Errors
    /// When the broker is ending.
    pub async fn publish(&self, topic: String, payload: Bytes) -> Result<(), Stopping> {
        let message =
            Message { retain: false, qos: QoS::AtLeastOnce, ..Message::own(topic, payload) };
        Ok(self.services.publish(message).await?)
    }

    /// Asks for a node to be forgotten: its retained messages, its sessions, and its rows in the log. Returns when the
    /// request is on the disk; it is carried out within seconds.
    ///
    /// # Errors
    /// When the broker is ending.
    pub async fn forget(&self, node: Id) -> Result<(), Stopping> {
        let mut changes = vec![Change::Forget { node }];
        self.services.recorder.commit_changes(&mut changes).await?;
        self.services.forgetting.asked.notify_one();
        Ok(())
    }

    /// Calls `each` as often as a node is forgotten: from then on nothing of it is shown. Never returns.
    pub async fn follow_forgotten(&self, each: impl Fn()) {
        let mut changes = self.services.forgetting.begun.subscribe();
        while changes.changed().await.is_ok() {
            each();
        }
    }

    /// The broker's load at present.
    pub fn load(&self) -> Load {
        let (clients, _) = self.services.registry.count();
        let refusals = self.services.access.refusals();
        Load {
            clients,
            batches: self.services.recorder.waiting(),
            refused_logins: refusals.logins.load(Relaxed),
            refused_publishes: refusals.publishes.load(Relaxed),
            malformed: self.services.fan_out.traffic.malformed.load(Relaxed),
        }
    }

    /// Messages that clients lost since the start: all of them, and those of each client.
    pub fn losses(&self) -> (u64, Vec<Loss>) {
        let losses = &self.services.fan_out.traffic.losses;
        let by_client = losses.by_name().into_iter().map(|(session, count)| Loss {
            client: Owner::of_session(&session).to_string(),
            topic: loss_topic(&session),
            count,
        });
        (losses.total(), by_client.collect())
    }

    /// Calls `each` with the messages that match `filters`: first the retained ones, then the live ones. Never returns.
    pub async fn follow(
        &self,
        filters: &[Filter],
        mut each: impl FnMut(LocalMessage<'_>),
    ) -> Infallible {
        let subscription = self.subscribe(filters);
        for message in subscription.retained() {
            each(LocalMessage { topic: &message.topic, payload: &message.payload, retained: true });
        }
        loop {
            let message = subscription.next().await;
            each(LocalMessage {
                topic: &message.topic,
                payload: &message.payload,
                retained: false,
            });
        }
    }

    /// Subscribes to `filters` at `QoS` 0.
    pub(in crate::broker) fn subscribe(&self, filters: &[Filter]) -> LocalSubscription {
        LocalSubscription::new(&self.services.fan_out, filters)
    }
}

/// A subscription of the broker itself. Dropping it unsubscribes. It does not keep the writer alive.
pub(in crate::broker) struct LocalSubscription {
    fan_out: FanOut,
    session: Arc<Session>,
    /// The filters, and the numbers of retained messages at which each entered the index.
    entered: Vec<(Filter, Numbers)>,
}

impl LocalSubscription {
    fn new(fan_out: &FanOut, filters: &[Filter]) -> Self {
        let session = fan_out.subscriptions.session(CLIENT_ID, None, State::default());
        session.queue.open();
        let options = Options {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        let enter = |filter: &Filter| {
            session.state().subscriptions.insert(filter.clone(), options);
            (filter.clone(), fan_out.subscriptions.add(filter, &session, options))
        };
        let entered = filters.iter().map(enter).collect();
        Self { fan_out: fan_out.clone(), session, entered }
    }

    /// The messages that were retained before the subscription.
    pub fn retained(&self) -> Vec<Arc<Message>> {
        let now_ms = self.fan_out.timeline.now_ms();
        let mut found = Vec::new();
        for (filter, entered) in &self.entered {
            let mut after = None;
            loop {
                let (page, next) =
                    self.fan_out.retained.matching(filter, after.as_ref(), now_ms, |numbers| {
                        numbers.is_replayed(*entered, &self.session)
                    });
                found.extend(page);
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        found
    }

    /// The next message, if one is there.
    pub fn try_next(&self) -> Option<Arc<Message>> {
        self.session.queue.pop_if(|_| true).map(|delivery| delivery.message.message())
    }

    /// The next message. Cancelling and calling again loses nothing.
    pub async fn next(&self) -> Arc<Message> {
        loop {
            if let Some(message) = self.try_next() {
                return message;
            }
            self.session.queue.ready().await;
        }
    }
}

impl Drop for LocalSubscription {
    fn drop(&mut self) {
        self.session.queue.close();
        self.fan_out.subscriptions.forget(&self.session);
    }
}
