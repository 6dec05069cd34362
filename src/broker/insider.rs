//! The broker's own client: hears what is published and publishes itself, without a socket.

use bytes::Bytes;
use rumqttd::protocol::Packet;

use super::packet::Message;
use super::router::{Delivery, Router, RouterDied};
use crate::wire::Filter;

/// A client inside the process.
#[derive(Clone)]
pub struct Insider {
    router: Router,
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

impl Insider {
    pub(super) const fn new(router: Router) -> Self {
        Self { router }
    }

    /// Publishes a message that is not retained.
    ///
    /// # Errors
    /// When the router has died; the broker ends then.
    pub async fn say(&self, topic: String, payload: Bytes) -> Result<(), RouterDied> {
        self.router.publish(&[Message { topic, payload, retain: false }]).await
    }

    /// Calls `each` with whatever matches `filters`: first what is retained, then what
    /// comes. Returns when the router has died.
    pub async fn hear(&self, filters: &[Filter], mut each: impl FnMut(Heard<'_>)) -> RouterDied {
        let wanted: Vec<_> = filters.iter().map(|filter| (filter.clone(), 0)).collect();
        let mut link = match self.router.clean_link().await {
            Ok(link) => link,
            Err(died) => return died,
        };
        if let Err(died) = link.subscribe(&wanted).await {
            return died;
        }
        loop {
            match link.next().await {
                Ok(Delivery::Packet(Packet::Publish(publish, _))) => {
                    if let Ok(topic) = std::str::from_utf8(&publish.topic) {
                        each(Heard { topic, payload: &publish.payload, retained: publish.retain });
                    }
                }
                Ok(_) => {}
                Err(died) => return died,
            }
        }
    }
}
