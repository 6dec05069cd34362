//! What is on its way to one client: what was retained, what waits in the log, and a bounded queue of live messages.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::mqtt::{QoS, Topic};
use bytes::BytesMut;

use crate::broker::access::acl::Rulings;
use crate::broker::connection::packet::{PacketError, Version};
use crate::broker::connection::reply::{self, Ack, Envelope};
use crate::broker::session::inflight::Flights;
use crate::broker::traffic::Traffic;
use crate::mqtt::Message;
use crate::store::Waiting;

/// Messages, and their bytes, that wait in memory for a client that takes them slower than they come. Beyond it
/// the oldest goes, counted.
pub(in crate::broker) const QUEUE_MESSAGES: usize = 1000;
pub(in crate::broker) const QUEUE_BYTES: usize = 1024 * 1024;
/// Bytes that wait in memory for all clients together. Beyond it each keeps but its latest message.
const ALL_QUEUES_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that wait for the socket before no more are written.
const OUT_HIGH_BYTES: usize = 64 * 1024;
/// Topic aliases given to one client at most.
const ALIASES: u16 = 32;

/// A message as it is to be delivered to one client.
#[derive(Debug, Clone)]
pub struct Parcel {
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    pub identifiers: Vec<u32>,
}

/// What a client takes (MQTT 5.0 §3.1.2.11).
#[derive(Debug, Clone, Copy)]
pub struct Appetite {
    pub version: Version,
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size, fixed header included.
    pub packet_max: usize,
    /// Topic Alias Maximum.
    pub aliases: u16,
}

/// What is on its way to one client.
#[derive(Debug)]
pub struct Outflow {
    appetite: Appetite,
    rulings: Arc<Rulings>,
    traffic: Arc<Traffic>,
    /// Retained messages that a subscription brought.
    retained: VecDeque<Parcel>,
    /// The next of what waits in the log.
    page: VecDeque<Waiting>,
    /// Highest number of the log's that was sent before this connection.
    sent_before: i64,
    live: VecDeque<Parcel>,
    live_bytes: usize,
    /// What it has not acknowledged.
    pub flights: Flights,
    aliases: HashMap<Topic, u16>,
}

impl Outflow {
    /// Nothing is on its way yet. What waits in the log up to number `sent_before` may have been sent already.
    pub fn new(
        appetite: Appetite,
        sent_before: i64,
        rulings: Arc<Rulings>,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self {
            appetite,
            rulings,
            traffic,
            retained: VecDeque::new(),
            page: VecDeque::new(),
            sent_before,
            live: VecDeque::new(),
            live_bytes: 0,
            flights: Flights::new(appetite.receive_maximum),
            aliases: HashMap::new(),
        }
    }

    /// Queues a live message. When there is no room the oldest goes: who cannot keep up gets the latest.
    pub fn queue(&mut self, parcel: Parcel) {
        let size = parcel.message.size();
        let full = |this: &Self| {
            this.live.len() >= QUEUE_MESSAGES
                || this.live_bytes + size > QUEUE_BYTES
                || this.traffic.queued_bytes.load(Relaxed) + size > ALL_QUEUES_BYTES
        };
        while full(self)
            && let Some(oldest) = self.live.pop_front()
        {
            self.forget(oldest.message.size());
            Traffic::count(&self.traffic.dropped);
        }
        self.live_bytes += size;
        self.traffic.queued_bytes.fetch_add(size, Relaxed);
        self.live.push_back(parcel);
    }

    fn forget(&mut self, size: usize) {
        self.live_bytes -= size;
        self.traffic.queued_bytes.fetch_sub(size, Relaxed);
    }

    /// Retained messages, which are all delivered; they are in memory once, for everybody.
    pub fn queue_retained(&mut self, parcels: impl IntoIterator<Item = Parcel>) {
        self.retained.extend(parcels);
    }

    /// Whether all retained messages were written.
    pub fn wants_retained(&self) -> bool {
        self.retained.is_empty()
    }

    /// What waits in the log, when there is none left here.
    pub fn queue_page(&mut self, page: Vec<Waiting>) {
        self.page.extend(page);
    }

    /// Whether the next page of the log is needed.
    pub fn wants_page(&self) -> bool {
        self.page.is_empty()
    }

    /// Writes what the client has room for into `out`. Returns the numbers of messages in the log that are not
    /// worth delivering any more.
    ///
    /// # Errors
    /// When a message cannot be encoded.
    pub fn write(&mut self, now_ms: i64, out: &mut BytesMut) -> Result<Vec<i64>, PacketError> {
        let mut settled = Vec::new();
        while out.len() < OUT_HIGH_BYTES {
            let sendable = |parcel: &Parcel| self.flights.has_room(parcel.qos);
            if self.retained.front().is_some_and(sendable) {
                if let Some(parcel) = self.retained.pop_front() {
                    self.write_parcel(&parcel, now_ms, out)?;
                }
            } else if self.page.front().is_some_and(|waiting| self.flights.has_room(waiting.qos)) {
                if let Some(waiting) = self.page.pop_front() {
                    settled.extend(self.write_waiting(waiting, now_ms, out)?);
                }
            } else if self.retained.is_empty() && self.live.front().is_some_and(sendable) {
                // Not past a retained message that waits for its place: it may be an older one of the same topic.
                if let Some(parcel) = self.live.pop_front() {
                    self.forget(parcel.message.size());
                    self.write_parcel(&parcel, now_ms, out)?;
                }
            } else {
                break;
            }
        }
        Ok(settled)
    }

    fn write_parcel(
        &mut self,
        parcel: &Parcel,
        now_ms: i64,
        out: &mut BytesMut,
    ) -> Result<(), PacketError> {
        let Parcel { message, qos, retain, identifiers } = parcel;
        let packet_id = if *qos == QoS::AtMostOnce { 0 } else { self.flights.free_id() };
        let envelope = Envelope {
            qos: *qos,
            packet_id,
            dup: false,
            retain: *retain,
            identifiers,
            alias: None,
        };
        if self.put(message, envelope, now_ms, out)? {
            self.flights.take_off(*qos, packet_id, None);
        }
        Ok(())
    }

    fn write_waiting(
        &mut self,
        waiting: Waiting,
        now_ms: i64,
        out: &mut BytesMut,
    ) -> Result<Option<i64>, PacketError> {
        let packet_id = waiting.packet_id();
        let Waiting { number, qos, retain, identifiers, message } = waiting;
        let Some(message) = message else {
            self.flights.release(packet_id, number);
            reply::ack(self.appetite.version, Ack::Release, packet_id, 0, out);
            return Ok(None);
        };
        let dup = number <= self.sent_before;
        let envelope =
            Envelope { qos, packet_id, dup, retain, identifiers: &identifiers, alias: None };
        if self.put(&message, envelope, now_ms, out)? {
            self.flights.take_off(qos, packet_id, Some(number));
            return Ok(None);
        }
        Ok(Some(number))
    }

    /// Whether it was written, and not too old, too large or none of this client's business.
    fn put(
        &mut self,
        message: &Message,
        mut envelope: Envelope<'_>,
        now_ms: i64,
        out: &mut BytesMut,
    ) -> Result<bool, PacketError> {
        if message.is_expired(now_ms) || !self.rulings.may_read(&message.topic) {
            return Ok(false);
        }
        let known = self.aliases.get(&message.topic).copied();
        let free = u16::try_from(self.aliases.len()).map_or(u16::MAX, |given| given + 1);
        envelope.alias = match known {
            Some(alias) => Some((alias, true)),
            None if free <= self.appetite.aliases.min(ALIASES) => Some((free, false)),
            None => None,
        };
        let before = out.len();
        reply::publish(self.appetite.version, message, envelope, now_ms, out)?;
        if out.len() - before > self.appetite.packet_max {
            // [MQTT-3.1.2-25]: as if it had been sent.
            out.truncate(before);
            Traffic::count(&self.traffic.dropped);
            return Ok(false);
        }
        if let Some((alias, false)) = envelope.alias {
            self.aliases.insert(message.topic.clone(), alias);
        }
        Traffic::count(&self.traffic.sent);
        Ok(true)
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        self.traffic.queued_bytes.fetch_sub(self.live_bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::v5::Packet;

    use super::*;
    use crate::broker::connection::packet;
    use crate::broker::session::inflight::Unasked;

    const APPETITE: Appetite =
        Appetite { version: Version::V5, receive_maximum: 2, packet_max: usize::MAX, aliases: 0 };

    fn outflow(appetite: Appetite) -> Outflow {
        Outflow::new(appetite, 0, Arc::new(Rulings::everything()), Arc::default())
    }

    fn parcel(topic: &str, payload: &str, qos: QoS) -> Parcel {
        let message = Arc::new(Message::own(topic.to_owned(), payload.to_owned()));
        Parcel { message, qos, retain: false, identifiers: Vec::new() }
    }

    fn written(outflow: &mut Outflow) -> Vec<Packet> {
        let mut out = BytesMut::new();
        outflow.write(0, &mut out).unwrap();
        std::iter::from_fn(|| packet::next(Version::V5, &mut out).unwrap()).collect()
    }

    fn payload(packet: Packet) -> String {
        match packet {
            Packet::Publish(publish) => String::from_utf8(publish.payload.to_vec()).unwrap(),
            other => panic!("no PUBLISH but {other:?}"),
        }
    }

    #[test]
    fn no_more_is_in_flight_than_the_client_takes_and_it_may_acknowledge_in_any_order() {
        let mut outflow = outflow(APPETITE);
        for n in 0..4 {
            outflow.queue(parcel("t", &n.to_string(), QoS::AtLeastOnce));
        }
        assert_eq!(written(&mut outflow).len(), 2);
        assert_eq!(outflow.flights.puback(2), Ok(None));
        assert_eq!(outflow.flights.puback(2), Err(Unasked));
        assert_eq!(written(&mut outflow).len(), 1);
        assert_eq!((outflow.flights.puback(1), outflow.flights.puback(3)), (Ok(None), Ok(None)));
        assert_eq!(outflow.flights.puback(9), Err(Unasked));
        assert_eq!(written(&mut outflow).len(), 1);
    }

    #[test]
    fn who_does_not_keep_up_gets_the_latest_and_memory_stays_bounded() {
        let mut outflow = outflow(APPETITE);
        for n in 0..QUEUE_MESSAGES + 5 {
            outflow.queue(parcel("t", &n.to_string(), QoS::AtMostOnce));
        }
        assert_eq!(outflow.live.front().unwrap().message.payload, "5");
        let big = "x".repeat(100_000);
        (0..100).for_each(|_| outflow.queue(parcel("t", &big, QoS::AtMostOnce)));
        assert!(outflow.live_bytes <= QUEUE_BYTES);
        let traffic = Arc::clone(&outflow.traffic);
        assert_eq!(traffic.queued_bytes.load(Relaxed), outflow.live_bytes);
        traffic.queued_bytes.fetch_add(ALL_QUEUES_BYTES, Relaxed);
        outflow.queue(parcel("t", "last", QoS::AtMostOnce));
        assert_eq!(outflow.live.len(), 1, "one is always kept");
        drop(outflow);
        assert_eq!(traffic.queued_bytes.load(Relaxed), ALL_QUEUES_BYTES);
    }

    #[test]
    fn a_live_message_does_not_pass_a_retained_one_that_waits_for_its_place() {
        let mut outflow = outflow(Appetite { receive_maximum: 1, ..APPETITE });
        outflow.queue_retained([
            parcel("a", "1", QoS::AtLeastOnce),
            parcel("b", "1", QoS::AtLeastOnce),
            parcel("c", "old", QoS::AtMostOnce),
        ]);
        outflow.queue(parcel("c", "new", QoS::AtMostOnce));
        assert_eq!(written(&mut outflow).len(), 1);
        assert_eq!(outflow.flights.puback(1), Ok(None));
        let payloads: Vec<_> = written(&mut outflow).into_iter().map(payload).collect();
        assert_eq!(payloads, ["1", "old", "new"]);
    }

    #[test]
    fn what_is_too_large_or_too_old_counts_as_sent() {
        let mut outflow = outflow(Appetite { packet_max: 20, ..APPETITE });
        outflow.queue(parcel("t", &"x".repeat(30), QoS::AtLeastOnce));
        let mut old = parcel("t", "old", QoS::AtLeastOnce);
        old.message = Arc::new(Message { expires_at_ms: Some(0), ..Message::own("t", "old") });
        outflow.queue(old);
        outflow.queue(parcel("t", "small", QoS::AtLeastOnce));
        assert_eq!(written(&mut outflow).len(), 1);
        assert!(outflow.flights.has_room(QoS::AtLeastOnce), "one of two places is taken");
    }

    #[test]
    fn what_waits_in_the_log_has_its_own_packet_id_and_is_marked_when_it_comes_again() {
        let mut outflow =
            Outflow::new(APPETITE, 7, Arc::new(Rulings::everything()), Arc::default());
        let waiting = |number, message| Waiting {
            number,
            qos: QoS::ExactlyOnce,
            retain: false,
            identifiers: vec![],
            message,
        };
        let message = Some(Arc::new(Message::own("t", "1")));
        outflow.queue_page(vec![
            waiting(6, None),
            waiting(7, message.clone()),
            waiting(8, message),
        ]);
        let packets = written(&mut outflow);
        assert!(matches!(&packets[0], Packet::PubRel(release) if release.pkid == 7));
        assert!(
            matches!(&packets[1], Packet::Publish(publish) if publish.pkid == 8 && publish.dup)
        );
        assert_eq!(packets.len(), 2, "the window is full");
        assert_eq!(outflow.flights.pubcomp(7), Ok(Some(6)));
        let packets = written(&mut outflow);
        assert!(
            matches!(&packets[0], Packet::Publish(publish) if publish.pkid == 9 && !publish.dup)
        );
    }

    #[test]
    fn a_topic_alias_stands_for_the_topic_from_the_second_time_on() {
        let mut outflow = outflow(Appetite { aliases: 1, ..APPETITE });
        for topic in ["a", "a", "b"] {
            outflow.queue(parcel(topic, "1", QoS::AtMostOnce));
        }
        let topics: Vec<_> = written(&mut outflow)
            .into_iter()
            .map(|packet| match packet {
                Packet::Publish(publish) => (
                    publish.topic,
                    publish.properties.and_then(|properties| properties.topic_alias),
                ),
                other => panic!("no PUBLISH but {other:?}"),
            })
            .collect();
        assert_eq!(topics, [("a".into(), Some(1)), ("".into(), Some(1)), ("b".into(), None)]);
    }
}
