//! The in-flight window: publishes without a PUBACK yet, and the reading that each PUBACK belongs to.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;

/// Most readings in flight. With 20 ms to the broker and back this drains 3,000 readings a second.
pub const READINGS_IN_FLIGHT: usize = 64;

/// One publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The reading with this id in the outbox.
    Reading(i64),
    /// Status, health, discovery, or the state of a switch.
    Other,
}

/// A publish, and when it was handed to the client.
type Since = (Published, Instant);

/// Matches PUBACKs to readings. The client sends publishes in their order and reports each one's packet id
/// when it sends it; the PUBACK has the same id.
#[derive(Debug, Default)]
pub struct InFlight {
    /// Handed to the client, without a packet id yet.
    queued: VecDeque<Since>,
    /// Sent, by packet id.
    sent: HashMap<u16, Since>,
    /// Readings among both.
    readings: HashSet<i64>,
    acknowledged: Vec<i64>,
}

impl InFlight {
    /// How many more readings may be published.
    pub fn room(&self) -> usize {
        READINGS_IN_FLIGHT.saturating_sub(self.readings.len())
    }

    /// How many readings up to this id wait for their PUBACK.
    pub fn readings_up_to(&self, id: i64) -> usize {
        self.readings.iter().filter(|reading| **reading <= id).count()
    }

    /// Readings above this id that were published on this connection and may still be in the outbox.
    pub fn published_above(&self, id: i64) -> HashSet<i64> {
        let all = self.readings.iter().chain(&self.acknowledged).copied();
        all.filter(|reading| *reading > id).collect()
    }

    /// Whether any reading waits for its PUBACK.
    pub fn has_readings(&self) -> bool {
        !self.readings.is_empty()
    }

    /// How many other publishes wait to be sent or acknowledged.
    pub fn others(&self) -> usize {
        let all = self.queued.iter().chain(self.sent.values());
        all.filter(|(published, _)| *published == Published::Other).count()
    }

    /// Since when the oldest publish waits for its PUBACK.
    pub fn oldest(&self) -> Option<Instant> {
        self.queued.iter().chain(self.sent.values()).map(|(_, at)| *at).min()
    }

    /// Notes a publish that was handed to the client.
    pub fn push(&mut self, published: Published, now: Instant) {
        if let Published::Reading(id) = published {
            self.readings.insert(id);
        }
        self.queued.push_back((published, now));
    }

    /// Notes that the client sent the oldest queued publish with this packet id.
    pub fn sent(&mut self, packet_id: u16) {
        if let Some(published) = self.queued.pop_front() {
            self.sent.insert(packet_id, published);
        }
    }

    /// Notes a PUBACK; returns whether it was a reading's.
    pub fn acknowledge(&mut self, packet_id: u16) -> bool {
        if let Some((Published::Reading(id), _)) = self.sent.remove(&packet_id) {
            self.readings.remove(&id);
            self.acknowledged.push(id);
            return true;
        }
        false
    }

    /// Ids of acknowledged readings that are still in the outbox.
    pub fn acknowledged(&self) -> &[i64] {
        &self.acknowledged
    }

    /// The outbox has removed all acknowledged readings.
    pub fn clear_acknowledged(&mut self) {
        self.acknowledged.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_find_their_reading_among_other_publishes() {
        let mut in_flight = InFlight::default();
        let start = Instant::now();
        let at = |seconds| start + std::time::Duration::from_secs(seconds);
        in_flight.push(Published::Other, at(0));
        in_flight.push(Published::Reading(5), at(1));
        in_flight.push(Published::Reading(9), at(2));
        (1..=3).for_each(|packet_id| in_flight.sent(packet_id));
        assert_eq!(in_flight.oldest(), Some(at(0)));
        assert!(!in_flight.acknowledge(1));
        assert!(in_flight.acknowledge(3));
        assert_eq!(in_flight.acknowledged, [9]);
        assert_eq!((in_flight.oldest(), in_flight.room()), (Some(at(1)), READINGS_IN_FLIGHT - 1));
        assert!(in_flight.has_readings() && in_flight.others() == 0);
        assert_eq!((in_flight.readings_up_to(4), in_flight.readings_up_to(5)), (0, 1));
        assert_eq!(in_flight.published_above(5), [9].into());
        in_flight.acknowledge(2);
        in_flight.acknowledge(2);
        assert_eq!(in_flight.acknowledged, [9, 5]);
        assert!(!in_flight.has_readings() && in_flight.oldest().is_none());
    }
}
