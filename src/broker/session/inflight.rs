//! What was delivered to one client and not yet acknowledged, by packet id.

use std::collections::HashMap;

use crate::mqtt::QoS;

/// Messages in flight to one client at most, whatever it would take.
const WINDOW: u16 = 256;

/// Where a delivery stands. `number` is that of a message that waits in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    /// PUBACK is awaited.
    Once { number: Option<i64> },
    /// PUBREC is awaited.
    Twice { number: Option<i64> },
    /// PUBCOMP is awaited.
    Released { number: Option<i64> },
}

/// An acknowledgement of what was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an acknowledgement of what was never sent")]
pub struct Unasked;

/// What is in flight to one client.
#[derive(Debug)]
pub struct Flights {
    window: u16,
    by_id: HashMap<u16, Flight>,
    last_id: u16,
}

impl Flights {
    /// Nothing is in flight yet, and never more than `receive_maximum` or [`WINDOW`] messages.
    pub fn new(receive_maximum: u16) -> Self {
        Self { window: receive_maximum.min(WINDOW), by_id: HashMap::new(), last_id: 0 }
    }

    /// Whether one more of this quality of service may leave.
    pub fn has_room(&self, qos: QoS) -> bool {
        qos == QoS::AtMostOnce || self.by_id.len() < usize::from(self.window)
    }

    /// A packet id for what has none in the log. There are more than the window has places, so one is free.
    pub fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.by_id.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// A PUBLISH has left.
    pub fn take_off(&mut self, qos: QoS, packet_id: u16, number: Option<i64>) {
        match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => self.by_id.insert(packet_id, Flight::Once { number }),
            QoS::ExactlyOnce => self.by_id.insert(packet_id, Flight::Twice { number }),
        };
    }

    /// A PUBREL has left for a message whose PUBREC an earlier connection took.
    pub fn release(&mut self, packet_id: u16, number: i64) {
        self.by_id.insert(packet_id, Flight::Released { number: Some(number) });
    }

    /// The client's PUBACK. Returns the message's number in the log, where nothing waits for it any more.
    ///
    /// # Errors
    /// When it was not asked for.
    pub fn puback(&mut self, packet_id: u16) -> Result<Option<i64>, Unasked> {
        match self.by_id.get(&packet_id) {
            Some(Flight::Once { number }) => {
                let number = *number;
                self.by_id.remove(&packet_id);
                Ok(number)
            }
            _ => Err(Unasked),
        }
    }

    /// The client's PUBREC. PUBREL follows, when the number returned is noted in the log as released. With
    /// `refused` the exchange is over (MQTT 5.0 §4.3.3).
    ///
    /// # Errors
    /// When it was not asked for.
    pub fn pubrec(&mut self, packet_id: u16, refused: bool) -> Result<Option<i64>, Unasked> {
        match self.by_id.get(&packet_id) {
            Some(Flight::Twice { number } | Flight::Released { number }) => {
                let number = *number;
                if refused {
                    self.by_id.remove(&packet_id);
                } else {
                    self.by_id.insert(packet_id, Flight::Released { number });
                }
                Ok(number)
            }
            _ => Err(Unasked),
        }
    }

    /// The client's PUBCOMP, as [`Flights::puback`].
    ///
    /// # Errors
    /// When it was not asked for.
    pub fn pubcomp(&mut self, packet_id: u16) -> Result<Option<i64>, Unasked> {
        match self.by_id.get(&packet_id) {
            Some(Flight::Released { number }) => {
                let number = *number;
                self.by_id.remove(&packet_id);
                Ok(number)
            }
            _ => Err(Unasked),
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qos_2_exchange_has_its_order() {
        let mut flights = Flights::new(u16::MAX);
        flights.take_off(QoS::ExactlyOnce, 1, None);
        assert_eq!((flights.puback(1), flights.pubcomp(1)), (Err(Unasked), Err(Unasked)));
        assert_eq!((flights.pubrec(1, false), flights.pubrec(1, false)), (Ok(None), Ok(None)));
        assert_eq!((flights.pubcomp(1), flights.pubcomp(1)), (Ok(None), Err(Unasked)));
    }

    #[test]
    fn a_refused_qos_2_exchange_is_over() {
        let mut flights = Flights::new(1);
        flights.take_off(QoS::ExactlyOnce, 1, Some(7));
        assert!(!flights.has_room(QoS::AtLeastOnce) && flights.has_room(QoS::AtMostOnce));
        assert_eq!(flights.pubrec(1, true), Ok(Some(7)));
        assert_eq!(flights.pubcomp(1), Err(Unasked));
        assert!(flights.has_room(QoS::ExactlyOnce));
    }

    #[test]
    fn a_packet_id_is_never_zero_nor_in_flight() {
        let mut flights = Flights::new(u16::MAX);
        assert!(flights.has_room(QoS::AtLeastOnce));
        flights.last_id = u16::MAX - 1;
        flights.take_off(QoS::AtLeastOnce, 1, None);
        assert_eq!([flights.free_id(), flights.free_id()], [u16::MAX, 2]);
        (2..=WINDOW).for_each(|id| flights.take_off(QoS::AtLeastOnce, id, None));
        assert!(!flights.has_room(QoS::AtLeastOnce));
    }
}
