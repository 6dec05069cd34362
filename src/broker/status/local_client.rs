//! The broker's own client: hears what is published and publishes itself, without a socket.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::mqtt::QoS;
use bytes::Bytes;

use crate::broker::commit::writer::Stopped;
use crate::broker::connection::run::Services;
use crate::broker::delivery::publication::Publication;
use crate::broker::delivery::router::{Delivery, RouterDied};
use crate::clock;
use crate::mqtt::{Filter, Message};

/// A client inside the process. It holds the recorder, which ends with its last holder.
#[derive(Clone)]
pub struct Insider {
    services: Services,
}

/// A message that the insider heard.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Whether it was retained from before the subscription.
    pub retained: bool,
}

/// What the broker has to do at present, and what it would not.
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

/// What was to be said reaches nobody: the broker is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker is stopping")]
pub struct Ending;

impl From<Stopped> for Ending {
    fn from(_: Stopped) -> Self {
        Self
    }
}

impl From<RouterDied> for Ending {
    fn from(_: RouterDied) -> Self {
        Self
    }
}

impl Insider {
    pub(in crate::broker) const fn new(services: Services) -> Self {
        Self { services }
    }

    /// Publishes a message that is not retained, at the `QoS` of each subscription.
    ///
    /// # Errors
    /// When the broker is ending.
    pub async fn say(&self, topic: String, payload: Bytes) -> Result<(), Ending> {
        let mut publication = Publication::default();
        let message =
            Message { retain: false, qos: QoS::AtLeastOnce, ..Message::own(topic, payload) };
        publication.add(&self.services, message);
        let batch = std::mem::take(&mut publication.batch);
        if !batch.is_empty() {
            self.services.recorder.commit(batch).await?;
        }
        Ok(publication.pass_on(&self.services.router, &self.services.traffic).await?)
    }

    /// What the broker has to do at present.
    pub fn load(&self) -> Load {
        let (clients, _) = self.services.sessions.count();
        let refusals = self.services.access.refusals();
        Load {
            clients,
            batches: self.services.recorder.waiting(),
            refused_logins: refusals.logins.load(Relaxed),
            refused_publishes: refusals.publishes.load(Relaxed),
            malformed: self.services.traffic.malformed.load(Relaxed),
        }
    }

    /// Calls `each` with whatever matches `filters`: first what is retained, then what comes.
    ///
    /// # Errors
    /// It only returns when the router has died.
    pub async fn hear(
        &self,
        filters: &[Filter],
        mut each: impl FnMut(Heard<'_>),
    ) -> Result<std::convert::Infallible, RouterDied> {
        let mut link = self.services.router.link().await?;
        link.subscribe(filters).await?;
        while !matches!(link.next().await?, Delivery::Subscribed) {}
        // What comes meanwhile waits in the link, and is newer.
        let now_ms = clock::unix_ms();
        let retained =
            filters.iter().flat_map(|filter| self.services.retained.matching(filter, now_ms));
        for message in retained.collect::<Vec<Arc<Message>>>() {
            each(Heard { topic: &message.topic, payload: &message.payload, retained: true });
        }
        loop {
            if let Delivery::Message(message) = link.next().await? {
                each(Heard { topic: &message.topic, payload: &message.payload, retained: false });
            }
        }
    }
}
