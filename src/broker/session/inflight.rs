//! The in-flight window of one client: deliveries without their acknowledgement, by packet id.

use std::collections::HashMap;

use crate::mqtt::QoS;

/// Messages in flight to one client at most, whatever its Receive Maximum.
const WINDOW: u16 = 256;

/// The state of a delivery. `number` is that of a message that waits in the log.
#[allow(clippy::enum_variant_names)] // the packet that is awaited, as other brokers name the states
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    /// PUBACK is awaited.
    AwaitPuback { number: Option<i64> },
    /// PUBREC is awaited.
    AwaitPubrec { number: Option<i64> },
    /// PUBCOMP is awaited.
    AwaitPubcomp { number: Option<i64> },
}

/// An acknowledgement that no delivery awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an acknowledgement that no delivery awaits")]
pub struct UnexpectedAck;

/// The deliveries in flight to one client.
#[derive(Debug)]
pub struct InFlight {
    window: u16,
    by_id: HashMap<u16, Exchange>,
    last_id: u16,
}

impl InFlight {
    /// Nothing is in flight yet, and never more than `receive_maximum` or [`WINDOW`] messages.
    pub fn new(receive_maximum: u16) -> Self {
        Self { window: receive_maximum.min(WINDOW), by_id: HashMap::new(), last_id: 0 }
    }

    /// Whether one more message of this quality of service may be sent.
    pub fn has_room(&self, qos: QoS) -> bool {
        qos == QoS::AtMostOnce || self.by_id.len() < usize::from(self.window)
    }

    /// A packet id for a message without a number in the log. There are more ids than places in the window, so one is
    /// free.
    pub fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.by_id.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Notes that a PUBLISH was sent.
    pub fn sent(&mut self, qos: QoS, packet_id: u16, number: Option<i64>) {
        match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => self.by_id.insert(packet_id, Exchange::AwaitPuback { number }),
            QoS::ExactlyOnce => self.by_id.insert(packet_id, Exchange::AwaitPubrec { number }),
        };
    }

    /// Notes that a PUBREL was sent for a message whose PUBREC an earlier connection received.
    pub fn release(&mut self, packet_id: u16, number: i64) {
        self.by_id.insert(packet_id, Exchange::AwaitPubcomp { number: Some(number) });
    }

    /// Takes the client's PUBACK. Returns the message's number, if it is in the log; there it is done.
    ///
    /// # Errors
    /// [`UnexpectedAck`] when no delivery awaits it.
    pub fn puback(&mut self, packet_id: u16) -> Result<Option<i64>, UnexpectedAck> {
        match self.by_id.get(&packet_id) {
            Some(Exchange::AwaitPuback { number }) => {
                let number = *number;
                self.by_id.remove(&packet_id);
                Ok(number)
            }
            _ => Err(UnexpectedAck),
        }
    }

    /// Takes the client's PUBREC. Returns the message's number, if it is in the log; the log notes it as released
    /// before PUBREL is sent. With `refused` the exchange is over (MQTT 5.0 §4.3.3).
    ///
    /// # Errors
    /// [`UnexpectedAck`] when no delivery awaits it.
    pub fn pubrec(&mut self, packet_id: u16, refused: bool) -> Result<Option<i64>, UnexpectedAck> {
        match self.by_id.get(&packet_id) {
            Some(Exchange::AwaitPubrec { number } | Exchange::AwaitPubcomp { number }) => {
                let number = *number;
                if refused {
                    self.by_id.remove(&packet_id);
                } else {
                    self.by_id.insert(packet_id, Exchange::AwaitPubcomp { number });
                }
                Ok(number)
            }
            _ => Err(UnexpectedAck),
        }
    }

    /// Takes the client's PUBCOMP, as [`InFlight::puback`].
    ///
    /// # Errors
    /// [`UnexpectedAck`] when no delivery awaits it.
    pub fn pubcomp(&mut self, packet_id: u16) -> Result<Option<i64>, UnexpectedAck> {
        match self.by_id.get(&packet_id) {
            Some(Exchange::AwaitPubcomp { number }) => {
                let number = *number;
                self.by_id.remove(&packet_id);
                Ok(number)
            }
            _ => Err(UnexpectedAck),
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qos_2_exchange_has_its_order() {
        let mut in_flight = InFlight::new(u16::MAX);
        in_flight.sent(QoS::ExactlyOnce, 1, None);
        assert_eq!(
            (in_flight.puback(1), in_flight.pubcomp(1)),
            (Err(UnexpectedAck), Err(UnexpectedAck))
        );
        assert_eq!((in_flight.pubrec(1, false), in_flight.pubrec(1, false)), (Ok(None), Ok(None)));
        assert_eq!((in_flight.pubcomp(1), in_flight.pubcomp(1)), (Ok(None), Err(UnexpectedAck)));
    }

    #[test]
    fn a_refused_qos_2_exchange_is_over() {
        let mut in_flight = InFlight::new(1);
        in_flight.sent(QoS::ExactlyOnce, 1, Some(7));
        assert!(!in_flight.has_room(QoS::AtLeastOnce) && in_flight.has_room(QoS::AtMostOnce));
        assert_eq!(in_flight.pubrec(1, true), Ok(Some(7)));
        assert_eq!(in_flight.pubcomp(1), Err(UnexpectedAck));
        assert!(in_flight.has_room(QoS::ExactlyOnce));
    }

    #[test]
    fn a_packet_id_is_never_zero_nor_in_flight() {
        let mut in_flight = InFlight::new(u16::MAX);
        assert!(in_flight.has_room(QoS::AtLeastOnce));
        in_flight.last_id = u16::MAX - 1;
        in_flight.sent(QoS::AtLeastOnce, 1, None);
        assert_eq!([in_flight.free_id(), in_flight.free_id()], [u16::MAX, 2]);
        (2..=WINDOW).for_each(|id| in_flight.sent(QoS::AtLeastOnce, id, None));
        assert!(!in_flight.has_room(QoS::AtLeastOnce));
    }
}
