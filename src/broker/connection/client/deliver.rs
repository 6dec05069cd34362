//! What a connected client is to get: from the router, from the log, and its acknowledgements of it.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use crate::mqtt::QoS;

use crate::broker::connection::client::{Batch, Client};
use crate::broker::connection::reply::{self, Ack};
use crate::broker::connection::run::End;
use crate::broker::delivery::inbox::Inbox;
use crate::broker::delivery::outbound::Parcel;
use crate::broker::delivery::router::{Delivery, Link, RouterDied};
use crate::broker::session::inflight::Unasked;
use crate::clock;
use crate::store::{Change, Waiting};

/// A page of what waits in the log, being read.
pub type Page = Pin<Box<dyn Future<Output = rusqlite::Result<Vec<Waiting>>> + Send>>;

/// Waits for what the router has next; for ever when nothing is subscribed. Cancelling and calling again is fine.
pub async fn delivered(link: &mut Option<Link>) -> Result<Delivery, RouterDied> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for a shared message; for ever when no shared subscription is held. As [`delivered`].
pub async fn handed(inbox: Option<&Inbox>) -> Parcel {
    match inbox {
        Some(inbox) => inbox.take().await,
        None => std::future::pending().await,
    }
}

/// Waits for a page of what waits in the log; for ever when none is being read. As [`delivered`].
pub async fn read(page: &mut Option<Page>) -> rusqlite::Result<Vec<Waiting>> {
    match page {
        Some(page) => page.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Client<'_> {
    /// Takes what the router has.
    pub fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Nothing => {}
            Delivery::Subscribed => self.confirm(),
            Delivery::Message(message) => {
                let Some(wanted) = self.session.wanted(&message) else { return };
                // The rest waits in the log for a persistent session, and is delivered from there.
                if wanted.qos == QoS::AtMostOnce || self.session.persistent.is_none() {
                    self.outflow.queue(Parcel {
                        message: Arc::new(*message),
                        qos: wanted.qos,
                        retain: wanted.retain,
                        identifiers: wanted.identifiers,
                    });
                }
            }
        }
    }

    /// Takes what was read of what waits in the log.
    pub fn take_page(&mut self, page: Vec<Waiting>) {
        self.page = None;
        if let Some(last) = page.last() {
            self.may_wait = true;
            self.page_after = last.number;
            let mut state = self.session.state();
            state.sent = state.sent.max(last.number);
        }
        self.outflow.queue_page(page);
    }

    /// Starts reading what waits in the log, when it is needed.
    pub fn read_on(&mut self) {
        if let Some(session) = self.session.persistent
            && self.may_wait
            && !self.is_subscribing()
            && self.page.is_none()
            && self.outflow.wants_page()
        {
            self.may_wait = false;
            let (queued, after) = (Arc::clone(&self.services.queued), self.page_after);
            let reading = tokio::task::spawn_blocking(move || {
                queued.lock().unwrap_or_else(PoisonError::into_inner).page(session, after)
            });
            self.page = Some(Box::pin(async move {
                match reading.await {
                    Ok(page) => page,
                    // The runtime is going down.
                    Err(_) => Ok(Vec::new()),
                }
            }));
        }
    }

    /// Writes what is on its way as far as there is room.
    pub async fn write_deliveries(&mut self) -> Result<(), End> {
        // One subscription's at a time: each may bring all that are retained.
        while self.outflow.wants_retained()
            && let Some((filter, options)) = self.owed.pop_front()
        {
            self.owe(&filter, options);
        }
        let settled = self.outflow.write(clock::unix_ms(), &mut self.out)?;
        if let Some(session) = self.session.persistent
            && !settled.is_empty()
        {
            let done = settled.into_iter().map(|number| Change::Done { session, number });
            self.services.recorder.note(&mut done.collect()).await;
        }
        Ok(())
    }

    /// Notes that nothing is left to say about a message that waited in the log.
    pub(in crate::broker) fn settle(
        &self,
        number: Result<Option<i64>, Unasked>,
        batch: &mut Batch,
    ) -> Result<(), End> {
        match (number, self.session.persistent) {
            (Ok(Some(number)), Some(session)) => {
                batch.settled.push(Change::Done { session, number });
                Ok(())
            }
            // It may speak of what an earlier connection of its session sent.
            (Ok(_), _) | (Err(_), Some(_)) => Ok(()),
            (Err(unasked), None) => Err(unasked.into()),
        }
    }

    pub(in crate::broker) fn take_pubrec(
        &mut self,
        pkid: u16,
        refused: bool,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let number = self.outflow.flights.pubrec(pkid, refused);
        if refused {
            return self.settle(number, batch);
        }
        let reason = match (number, self.session.persistent) {
            (Ok(Some(number)), Some(session)) => {
                // Committed before PUBREL leaves: sent again after it, the message would be another one.
                batch.publication.batch.changes.push(Change::Release { session, number });
                0
            }
            (Ok(_), _) => 0,
            // Packet identifier not found: the client can end its side.
            (Err(_), Some(_)) => 0x92,
            (Err(unasked), None) => return Err(unasked.into()),
        };
        reply::ack(self.version, Ack::Release, pkid, reason, &mut batch.acknowledgements);
        Ok(())
    }
}
