//! Turns: how much of the broker the connections of one user take at the same time. Those of other users do not wait behind a
//! thousand of them: neither for a processor nor for the writer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Connections of one user that take packets at once. The others wait in line.
const TAKING: usize = 2;
/// Records, changes and messages, each with its stored sessions, of one user that wait for the writer at once: at 5 µs
/// each 20 ms.
pub const COMMITTING: usize = 4096;

/// The turns of all users. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<Arc<str>, Weak<UserTurns>>>>);

/// The turns of one user.
#[derive(Debug)]
pub struct UserTurns {
    taking: Semaphore,
    committing: Semaphore,
}

impl Turns {
    /// Those of `holder`: a user, or the address of clients without a login.
    pub fn of(&self, holder: &Arc<str>) -> Arc<UserTurns> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = users.get(holder).and_then(Weak::upgrade) {
            return turns;
        }
        users.retain(|_, turns| turns.strong_count() > 0);
        let taking = Semaphore::new(TAKING);
        let turns = Arc::new(UserTurns { taking, committing: Semaphore::new(COMMITTING) });
        users.insert(Arc::clone(holder), Arc::downgrade(&turns));
        turns
    }
}

impl UserTurns {
    /// The turn of a connection to take packets, until the permit is dropped.
    pub async fn take(&self) -> Option<SemaphorePermit<'_>> {
        self.taking.acquire().await.ok()
    }

    /// Whether connections wait for their turn to take packets, or soon will.
    pub fn is_crowded(&self) -> bool {
        self.taking.available_permits() == 0
    }

    /// The turn of a batch of so many records, changes and messages to go to the writer, until the permit is dropped.
    pub async fn commit(&self, length: usize) -> Option<SemaphorePermit<'_>> {
        let length = u32::try_from(length.clamp(1, COMMITTING)).unwrap_or(1);
        self.committing.acquire_many(length).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_user_waits_for_its_own_turns_and_others_do_not() {
        let turns = Turns::default();
        let (one, other) = (turns.of(&"one".into()), turns.of(&"other".into()));
        let waits = async |turns: &UserTurns, length| {
            timeout(std::time::Duration::from_secs(1), turns.commit(length)).await.is_err()
        };
        let taken = (one.take().await, one.take().await);
        assert!(timeout(std::time::Duration::from_secs(1), one.take()).await.is_err());
        assert!(other.take().await.is_some());
        assert!(one.is_crowded() && !other.is_crowded());
        drop(taken);
        assert!(turns.of(&"one".into()).take().await.is_some(), "it is the same user");
        let all = one.commit(COMMITTING + 1).await;
        assert!(waits(&one, 1).await && !waits(&other, COMMITTING).await);
        drop(all);
        assert!(!waits(&one, COMMITTING).await);
        drop((one, other));
        turns.of(&"third".into());
        assert_eq!(turns.0.lock().unwrap().len(), 1, "the others are forgotten");
    }
}
