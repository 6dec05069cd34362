//! Committed records for those who follow the log: the page, alarms, `--print`.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio::sync::broadcast;

use crate::store::Record;

/// Commits, and records in them, that a slow receiver may lag behind before it misses some.
pub const LIVE_BATCHES: usize = 256;
const LIVE_RECORDS: usize = 32_000;

/// The records of one commit, for live receivers.
pub type Live = Arc<Vec<Record>>;

/// The latest commits, as far as a live receiver has not read them.
#[derive(Default)]
pub struct Unread(VecDeque<Weak<Vec<Record>>>);

impl Unread {
    /// Sends the records of a commit. Receivers miss earlier ones that they have not read when there are too many.
    pub fn send(&mut self, committed: Vec<Record>, live: &broadcast::Sender<Live>) {
        self.0.retain(|commit| commit.strong_count() > 0);
        let unread = self.0.iter().filter_map(Weak::upgrade).map(|commit| commit.len());
        if unread.sum::<usize>() > LIVE_RECORDS {
            // With the next one they take the places of all others; who has read those misses nothing.
            for _ in 1..LIVE_BATCHES {
                let _ = live.send(Live::default());
            }
        }
        let committed = Arc::new(committed);
        self.0.push_back(Arc::downgrade(&committed));
        let _ = live.send(committed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_lags_holds_a_bounded_number_of_records_and_others_miss_nothing() {
        let (live, mut reads) = broadcast::channel(LIVE_BATCHES);
        let (mut lags, mut unread) = (live.subscribe(), Unread::default());
        let record =
            Record::Refused { topic: String::new(), at_ms: 0, cause: "none", payload: Vec::new() };
        for commit in 1..=40 {
            unread.send(vec![record.clone(); 4000], &live);
            let mut seen = 0;
            loop {
                match reads.try_recv() {
                    Ok(records) => seen += records.len(),
                    Err(broadcast::error::TryRecvError::Empty) => break,
                    Err(error) => panic!("{error} after {commit}"),
                }
            }
            assert_eq!(seen, 4000);
            let held = unread.0.iter().filter_map(Weak::upgrade).map(|commit| commit.len());
            assert!(held.sum::<usize>() <= LIVE_RECORDS + 4000);
        }
        assert!(matches!(lags.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    }
}
