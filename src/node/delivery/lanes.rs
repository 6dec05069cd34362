//! Which readings are published next. After a short outage: all in their order. Beside a long backlog: the newest readings
//! first, since the page shows the present, and the backlog in its order on the rest of the window.

use std::collections::HashSet;

use super::inflight::READINGS_IN_FLIGHT;
use super::outbox::Outbox;
use super::outbox_file::Entry;

/// From this many waiting readings on, new ones do not wait for the old ones.
const LONG_BACKLOG_READINGS: u64 = 256;
/// Readings of the backlog's end that count as new: the latest of each sensor is among them, as many as a node can have.
const NEW_AT_FIRST: i64 = 40;
/// Part of the window that new readings leave to the backlog, and that the backlog leaves to them.
const RESERVED: usize = 8;

/// The places in the outbox from which readings are taken on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// Up to this id, what is above it not counted, all readings of the backlog are published.
    cursor: i64,
    /// Readings above this id are new ones; `None` while all are published in their order.
    split: Option<i64>,
}

impl Lanes {
    /// On a new connection nothing is published.
    pub const fn new() -> Self {
        Self { cursor: 0, split: None }
    }

    /// The highest id of the backlog.
    pub fn backlog_end(&self) -> i64 {
        self.split.unwrap_or(i64::MAX)
    }

    /// The next readings, at most `room`. `backlog` of the backlog are in flight; `published` are the ids of new readings
    /// that are published and may still be in the outbox.
    ///
    /// # Errors
    /// SQLite's.
    pub fn take(
        &mut self,
        outbox: &Outbox,
        room: usize,
        backlog: usize,
        published: &HashSet<i64>,
    ) -> rusqlite::Result<Vec<Entry>> {
        let newest = outbox.newest_id();
        if self.split.is_none() && outbox.depth() > LONG_BACKLOG_READINGS {
            // What is above the cursor is not published yet.
            self.split = Some((newest - NEW_AT_FIRST).max(self.cursor));
        }
        let Some(split) = self.split else {
            let entries = outbox.peek(self.cursor, room)?;
            self.cursor = entries.last().map_or(self.cursor, |entry| entry.id);
            return Ok(entries);
        };
        let new_room = room.saturating_sub(RESERVED.saturating_sub(backlog));
        let mut entries = outbox.peek_newest(split, new_room, published)?;
        let new = entries.len();
        let old_room = (READINGS_IN_FLIGHT - RESERVED).saturating_sub(backlog).min(room - new);
        entries.extend(outbox.peek_between(self.cursor, split, old_room)?);
        if let Some(last) = entries[new..].last() {
            self.cursor = last.id;
        } else if new == 0 && new_room > 0 && old_room > 0 {
            // Everything up to `newest` is published.
            (self.cursor, self.split) = (newest, None);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{ClockState, Measurement, Stamp};

    fn push(outbox: &Outbox, count: u64) {
        for _ in 0..count {
            let stamp = Stamp { at_ms: 5, clock: ClockState::Synced, mono_ms: 5 };
            let measurement = Measurement { temperature_dc: 215, humidity_dp: 571 };
            outbox.push(&"s".parse().unwrap(), stamp, measurement);
        }
    }

    /// Publishes window by window, acknowledging each, with `between` new readings in between; returns the ids.
    fn drain(outbox: &Outbox, window: usize, between: u64) -> Vec<i64> {
        let (mut lanes, mut order) = (Lanes::new(), Vec::new());
        let mut in_flight: Vec<i64> = Vec::new();
        for round in 0.. {
            let end = lanes.backlog_end();
            let backlog = in_flight.iter().filter(|id| **id <= end).count();
            let new = in_flight.iter().copied().filter(|id| *id > end).collect();
            let room = window - in_flight.len();
            let entries = lanes.take(outbox, room, backlog, &new).unwrap();
            order.extend(entries.iter().map(|entry| entry.id));
            in_flight.extend(entries.iter().map(|entry| entry.id));
            if in_flight.is_empty() {
                break;
            }
            let done: Vec<i64> = in_flight.drain(..in_flight.len().div_ceil(2)).collect();
            outbox.remove(&done).unwrap();
            if round < 20 {
                push(outbox, between);
            }
        }
        order
    }

    #[test]
    fn a_short_backlog_is_published_in_its_order() {
        let outbox = Outbox::memory("b".parse().unwrap(), 5_000).unwrap();
        push(&outbox, 200);
        let order = drain(&outbox, READINGS_IN_FLIGHT, 1);
        assert!(order.into_iter().eq(1..=220));
    }

    #[test]
    fn beside_a_long_backlog_the_newest_comes_first_and_each_comes_once() {
        for between in [1, 100] {
            let outbox = Outbox::memory("b".parse().unwrap(), 5_000).unwrap();
            push(&outbox, 2_000);
            let order = drain(&outbox, READINGS_IN_FLIGHT, between);
            let (first, old): (Vec<i64>, Vec<i64>) =
                (order[..40].to_vec(), order.iter().copied().filter(|id| *id <= 1_960).collect());
            assert!(first.into_iter().rev().eq(1_961..=2_000));
            assert!(old.is_sorted() && old.len() == 1_960);
            // A new reading is published in the round after it was taken, the newest of a hundred likewise.
            let place = |id: i64| order.iter().position(|at| *at == id).unwrap();
            let newest = 2_000 + 20 * i64::try_from(between).unwrap();
            assert!(place(newest) < 1_500, "{}", place(newest));
            let mut all = order;
            all.sort_unstable();
            assert!(all.into_iter().eq(1..=newest));
        }
    }
}
