//! The pending commit of a client: its packets wait for the commit and are acknowledged afterwards.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use super::{Batch, Client};
use crate::broker::commit::group_commit::{Congested, Stopped};
use crate::broker::delivery::retained_replay::ReplayRequest;
use crate::broker::session::hold_back::HOLD_MAX;
use crate::broker::session::state::EXCHANGE_BYTES;

/// A commit under way, and the acknowledgements and replays that follow it.
pub struct PendingCommit {
    acknowledgements: BytesMut,
    /// New subscriptions, whose retained messages follow the SUBACK.
    replays: Vec<ReplayRequest>,
    /// Whether a SUBACK is among the acknowledgements.
    pub(super) subscribing: bool,
    commit: Pin<Box<dyn Future<Output = Result<Congested, Stopped>> + Send>>,
    /// Whether the writer has it: then it is committed and delivered even if this connection ends.
    handed_over: Arc<AtomicBool>,
    /// Packet ids of the `QoS` 2 messages in it that were new.
    received: Vec<u16>,
}

/// Waits for the commit under way; for ever when there is none. Cancelling and calling again loses nothing. It takes
/// the field and not the client, so that the client's other fields can be awaited beside it.
pub async fn committed(pending: &mut Option<PendingCommit>) -> Result<Congested, Stopped> {
    let Some(waiting) = pending else { return std::future::pending().await };
    let outcome = waiting.commit.as_mut().await;
    if outcome.is_err() {
        // The store has stopped: the end of the connection must not wait for this one again.
        *pending = None;
    }
    outcome
}

/// Resolves when the client is held back no more. Until then no packets are taken.
pub type Hold = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits until the client is held back no more; for ever when it is not. As [`committed`].
pub async fn released(hold: &mut Option<Hold>) {
    match hold {
        Some(hold) => hold.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Client<'_> {
    /// Starts the commit of a batch, or goes on at once when there is nothing to wait for.
    pub(super) async fn commit(&mut self, batch: Batch) {
        let Batch { packets: _, mut commit, mut settled, received, acknowledgements, .. } = batch;
        let (replays, subscribing) = (batch.replays, batch.subscribing);
        let recorder = self.services.recorder.clone();
        if !commit.needs_commit() {
            recorder.note(&mut settled).await;
            let congested = self.services.deliver(commit);
            self.hold_back(congested);
            self.batched.release();
            self.out.put(acknowledgements);
            self.outbound.replay(replays);
            return;
        }
        commit.changes.append(&mut settled);
        let handed_over = Arc::<AtomicBool>::default();
        let told = Arc::clone(&handed_over);
        let turns = Arc::clone(&self.turns);
        let commit = Box::pin(async move {
            let _turn = turns.commit(commit.len()).await;
            let done = recorder.hand_over(&mut commit).await?;
            drop(recorder);
            told.store(true, Relaxed);
            done.await.map_err(|_| Stopped)
        });
        self.pending = Some(PendingCommit {
            acknowledgements,
            replays,
            subscribing,
            commit,
            handed_over,
            received,
        });
    }

    /// After the commit: acknowledges the packets.
    pub fn acknowledge(&mut self, congested: Congested) {
        self.hold_back(congested);
        self.batched.release();
        if let Some(pending) = self.pending.take() {
            self.out.put(pending.acknowledgements);
            self.outbound.replay(pending.replays);
        }
    }

    /// Stops taking packets for a moment while messages arrive faster than their subscribers take them.
    fn hold_back(&mut self, congested: Congested) {
        if !congested.is_empty() {
            let deadline = Instant::now() + HOLD_MAX;
            self.hold = Some(Box::pin(async move {
                for session in congested {
                    session.queue.hold_back(deadline).await;
                }
            }));
        }
    }

    /// Waits for the last commit.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn finish(&mut self) -> Result<(), Stopped> {
        if self.pending.is_some() {
            let congested = committed(&mut self.pending).await?;
            self.acknowledge(congested);
        }
        Ok(())
    }

    /// Gives a commit up that takes too long. Packets that the writer has not taken count as never received, so a `QoS`
    /// 2 message among them is a new one when it is sent again.
    pub fn abandon(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        if !pending.handed_over.load(Relaxed) {
            let mut state = self.session.state();
            for packet_id in pending.received {
                if state.received.remove(&packet_id) {
                    state.remove_rows(EXCHANGE_BYTES);
                }
            }
        }
    }
}
