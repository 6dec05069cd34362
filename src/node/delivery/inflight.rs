//! Which publishes are on their way, and which PUBACK belongs to which reading.

use std::collections::{HashMap, VecDeque};

/// Readings sent and not acknowledged yet, at most. With 20 ms to the broker and back it drains
/// 3,000 readings a second.
pub const WINDOW: usize = 64;

/// What was handed to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The reading at this place of the outbox.
    Reading(i64),
    /// Status, health.
    Other,
}

/// Matches PUBACKs to readings. The client takes publishes in order and tells each one's packet id
/// when it leaves; the PUBACK has the same id.
#[derive(Debug, Default)]
pub struct Window {
    /// Handed over, no packet id yet.
    queued: VecDeque<Sent>,
    in_flight: HashMap<u16, Sent>,
    /// Readings among both.
    readings: usize,
    last: i64,
    acknowledged: Vec<i64>,
}

impl Window {
    /// How many more readings may be handed over.
    pub const fn room(&self) -> usize {
        WINDOW - self.readings
    }

    /// Place of the last reading handed over.
    pub const fn last(&self) -> i64 {
        self.last
    }

    /// Whether every reading handed over is acknowledged.
    pub const fn is_empty(&self) -> bool {
        self.readings == 0
    }

    /// How much other than readings waits to be sent or acknowledged.
    pub fn others(&self) -> usize {
        self.queued
            .iter()
            .chain(self.in_flight.values())
            .filter(|sent| **sent == Sent::Other)
            .count()
    }

    /// Whether something other than readings waits to be sent or acknowledged.
    pub fn unsaid(&self) -> bool {
        self.others() > 0
    }

    /// Notes a publish handed to the client.
    pub fn hand_over(&mut self, sent: Sent) {
        if let Sent::Reading(id) = sent {
            self.readings += 1;
            self.last = id;
        }
        self.queued.push_back(sent);
    }

    /// Notes that the oldest one handed over left with this packet id.
    pub fn left(&mut self, pkid: u16) {
        if let Some(sent) = self.queued.pop_front() {
            self.in_flight.insert(pkid, sent);
        }
    }

    /// Notes a PUBACK.
    pub fn acknowledge(&mut self, pkid: u16) {
        if let Some(Sent::Reading(id)) = self.in_flight.remove(&pkid) {
            self.readings -= 1;
            self.acknowledged.push(id);
        }
    }

    /// Places of the acknowledged readings that are still in the outbox.
    pub fn acknowledged(&self) -> &[i64] {
        &self.acknowledged
    }

    /// The outbox has forgotten all of them.
    pub fn forgotten(&mut self) {
        self.acknowledged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_find_their_reading_among_other_publishes() {
        let mut window = Window::default();
        window.hand_over(Sent::Other);
        window.hand_over(Sent::Reading(5));
        window.hand_over(Sent::Reading(9));
        (1..=3).for_each(|pkid| window.left(pkid));
        window.acknowledge(1);
        window.acknowledge(3);
        assert_eq!(window.acknowledged, [9]);
        assert!(!window.is_empty() && !window.unsaid());
        window.acknowledge(2);
        window.acknowledge(2);
        assert_eq!(window.acknowledged, [9, 5]);
        assert!(window.is_empty());
    }
}
