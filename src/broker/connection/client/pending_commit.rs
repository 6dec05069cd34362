//! What a client's packets began and what waits for its commit: acknowledged and passed on afterwards, whoever waits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::{BufMut, BytesMut};

use crate::broker::commit::writer::Stopped;
use crate::broker::connection::client::subscribe::Subscribing;
use crate::broker::connection::client::{Batch, Client};
use crate::broker::connection::run::End;
use crate::broker::delivery::publication::{self, Publication};

/// What waits for its commit, and what follows it.
pub struct Staged {
    publication: Publication,
    acknowledgements: BytesMut,
    pub(in crate::broker) subscribing: Vec<Subscribing>,
    commit: Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send>>,
    /// Whether the writer has it: then it will be committed, whoever waits.
    handed_over: Arc<AtomicBool>,
    /// Packet ids of the `QoS` 2 messages in it that were new.
    received: Vec<u16>,
}

/// Waits for the commit under way; for ever when there is none. Cancelling and calling again is fine. On the
/// field and not on the client, so that it can be awaited beside the client's other fields.
pub async fn committed(staged: &mut Option<Staged>) -> Result<(), Stopped> {
    match staged {
        Some(staged) => staged.commit.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Client<'_> {
    /// Starts the commit of a batch, or goes on at once when there is nothing to wait for.
    pub(in crate::broker) async fn stage(&mut self, batch: Batch) -> Result<(), End> {
        let Batch {
            packets: _,
            mut publication,
            mut settled,
            received,
            acknowledgements,
            subscribing,
        } = batch;
        let mut commit = std::mem::take(&mut publication.batch);
        let recorder = self.services.recorder.clone();
        if commit.is_empty() {
            recorder.note(&mut settled).await;
        } else {
            commit.changes.extend(settled);
        }
        let nothing = commit.is_empty();
        let handed_over = Arc::new(AtomicBool::new(nothing));
        let told = Arc::clone(&handed_over);
        let commit = Box::pin(async move {
            if nothing {
                return Ok(());
            }
            let done = recorder.hand_over(&mut commit).await?;
            drop(recorder);
            told.store(true, Relaxed);
            done.await.map_err(|_| Stopped)
        });
        let staged =
            Staged { publication, acknowledgements, subscribing, commit, handed_over, received };
        self.staged = Some(staged);
        if nothing { self.acknowledge().await } else { Ok(()) }
    }

    /// After the commit: tells the client, then everybody else.
    pub async fn acknowledge(&mut self) -> Result<(), End> {
        if let Some(mut staged) = self.staged.take() {
            self.out.put(staged.acknowledgements);
            staged.publication.pass_on(&self.services.router, &self.services.traffic).await?;
            for subscribing in staged.subscribing {
                self.subscribe_at_router(subscribing).await?;
            }
        }
        Ok(())
    }

    /// Sees the last commit through: what is committed is also passed on, since a client that sends it again may
    /// be told that it was taken.
    pub async fn finish(&mut self) -> Result<(), End> {
        if self.staged.is_some() {
            committed(&mut self.staged).await?;
            self.acknowledge().await?;
        }
        Ok(())
    }

    /// Leaves a commit that takes too long. What the writer has is passed on when it is committed; what it has not was
    /// never taken, and a `QoS` 2 message that comes again is a new one. The writer's queue bounds how many wait so.
    pub fn let_go(&mut self) {
        let Some(staged) = self.staged.take() else { return };
        if staged.handed_over.load(Relaxed) {
            let Staged { publication, commit, .. } = staged;
            publication::passed_on(self.services, publication, async move { commit.await.is_ok() });
        } else {
            let mut state = self.session.state();
            for packet_id in staged.received {
                state.received.remove(&packet_id);
            }
        }
    }
}
