//! Deliveries to a connected client: pages of messages from the log, writing, and the client's acknowledgements.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use super::{Batch, Client};
use crate::broker::connection::close::End;
use crate::broker::session::inflight::UnexpectedAck;
use crate::mqtt::codec::{self, AckKind, Reason};
use crate::store::{Change, PAGE_MAX_BYTES, Waiting};

/// A page of messages that wait in the log, being read.
pub type Page = Pin<Box<dyn Future<Output = rusqlite::Result<Vec<Waiting>>> + Send>>;

/// Waits for the page that is being read; for ever when there is none. Cancelling and calling again loses nothing.
pub async fn read(page: &mut Option<Page>) -> rusqlite::Result<Vec<Waiting>> {
    match page {
        Some(page) => page.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Client<'_> {
    /// Takes a page of messages that wait in the log.
    pub fn take_page(&mut self, page: Vec<Waiting>) {
        self.page = None;
        self.paged.set(page.iter().map(Waiting::size).sum());
        if let Some(last) = page.last() {
            self.may_wait = true;
            self.page_after = last.number;
        }
        self.outbound.queue_page(page);
    }

    /// Starts to read the next page of the log when it is needed.
    pub fn read_on(&mut self) {
        if self.session.queue.take_stored() {
            self.may_wait = true;
        }
        if let Some(session) = self.session.persistent
            && self.may_wait
            && !self.is_subscribing()
            && self.page.is_none()
            && self.outbound.wants_page()
        {
            self.paged.release();
            if !self.paged.admits(PAGE_MAX_BYTES, 0) {
                return;
            }
            self.may_wait = false;
            let (queued, after) = (Arc::clone(&self.services.queued), self.page_after);
            let reading = tokio::task::spawn_blocking(move || {
                queued.lock().unwrap_or_else(PoisonError::into_inner).page(session, after)
            });
            self.page = Some(Box::pin(async move {
                match reading.await {
                    Ok(page) => page,
                    // The runtime is stopping.
                    Err(_) => Ok(Vec::new()),
                }
            }));
        }
    }

    /// Writes deliveries as far as there is room.
    pub async fn write_deliveries(&mut self) {
        if self.is_subscribing() {
            return;
        }
        let settled = self.outbound.write(self.services.fan_out.timeline.now_ms(), &mut self.out);
        if let Some(session) = self.session.persistent
            && !settled.is_empty()
        {
            let done = settled.into_iter().map(|number| Change::Done { session, number });
            self.services.recorder.note(&mut done.collect()).await;
        }
    }

    /// Notes that the delivery of a message from the log is complete.
    pub(super) fn settle(
        &self,
        number: Result<Option<i64>, UnexpectedAck>,
        batch: &mut Batch,
    ) -> Result<(), End> {
        match (number, self.session.persistent) {
            (Ok(Some(number)), Some(session)) => {
                batch.settled.push(Change::Done { session, number });
                Ok(())
            }
            // It may acknowledge a message that an earlier connection of its session sent.
            (Ok(_), _) | (Err(_), Some(_)) => Ok(()),
            (Err(unexpected), None) => Err(unexpected.into()),
        }
    }

    pub(super) fn take_pubrec(
        &mut self,
        packet_id: u16,
        refused: bool,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let number = self.outbound.in_flight.pubrec(packet_id, refused);
        if refused {
            self.session.state().complete(packet_id);
            return self.settle(number, batch);
        }
        let reason = match (number, self.session.persistent) {
            (Ok(Some(number)), Some(session)) => {
                if !self.session.state().release(packet_id) {
                    return Err(End::Quota("open QoS 2 exchanges in the log"));
                }
                // Committed before PUBREL is sent: after PUBREL a repeat of the message would be a new message.
                batch.commit.changes.push(Change::Release { session, number });
                Reason::Success
            }
            (Ok(_), _) => Reason::Success,
            // The client can complete its side.
            (Err(_), Some(_)) => Reason::PacketIdentifierNotFound,
            (Err(unexpected), None) => return Err(unexpected.into()),
        };
        let acknowledgements = &mut batch.acknowledgements;
        codec::write_ack(self.version, AckKind::PubRel, packet_id, reason, acknowledgements);
        Ok(())
    }
}
