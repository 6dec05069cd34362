//! A connected client: what each of its packets does, up to the commit, and what follows the commit.

pub(in crate::broker) mod deliver;
pub(in crate::broker) mod pending_commit;
pub(in crate::broker) mod subscribe;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::mqtt::QoS;
use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5::{Disconnect, DisconnectReasonCode, Packet, PubRecReason, Publish};

use crate::broker::access::permissions::Grants;
use crate::broker::connection::client::deliver::Page;
use crate::broker::connection::client::pending_commit::Staged;
use crate::broker::connection::client::subscribe::{Subscribing, Unconfirmed};
use crate::broker::connection::handshake::{ALIASES, Opened, RECEIVE_MAXIMUM};
use crate::broker::connection::packet::{self, Version};
use crate::broker::connection::reply::{self, Ack};
use crate::broker::connection::run::{End, Services};
use crate::broker::delivery::inbox::Inbox;
use crate::broker::delivery::outbound::Outflow;
use crate::broker::delivery::publication::Publication;
use crate::broker::delivery::router::Link;
use crate::broker::session::session::Session;
use crate::clock;
use crate::mqtt::{Filter, Message, Topic, encode_properties, topic_name};
use crate::store::{Change, Options};

/// PUBLISH packets that one connection has in one commit.
const BATCH_PACKETS: usize = 256;
/// Changes of what survives a restart that one connection begins in one commit; the packet that passes it is the
/// last.
const BATCH_CHANGES: usize = 1000;

/// A connected client.
pub struct Client<'a> {
    pub(in crate::broker) services: &'a Services,
    pub(in crate::broker) session: Arc<Session>,
    pub(in crate::broker) grants: Arc<Grants>,
    pub(in crate::broker) version: Version,
    /// Opened with the first subscription: a client that only publishes costs the router nothing.
    pub link: Option<Link>,
    /// Shared messages, once a shared subscription is held.
    pub inbox: Option<Arc<Inbox>>,
    /// Bytes read and not taken yet.
    pub inbound: BytesMut,
    /// Bytes to write.
    pub out: BytesMut,
    /// What waits for its commit.
    pub staged: Option<Staged>,
    /// What is on its way to the client.
    pub outflow: Outflow,
    /// What is being read of what waits in the log.
    pub page: Option<Page>,
    /// Number of the latest message read from the log, and whether there may be more.
    pub(in crate::broker) page_after: i64,
    pub may_wait: bool,
    /// SUBSCRIBEs that wait for the router.
    pub(in crate::broker) unconfirmed: VecDeque<Unconfirmed>,
    /// Subscriptions that are confirmed and whose retained messages are still to come.
    pub(in crate::broker) owed: VecDeque<(Filter, Options)>,
    /// Topics that the client has given an alias (MQTT 5.0 §3.3.2.3.4).
    aliases: HashMap<u16, String>,
    /// PUBLISH packets taken since the connection's loop last asked.
    pub taken: u32,
    /// DISCONNECT was read; what was published before it is still committed.
    goodbye: Option<Disconnect>,
}

impl<'a> Client<'a> {
    /// A client that was just accepted; `inbound` may hold what it sent after its CONNECT.
    pub fn new(services: &'a Services, opened: &Opened, inbound: BytesMut) -> Self {
        let session = Arc::clone(&opened.claim.session);
        let sent_before = session.state().sent;
        Self {
            services,
            grants: Arc::clone(&opened.grants),
            version: opened.appetite.version,
            link: None,
            inbox: None,
            inbound,
            out: BytesMut::new(),
            staged: None,
            outflow: Outflow::new(
                opened.appetite,
                sent_before,
                opened.grants.rulings(),
                Arc::clone(&services.traffic),
            ),
            page: None,
            page_after: 0,
            may_wait: session.persistent.is_some() && opened.claim.session_present,
            unconfirmed: VecDeque::new(),
            owed: VecDeque::new(),
            aliases: HashMap::new(),
            taken: 0,
            goodbye: None,
            session,
        }
    }

    /// The DISCONNECT, when everything before it is done.
    pub const fn has_left(&mut self) -> Option<Disconnect> {
        if self.staged.is_none() { self.goodbye.take() } else { None }
    }

    /// Whether publishes wait for their commit.
    pub const fn is_committing(&self) -> bool {
        self.staged.is_some()
    }

    /// Whether a SUBSCRIBE is not confirmed yet. What waits in the log comes after its SUBACK, as clients expect
    /// although MQTT 3.1.1 §3.8.4 allows it before.
    pub(in crate::broker) fn is_subscribing(&self) -> bool {
        let staged = self.staged.as_ref().is_some_and(|staged| !staged.subscribing.is_empty());
        staged || !self.unconfirmed.is_empty()
    }

    /// Whether the next packet is a PUBLISH and a SUBSCRIBE before it is not known to the router yet. Who answers
    /// the one must find the other: a node says `online` after it has subscribed to its commands.
    fn publishes_too_early(&self, batch: &Batch) -> bool {
        let subscribing = !batch.subscribing.is_empty() || !self.unconfirmed.is_empty();
        subscribing && packet::is_next(packet::PUBLISH, &self.inbound)
    }

    /// Whether the next packet is a SUBSCRIBE and something to retain before it is not committed yet: what it brings is
    /// what was retained before its commit.
    fn subscribes_too_early(&self, batch: &Batch) -> bool {
        let mut changes = batch.publication.batch.changes.iter();
        packet::is_next(packet::SUBSCRIBE, &self.inbound)
            && changes.any(|change| matches!(change, Change::Retain(_)))
    }

    /// Takes packets off the read buffer until it holds no whole one or a batch is staged.
    pub async fn take_packets(&mut self) -> Result<(), End> {
        if self.staged.is_some() || self.goodbye.is_some() {
            return Ok(());
        }
        let mut batch = Batch::default();
        while batch.packets < BATCH_PACKETS
            && batch.publication.batch.len() < BATCH_CHANGES
            && !self.publishes_too_early(&batch)
            && !self.subscribes_too_early(&batch)
            && let Some(packet) = packet::next(self.version, &mut self.inbound)?
        {
            match packet {
                Packet::Publish(publish) => self.take_publish(publish, &mut batch)?,
                Packet::PubRel(release) => self.take_pubrel(release.pkid, &mut batch),
                Packet::Subscribe(subscribe) => self.subscribe(subscribe, &mut batch)?,
                Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, &mut batch),
                Packet::PubAck(ack) => {
                    let number = self.outflow.flights.puback(ack.pkid);
                    self.settle(number, &mut batch)?;
                }
                Packet::PubRec(ack) => {
                    let refused = !matches!(
                        ack.reason,
                        PubRecReason::Success | PubRecReason::NoMatchingSubscribers
                    );
                    self.take_pubrec(ack.pkid, refused, &mut batch)?;
                }
                Packet::PubComp(ack) => {
                    let number = self.outflow.flights.pubcomp(ack.pkid);
                    self.settle(number, &mut batch)?;
                }
                Packet::PingReq(_) => reply::pingresp(&mut self.out),
                Packet::Disconnect(disconnect) => {
                    self.goodbye = Some(disconnect);
                    break;
                }
                Packet::Connect(..) => return Err(End::Protocol("a second CONNECT")),
                Packet::Auth(_)
                | Packet::ConnAck(_)
                | Packet::SubAck(_)
                | Packet::UnsubAck(_)
                | Packet::PingResp(_) => {
                    return Err(End::Protocol("a packet that only servers send"));
                }
            }
        }
        self.stage(batch).await
    }

    fn take_pubrel(&self, pkid: u16, batch: &mut Batch) {
        let known = self.session.state().received.remove(&pkid);
        if let Some(session) = self.session.persistent {
            // Committed before PUBCOMP leaves: the next message with this packet id is a new one.
            let released = Change::Released { session, packet_id: pkid };
            batch.publication.batch.changes.push(released);
        }
        let reason = if known { 0 } else { 0x92 };
        reply::ack(self.version, Ack::Complete, pkid, reason, &mut batch.acknowledgements);
    }

    fn take_publish(&mut self, mut publish: Publish, batch: &mut Batch) -> Result<(), End> {
        batch.packets += 1;
        self.taken += 1;
        self.services.traffic.received.fetch_add(1, Relaxed);
        self.resolve_alias(&mut publish)?;
        let topic = topic_name(&publish.topic).map_err(|_| End::TopicName)?;
        let pkid = publish.pkid;
        // Clients say nothing in the broker's own tree.
        let refused = topic.starts_with('$') || !self.grants.may_write(topic);
        let reason = if refused { 0x87 } else { 0 };
        match packet::from_codec(publish.qos) {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                reply::ack(
                    self.version,
                    Ack::Acknowledge,
                    pkid,
                    reason,
                    &mut batch.acknowledgements,
                );
            }
            QoS::ExactlyOnce => {
                reply::ack(self.version, Ack::Receive, pkid, reason, &mut batch.acknowledgements);
                // A PUBREC that refuses ends the exchange in MQTT 5.0; 3.1.1 goes on to PUBREL.
                let ended = refused && self.version == Version::V5;
                if !ended && !self.receive(pkid, batch)? {
                    // Taken before and not released yet: the same message again.
                    return Ok(());
                }
            }
        }
        if refused {
            // MQTT 3.1.1 has no way to say so ([MQTT-3.3.5-2]): acknowledged, and that is all.
            return Ok(());
        }
        let message = self.message(publish)?;
        batch.publication.add(self.services, message);
        Ok(())
    }

    /// Notes a `QoS` 2 message; whether it is a new one.
    fn receive(&self, pkid: u16, batch: &mut Batch) -> Result<bool, End> {
        let mut state = self.session.state();
        let full = state.received.len() >= usize::from(RECEIVE_MAXIMUM);
        if full && self.version == Version::V5 && !state.received.contains(&pkid) {
            return Err(End::ReceiveMaximum);
        }
        if let Some(session) = self.session.persistent {
            // Again too: then the PUBREC waits for the commit of the first.
            let received = Change::Received { session, packet_id: pkid };
            batch.publication.batch.changes.push(received);
        }
        let new = state.received.insert(pkid);
        if new {
            batch.received.push(pkid);
        }
        Ok(new)
    }

    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), End> {
        let alias =
            publish.properties.as_mut().and_then(|properties| properties.topic_alias.take());
        let Some(alias) = alias else { return Ok(()) };
        if alias == 0 || alias > ALIASES {
            return Err(End::TopicAlias);
        }
        if publish.topic.is_empty() {
            let topic = self.aliases.get(&alias).ok_or(End::TopicAlias)?;
            publish.topic = Bytes::copy_from_slice(topic.as_bytes());
        } else {
            let topic = topic_name(&publish.topic).map_err(|_| End::TopicName)?;
            self.aliases.insert(alias, topic.to_owned());
        }
        Ok(())
    }

    fn message(&self, publish: Publish) -> Result<Message, End> {
        let Publish { qos, topic, payload, retain, properties, .. } = publish;
        let (mut expires_at_ms, mut carried) = (None, Bytes::new());
        if let Some(mut properties) = properties {
            let response = properties.response_topic.as_ref();
            if response.is_some_and(|topic| topic_name(topic.as_bytes()).is_err()) {
                return Err(End::Protocol("a response topic that is not a topic name"));
            }
            let interval_s = properties.message_expiry_interval.take();
            expires_at_ms =
                interval_s.map(|s| clock::unix_ms().saturating_add(i64::from(s) * 1000));
            carried = encode_properties(&properties);
        }
        Ok(Message {
            topic: Topic::from_bytes(&topic).map_err(|_| End::TopicName)?,
            // A copy: a slice would keep the whole read buffer alive for as long as the message is kept.
            payload: Bytes::copy_from_slice(&payload),
            qos: packet::from_codec(qos),
            retain,
            expires_at_ms,
            publisher: Arc::clone(&self.session.client_id),
            properties: carried,
        })
    }
}

/// What a DISCONNECT says about the will and the session.
pub fn says_goodbye(disconnect: &Disconnect) -> (bool, Option<u32>) {
    // [MQTT-3.14.4-3]: only this reason takes the will along.
    let polite = disconnect.reason_code == DisconnectReasonCode::NormalDisconnection;
    let properties = disconnect.properties.as_ref();
    (polite, properties.and_then(|properties| properties.session_expiry_interval))
}

/// What is taken off the read buffer in one go.
#[derive(Default)]
pub(in crate::broker) struct Batch {
    pub(in crate::broker) packets: usize,
    pub(in crate::broker) publication: Publication,
    /// Packet ids of the `QoS` 2 messages that are new.
    pub(in crate::broker) received: Vec<u16>,
    /// About messages that waited in the log; nobody waits for its commit.
    pub(in crate::broker) settled: Vec<Change>,
    pub(in crate::broker) acknowledgements: BytesMut,
    pub(in crate::broker) subscribing: Vec<Subscribing>,
}
