//! The services that every connection and every task of the broker shares.

use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use super::access::Access;
use super::commit::batch::Batch;
use super::commit::group_commit::{Congested, Recorder, Stopped};
use super::commit::logged_topics::LoggedTopics;
use super::commit::series_quota::{KnownTopics, SeriesQuota};
use super::delivery::fan_out::FanOut;
use super::net::admission::Admission;
use super::net::shares::Pool;
use super::net::turns::Turns;
use super::session::contested::Contested;
use super::session::registry::Registry;
use crate::mqtt::Message;
use crate::store::{Change, Queued};

/// The request was not carried out: the broker is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker is stopping")]
pub struct Stopping;

impl From<Stopped> for Stopping {
    fn from(_: Stopped) -> Self {
        Self
    }
}

/// The shared services. A clone shares them.
#[derive(Clone)]
pub struct Services {
    /// Commits batches.
    pub recorder: Recorder,
    /// Delivers messages.
    pub fan_out: FanOut,
    /// Client ids and sessions.
    pub registry: Registry,
    /// Reads the messages that wait in the log for persistent sessions.
    pub queued: Arc<Mutex<Queued>>,
    /// Client ids that two clients use.
    pub contested: Arc<Contested>,
    /// Gives permits to connections.
    pub admission: Admission,
    /// Bytes of connections beyond those that each may have.
    pub buffers: Pool,
    /// How much of the broker the connections of each user take at the same time.
    pub turns: Turns,
    /// Logins and permissions.
    pub access: Access,
    /// Topics of other publishers that are logged.
    pub logged: Arc<LoggedTopics>,
    /// The series that each user's clients may begin.
    pub series: SeriesQuota,
    /// Signals of the removal of nodes.
    pub forgetting: Arc<Forgetting>,
}

/// Signals of the removal of nodes.
#[derive(Debug, Default)]
pub struct Forgetting {
    /// A node is to be forgotten.
    pub asked: Notify,
    /// MQTT keeps nothing of a node any more, and its rows in the log are no longer shown.
    pub begun: watch::Sender<()>,
}

impl Services {
    /// Publishes a will or a message of the local client: commits it where needed, then delivers it. A message that the
    /// writer has taken is delivered even if the caller stops waiting.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn publish(&self, message: Message) -> Result<(), Stopped> {
        self.publish_with(message, Vec::new()).await
    }

    /// As [`Services::publish`], with `changes` in the same commit.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn publish_with(
        &self,
        message: Message,
        changes: Vec<Change>,
    ) -> Result<(), Stopped> {
        let mut batch = Batch { changes, ..Batch::default() };
        // No acknowledgement could say so: the message is delivered, and the refusal counted.
        let known = &mut KnownTopics::default();
        let now_ms = self.fan_out.timeline.now_ms();
        let _ = batch.log(&message, &self.logged, &self.series, known, true, now_ms);
        batch.accept(message, &self.fan_out);
        if batch.needs_commit() {
            self.recorder.commit(batch).await
        } else {
            // This publisher is not held back.
            let _ = self.deliver(batch);
            Ok(())
        }
    }

    /// Delivers a batch that needs no commit.
    pub fn deliver(&self, batch: Batch) -> Congested {
        let mut congested = Congested::new();
        for accepted in batch.accepted {
            self.fan_out.deliver(accepted, &mut congested);
        }
        congested
    }
}
