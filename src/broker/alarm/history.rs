//! Changes of alarms on their way into the log: in their order, at most [`WAITING_CHANGES`], and the last one of each alarm
//! always.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::broker::commit::batch::Batch;
use crate::broker::commit::group_commit::Recorder;
use crate::reading::Id;
use crate::store::Record;

/// Changes that wait for the store, and as many that it commits. Beyond it two changes in between of the alarm with most of
/// them are left out.
const WAITING_CHANGES: usize = 256;

/// Changes that wait for the store. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    changes: VecDeque<Record>,
    is_closed: bool,
}

impl History {
    /// Adds a change.
    pub fn push(&self, change: Record) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.changes.len() >= WAITING_CHANGES {
            waiting.make_room();
        }
        waiting.changes.push_back(change);
        drop(waiting);
        self.0.ready.notify_one();
    }

    /// No change comes any more.
    pub fn close(&self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.0.ready.notify_one();
    }

    /// Commits the changes, on a task of its own: alarms do not wait for a full disk. Ends when they are closed and
    /// committed, or the store has stopped.
    pub async fn commit(self, recorder: Recorder) {
        while let Some(records) = self.next().await {
            if recorder.commit(Batch { records, ..Batch::default() }).await.is_err() {
                return;
            }
        }
    }

    /// All that wait; `None` when none will.
    async fn next(&self) -> Option<Vec<Record>> {
        loop {
            {
                let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if !waiting.changes.is_empty() {
                    return Some(waiting.changes.drain(..).collect());
                }
                if waiting.is_closed {
                    return None;
                }
            }
            self.0.ready.notified().await;
        }
    }
}

impl Waiting {
    /// Leaves out the first two changes of the alarm with most of them, never its last one. Two, so that what is left still
    /// goes on and off in turn.
    fn make_room(&mut self) {
        let mut counts: HashMap<&Id, usize> = HashMap::new();
        for name in self.changes.iter().filter_map(name) {
            *counts.entry(name).or_default() += 1;
        }
        let Some((most, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else {
            return;
        };
        let (most, mut leave_out) = (most.clone(), 2.min(count - 1));
        self.changes.retain(|change| {
            let is_left_out = leave_out > 0 && name(change) == Some(&most);
            leave_out -= usize::from(is_left_out);
            !is_left_out
        });
    }
}

const fn name(change: &Record) -> Option<&Id> {
    match change {
        Record::Alarm { name, .. } => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_out_is_in_between_and_of_the_alarm_that_changes_most() {
        let history = History::default();
        let change = |name: &str, raised| Record::Alarm {
            name: name.parse().unwrap(),
            at_ms: 0,
            raised,
            detail: String::new(),
        };
        history.push(change("lost", true));
        (0..10_001).for_each(|n| history.push(change("stuck", n % 2 == 0)));
        history.push(change("hot", true));
        history.close();
        let left: Vec<(String, bool)> = history
            .next()
            .await
            .unwrap()
            .into_iter()
            .filter_map(|record| match record {
                Record::Alarm { name, raised, .. } => Some((name.to_string(), raised)),
                _ => None,
            })
            .collect();
        assert!(history.next().await.is_none());
        assert!(left.len() <= WAITING_CHANGES && left.len() > WAITING_CHANGES - 2);
        assert_eq!(left.first(), Some(&("lost".to_owned(), true)));
        assert_eq!(left.last(), Some(&("hot".to_owned(), true)));
        let stuck: Vec<bool> =
            left.iter().filter(|(name, _)| name == "stuck").map(|(_, raised)| *raised).collect();
        assert!(stuck.windows(2).all(|two| two[0] != two[1]), "{stuck:?}");
        assert_eq!(stuck.last(), Some(&true));
    }
}
