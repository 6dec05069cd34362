//! The in-flight window: publishes without a PUBACK yet, and the reading that each PUBACK belongs to.

use std::collections::{HashMap, VecDeque};

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

/// Matches PUBACKs to readings. The client sends publishes in their order and reports each one's packet id
/// when it sends it; the PUBACK has the same id.
#[derive(Debug, Default)]
pub struct InFlight {
    /// Handed to the client, without a packet id yet.
    queued: VecDeque<Published>,
    /// Sent, by packet id.
    sent: HashMap<u16, Published>,
    /// Readings among both.
    readings: usize,
    last_id: i64,
    acknowledged: Vec<i64>,
}

impl InFlight {
    /// How many more readings may be published.
    pub const fn room(&self) -> usize {
        READINGS_IN_FLIGHT - self.readings
    }

    /// Id of the last reading published.
    pub const fn last_id(&self) -> i64 {
        self.last_id
    }

    /// Whether any reading waits for its PUBACK.
    pub const fn has_readings(&self) -> bool {
        self.readings > 0
    }

    /// How many other publishes wait to be sent or acknowledged.
    pub fn others(&self) -> usize {
        let all = self.queued.iter().chain(self.sent.values());
        all.filter(|published| **published == Published::Other).count()
    }

    /// Notes a publish that was handed to the client.
    pub fn push(&mut self, published: Published) {
        if let Published::Reading(id) = published {
            self.readings += 1;
            self.last_id = id;
        }
        self.queued.push_back(published);
    }

    /// Notes that the client sent the oldest queued publish with this packet id.
    pub fn sent(&mut self, packet_id: u16) {
        if let Some(published) = self.queued.pop_front() {
            self.sent.insert(packet_id, published);
        }
    }

    /// Notes a PUBACK.
    pub fn acknowledge(&mut self, packet_id: u16) {
        if let Some(Published::Reading(id)) = self.sent.remove(&packet_id) {
            self.readings -= 1;
            self.acknowledged.push(id);
        }
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
        in_flight.push(Published::Other);
        in_flight.push(Published::Reading(5));
        in_flight.push(Published::Reading(9));
        (1..=3).for_each(|packet_id| in_flight.sent(packet_id));
        in_flight.acknowledge(1);
        in_flight.acknowledge(3);
        assert_eq!(in_flight.acknowledged, [9]);
        assert!(in_flight.has_readings() && in_flight.others() == 0);
        in_flight.acknowledge(2);
        in_flight.acknowledge(2);
        assert_eq!(in_flight.acknowledged, [9, 5]);
        assert!(!in_flight.has_readings());
    }
}
