//! The outbound side of one client: the retained messages of new subscriptions, the messages that wait in the log, and
//! the live messages of its queue.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;

use super::fan_out::FanOut;
use super::retained_replay::ReplayRequest;
use crate::broker::access::acl::CompiledAcl;
use crate::broker::counters::Traffic;
use crate::broker::net::buffers::{Buffered, OWN_BYTES};
use crate::broker::session::inflight::InFlight;
use crate::broker::session::outbound_queue::Delivery;
use crate::broker::session::state::Session;
use crate::mqtt::codec::{self, AckKind, Envelope, Reason, Version};
use crate::mqtt::{Message, QoS, Topic};
use crate::store::Waiting;

/// Bytes that wait for the socket. Beyond it no further message is written.
const OUT_HIGH_BYTES: usize = 64 * 1024;
/// Bytes of a PUBLISH beside topic, payload and properties, except for a hundred subscription identifiers.
const PACKET_OVERHEAD: usize = 64;
/// Topic aliases given to one client at most.
const ALIASES: u16 = 10;
/// Bytes of the topics that have one.
const ALIASED_BYTES: usize = 2 * 1024;

/// The capabilities of a client, from its CONNECT (MQTT 5.0 §3.1.2.11).
#[derive(Debug, Clone, Copy)]
pub struct ClientCapabilities {
    pub version: Version,
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size, fixed header included.
    pub packet_max: usize,
    /// Topic Alias Maximum.
    pub aliases: u16,
}

/// The outbound side of one client.
#[derive(Debug)]
pub struct Outbound {
    capabilities: ClientCapabilities,
    acl: Arc<CompiledAcl>,
    fan_out: FanOut,
    session: Arc<Session>,
    /// New subscriptions whose retained messages are still to be looked up: one at a time, since each may replay all
    /// retained messages.
    replays: VecDeque<ReplayRequest>,
    /// A page of the retained messages of a new subscription.
    replayed: VecDeque<Delivery>,
    /// The next messages that wait in the log.
    page: VecDeque<Waiting>,
    /// Highest number of the log's that was sent before this connection.
    sent_before: i64,
    /// Deliveries that the client has not acknowledged.
    pub in_flight: InFlight,
    aliases: HashMap<Topic, u16>,
    aliased_bytes: usize,
    /// What the output has of the pool.
    pub buffered: Buffered,
}

impl Outbound {
    /// Opens the session's queue. Nothing is on its way yet.
    pub fn new(
        capabilities: ClientCapabilities,
        session: Arc<Session>,
        acl: Arc<CompiledAcl>,
        fan_out: FanOut,
        buffered: Buffered,
    ) -> Self {
        session.queue.open();
        let sent_before = session.state().sent;
        Self {
            capabilities,
            acl,
            fan_out,
            session,
            replays: VecDeque::new(),
            replayed: VecDeque::new(),
            page: VecDeque::new(),
            sent_before,
            in_flight: InFlight::new(capabilities.receive_maximum),
            aliases: HashMap::new(),
            aliased_bytes: 0,
            buffered,
        }
    }

    /// Queues the replay of new subscriptions, before later messages. A filter that is subscribed again before its
    /// look-up is replayed once, so that the number of subscriptions bounds the replays.
    pub fn replay(&mut self, requests: impl IntoIterator<Item = ReplayRequest>) {
        for request in requests {
            self.replays.retain(|other| other.filter != request.filter);
            self.replays.push_back(request);
        }
    }

    /// Adds a page of messages that wait in the log.
    pub fn queue_page(&mut self, page: Vec<Waiting>) {
        self.page.extend(page);
    }

    /// Whether the next page of the log is needed.
    pub fn wants_page(&self) -> bool {
        self.page.is_empty()
    }

    /// Writes messages into `out` as far as the client has room. Returns the numbers of messages in the log that are
    /// not delivered any more.
    pub fn write(&mut self, now_ms: i64, out: &mut BytesMut) -> Vec<i64> {
        let mut settled = Vec::new();
        self.look_up_replay();
        if out.len() <= OWN_BYTES {
            self.buffered.release();
        }
        while out.len() < OUT_HIGH_BYTES {
            let (in_flight, buffered) = (&self.in_flight, &mut self.buffered);
            let written = out.len();
            // Beyond the connection's own bytes it takes a share, in which other messages have room, too.
            let mut fits = |qos, size: usize| {
                in_flight.has_room(qos)
                    && buffered.admits(written + size + PACKET_OVERHEAD, OUT_HIGH_BYTES)
            };
            if let Some(delivery) =
                self.replayed.pop_front_if(|delivery| fits(delivery.qos, delivery.message.size()))
            {
                self.write_delivery(&delivery, now_ms, out);
            } else if let Some(waiting) =
                self.page.pop_front_if(|waiting| fits(waiting.qos, waiting.size()))
            {
                settled.extend(self.write_waiting(waiting, now_ms, out));
            } else if self.replayed.is_empty()
                && self.replays.is_empty()
                // Not before a retained message that waits for its place: that may be an older one of the same topic.
                && let Some(delivery) = self
                    .session
                    .queue
                    .pop_if(|delivery| fits(delivery.qos, delivery.message.size()))
            {
                self.write_delivery(&delivery, now_ms, out);
            } else {
                break;
            }
        }
        settled
    }

    /// Whether a replay is to be looked up before anything else is written. Other connections get a turn first.
    pub fn is_replaying(&self) -> bool {
        self.replayed.is_empty() && !self.replays.is_empty()
    }

    fn look_up_replay(&mut self) {
        if self.replayed.is_empty()
            && let Some(request) = self.replays.front_mut()
        {
            let (page, is_last) =
                request.next_page(&self.fan_out.retained, self.fan_out.timeline.now_ms());
            let live = page.into_iter().filter(|delivery| !request.is_stored(delivery.qos));
            self.replayed.extend(live);
            if is_last {
                self.replays.pop_front();
            }
        }
    }

    fn write_delivery(&mut self, delivery: &Delivery, now_ms: i64, out: &mut BytesMut) {
        let Delivery { message, qos, retain, identifiers } = delivery;
        let packet_id = if *qos == QoS::AtMostOnce { 0 } else { self.in_flight.free_id() };
        let envelope = Envelope {
            qos: *qos,
            packet_id,
            dup: false,
            retain: *retain,
            identifiers,
            alias: None,
        };
        if self.put(message, envelope, now_ms, out) {
            self.in_flight.sent(*qos, packet_id, None);
        }
    }

    fn write_waiting(&mut self, waiting: Waiting, now_ms: i64, out: &mut BytesMut) -> Option<i64> {
        let packet_id = waiting.packet_id();
        let Waiting { number, qos, retain, identifiers, message } = waiting;
        let Some(message) = message else {
            self.in_flight.release(packet_id, number);
            let version = self.capabilities.version;
            codec::write_ack(version, AckKind::PubRel, packet_id, Reason::Success, out);
            return None;
        };
        let dup = number <= self.sent_before;
        let envelope =
            Envelope { qos, packet_id, dup, retain, identifiers: &identifiers, alias: None };
        if self.put(&message, envelope, now_ms, out) {
            self.in_flight.sent(qos, packet_id, Some(number));
            let mut state = self.session.state();
            state.sent = state.sent.max(number);
            return None;
        }
        Some(number)
    }

    /// Writes a message unless it has expired, is too large, or the client may not read it; returns whether it did.
    fn put(
        &mut self,
        message: &Message,
        mut envelope: Envelope<'_>,
        now_ms: i64,
        out: &mut BytesMut,
    ) -> bool {
        if message.is_expired(now_ms) || !self.acl.may_read(&message.topic) {
            return false;
        }
        let known = self.aliases.get(&message.topic).copied();
        let free = u16::try_from(self.aliases.len()).map_or(u16::MAX, |given| given + 1);
        envelope.alias = match known {
            Some(alias) => Some((alias, true)),
            None if free <= self.capabilities.aliases.min(ALIASES)
                && self.aliased_bytes + message.topic.len() <= ALIASED_BYTES =>
            {
                Some((free, false))
            }
            None => None,
        };
        let before = out.len();
        let version = self.capabilities.version;
        let mut bytes = codec::write_publish(version, message, envelope, now_ms, out);
        if bytes > self.capabilities.packet_max && matches!(envelope.alias, Some((_, false))) {
            // A new alias makes the packet longer.
            out.truncate(before);
            envelope.alias = None;
            bytes = codec::write_publish(version, message, envelope, now_ms, out);
        }
        if bytes > self.capabilities.packet_max {
            // [MQTT-3.1.2-25]: as if it had been sent.
            out.truncate(before);
            self.fan_out.traffic.losses.add(&self.session.client_id, 1);
            return false;
        }
        if let Some((alias, false)) = envelope.alias {
            self.aliased_bytes += message.topic.len();
            self.aliases.insert(message.topic.clone(), alias);
        }
        Traffic::count(&self.fan_out.traffic.sent);
        true
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::v5::Packet;

    use super::*;
    use crate::broker::delivery::retained_messages::Retained;
    use crate::broker::net::buffers::BUFFER_BYTES;
    use crate::broker::net::shares::Pool;
    use crate::broker::session::inflight::UnexpectedAck;
    use crate::broker::session::outbound_queue::Shared;
    use crate::broker::session::state::State;
    use crate::broker::session::subscriptions::Subscriptions;
    use crate::mqtt::Filter;
    use crate::store::Options;
    use crate::timeline::Timeline;

    const CAPABILITIES: ClientCapabilities = ClientCapabilities {
        version: Version::V5,
        receive_maximum: 2,
        packet_max: usize::MAX,
        aliases: 0,
    };

    fn outbound(capabilities: ClientCapabilities) -> Outbound {
        let fan_out = FanOut {
            subscriptions: Subscriptions::default(),
            retained: Retained::default(),
            traffic: Arc::default(),
            timeline: Timeline::default(),
        };
        let session = fan_out.subscriptions.session("c", None, State::default());
        let buffered = Buffered::new(Pool::new(BUFFER_BYTES), "c".into());
        Outbound::new(capabilities, session, Arc::new(CompiledAcl::everything()), fan_out, buffered)
    }

    fn queue(outbound: &Outbound, delivery: Delivery) {
        outbound.session.queue.push(delivery);
    }

    fn subscribe(outbound: &mut Outbound, filter: &str, qos: QoS) {
        let options = Options { qos, no_local: false, retain_as_published: false, identifier: 0 };
        let (filter, session) = (filter.parse::<Filter>().unwrap(), &outbound.session);
        session.state().subscriptions.insert(filter.clone(), options);
        let entered = outbound.fan_out.subscriptions.add(&filter, session, options);
        let session = Arc::clone(session);
        outbound.replay([ReplayRequest { session, filter, options, entered, after: None }]);
    }

    fn delivery(topic: &str, payload: &str, qos: QoS) -> Delivery {
        let message = Arc::new(Message::own(topic.to_owned(), payload.to_owned()));
        let message = Shared::uncounted(message);
        Delivery { message, qos, retain: false, identifiers: Vec::new() }
    }

    fn written(outbound: &mut Outbound) -> Vec<Packet> {
        let mut out = BytesMut::new();
        outbound.write(0, &mut out);
        std::iter::from_fn(|| Packet::read(&mut out, None).ok()).collect()
    }

    fn payload(packet: Packet) -> String {
        match packet {
            Packet::Publish(publish) => String::from_utf8(publish.payload.to_vec()).unwrap(),
            other => panic!("no PUBLISH but {other:?}"),
        }
    }

    #[test]
    fn no_more_is_in_flight_than_the_client_takes_and_it_may_acknowledge_in_any_order() {
        let mut outbound = outbound(CAPABILITIES);
        for n in 0..4 {
            queue(&outbound, delivery("t", &n.to_string(), QoS::AtLeastOnce));
        }
        assert_eq!(written(&mut outbound).len(), 2);
        assert_eq!(outbound.in_flight.puback(2), Ok(None));
        assert_eq!(outbound.in_flight.puback(2), Err(UnexpectedAck));
        assert_eq!(written(&mut outbound).len(), 1);
        assert_eq!(
            (outbound.in_flight.puback(1), outbound.in_flight.puback(3)),
            (Ok(None), Ok(None))
        );
        assert_eq!(outbound.in_flight.puback(9), Err(UnexpectedAck));
        assert_eq!(written(&mut outbound).len(), 1);
    }

    #[test]
    fn a_live_message_does_not_pass_a_retained_one_that_waits_for_its_place() {
        let mut outbound = outbound(ClientCapabilities { receive_maximum: 1, ..CAPABILITIES });
        for (topic, payload) in [("a", "1"), ("b", "1"), ("c", "old")] {
            let qos = if topic == "c" { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            outbound.fan_out.publish_own(Message { qos, ..Message::own(topic, payload) });
        }
        subscribe(&mut outbound, "#", QoS::AtLeastOnce);
        outbound.fan_out.publish_own(Message { retain: false, ..Message::own("c", "new") });
        assert_eq!(written(&mut outbound).len(), 1);
        assert_eq!(outbound.in_flight.puback(1), Ok(None));
        let payloads: Vec<_> = written(&mut outbound).into_iter().map(payload).collect();
        assert_eq!(payloads, ["1", "old", "new"]);
    }

    #[test]
    fn a_retained_message_comes_once_whether_it_was_published_before_or_after_the_look_up() {
        let mut outbound = outbound(CAPABILITIES);
        outbound.fan_out.publish_own(Message::own("a", "before"));
        subscribe(&mut outbound, "+", QoS::AtMostOnce);
        // Published after the subscription, retained before its retained messages are looked up.
        outbound.fan_out.publish_own(Message::own("b", "between"));
        assert!(outbound.is_replaying());
        let payloads: Vec<_> = written(&mut outbound).into_iter().map(payload).collect();
        assert_eq!(payloads, ["before", "between"]);
        assert!(!outbound.is_replaying() && written(&mut outbound).is_empty());
    }

    #[test]
    fn a_message_that_is_too_large_or_too_old_counts_as_sent() {
        let mut outbound = outbound(ClientCapabilities { packet_max: 20, ..CAPABILITIES });
        queue(&outbound, delivery("t", &"x".repeat(30), QoS::AtLeastOnce));
        let mut old = delivery("t", "old", QoS::AtLeastOnce);
        let expired = Message { expires_at_ms: Some(0), ..Message::own("t", "old") };
        old.message = Shared::uncounted(Arc::new(expired));
        queue(&outbound, old);
        queue(&outbound, delivery("t", "small", QoS::AtLeastOnce));
        assert_eq!(written(&mut outbound).len(), 1);
        assert!(outbound.in_flight.has_room(QoS::AtLeastOnce), "one of two places is taken");
    }

    #[test]
    fn a_message_from_the_log_has_its_own_packet_id_and_is_marked_when_it_is_sent_again() {
        let mut outbound = outbound(CAPABILITIES);
        outbound.sent_before = 7;
        let waiting = |number, message| Waiting {
            number,
            qos: QoS::ExactlyOnce,
            retain: false,
            identifiers: vec![],
            message,
        };
        let message = Some(Arc::new(Message::own("t", "1")));
        outbound.queue_page(vec![
            waiting(6, None),
            waiting(7, message.clone()),
            waiting(8, message),
        ]);
        let packets = written(&mut outbound);
        assert!(matches!(&packets[0], Packet::PubRel(release) if release.pkid == 7));
        assert!(
            matches!(&packets[1], Packet::Publish(publish) if publish.pkid == 8 && publish.dup)
        );
        assert_eq!(packets.len(), 2, "the window is full");
        assert_eq!(outbound.in_flight.pubcomp(7), Ok(Some(6)));
        let packets = written(&mut outbound);
        assert!(
            matches!(&packets[0], Packet::Publish(publish) if publish.pkid == 9 && !publish.dup)
        );
    }

    #[test]
    fn a_topic_alias_stands_for_the_topic_from_the_second_time_on() {
        let mut outbound = outbound(ClientCapabilities { aliases: 1, ..CAPABILITIES });
        for topic in ["a", "a", "b"] {
            queue(&outbound, delivery(topic, "1", QoS::AtMostOnce));
        }
        let topics: Vec<_> = written(&mut outbound)
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
