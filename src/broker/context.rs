//! What every connection and every task of the broker works with.

use std::sync::{Arc, Mutex};

use super::access::Access;
use super::commit::batch::Batch;
use super::commit::group_commit::{Congested, Recorder, Stopped};
use super::delivery::fan_out::FanOut;
use super::net::admission::Admission;
use super::session::registry::Registry;
use crate::mqtt::{Filter, Message};
use crate::store::Queued;

/// What was to be done is not: the broker is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker is stopping")]
pub struct Stopping;

impl From<Stopped> for Stopping {
    fn from(_: Stopped) -> Self {
        Self
    }
}

/// What every connection works with. A copy shares it.
#[derive(Clone)]
pub struct Services {
    /// Commits.
    pub recorder: Recorder,
    /// Delivers.
    pub fan_out: FanOut,
    /// Client ids and sessions.
    pub registry: Registry,
    /// What waits for persistent sessions.
    pub queued: Arc<Mutex<Queued>>,
    /// Places for connections.
    pub admission: Admission,
    /// Who may do what.
    pub access: Access,
    /// Topic filters of foreign publishers that are logged.
    pub logged: Arc<[Filter]>,
}

impl Services {
    /// Publishes a message that comes from no client's packet: committed, then delivered. Once the writer has it, that
    /// goes on by itself when the caller does not wait.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn publish(&self, message: Message) -> Result<(), Stopped> {
        let mut batch = Batch::default();
        batch.accept(message, &self.fan_out, &self.logged);
        if batch.needs_commit() {
            self.recorder.commit(batch).await
        } else {
            // Whoever publishes here is not held back.
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
