//! A connected client: what each of its packets does, up to the commit, and what follows the commit.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Packet, PingResp, PubAck, PubComp, PubRec, Publish, SubAck, Subscribe, SubscribeReasonCode,
    UnsubAck, Unsubscribe,
};
use rumqttd::protocol::Protocol;
use rumqttd::protocol::v4::V4;
use tracing::debug;

use super::access::{Grants, NotGranted};
use super::carrier::{Carrier, Stream};
use super::connection::{End, Services};
use super::intake;
use super::packet::{self, Message, PacketError};
use super::recorder::Stopped;
use super::router::{Delivery, Link, LinkError, RouterDied};
use super::sessions::Claim;
use crate::clock;
use crate::wire::{Filter, topic_name};

/// PUBLISH packets that one connection has in one commit.
const BATCH_PACKETS: usize = 256;

/// Publishes that wait for their commit, and what follows it.
pub struct Staged {
    messages: Vec<Message>,
    acknowledgements: BytesMut,
    received: Vec<u16>,
    commit: Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send>>,
}

/// Waits for the commit under way; for ever when there is none. Cancelling and calling again is fine. On the
/// field and not on the client, so that it can be awaited beside the client's other fields.
pub async fn committed(staged: &mut Option<Staged>) -> Result<(), Stopped> {
    match staged {
        Some(staged) => staged.commit.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Waits for what the router has next; for ever when nothing is subscribed. As [`committed`].
pub async fn delivered(link: &mut Option<Link>) -> Result<Delivery, RouterDied> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

/// A connected client.
pub struct Client<'a> {
    services: &'a Services,
    claim: &'a mut Claim,
    grants: &'a Grants,
    /// Opened with the first subscription: a client that only publishes costs the router nothing.
    pub link: Option<Link>,
    /// Bytes read and not taken yet.
    pub inbound: BytesMut,
    /// Bytes to write.
    pub out: BytesMut,
    /// What waits for its commit.
    pub staged: Option<Staged>,
    /// SUBACKs that wait for the router; none for the subscriptions that a session took up again.
    unconfirmed: VecDeque<Option<SubAck>>,
    /// DISCONNECT was read; what was published before it is still committed.
    leaving: bool,
}

impl<'a> Client<'a> {
    /// A client that was just accepted; `inbound` may hold what it sent after its CONNECT.
    pub fn new(
        services: &'a Services,
        claim: &'a mut Claim,
        grants: &'a Grants,
        inbound: BytesMut,
    ) -> Self {
        Self {
            services,
            claim,
            grants,
            link: None,
            inbound,
            out: BytesMut::new(),
            staged: None,
            unconfirmed: VecDeque::new(),
            leaving: false,
        }
    }

    /// Whether it said DISCONNECT and everything before that is done.
    pub const fn has_left(&self) -> bool {
        self.leaving && self.staged.is_none()
    }

    /// Whether publishes wait for their commit.
    pub const fn is_committing(&self) -> bool {
        self.staged.is_some()
    }

    /// Takes a persistent session's subscriptions up again.
    pub async fn resume(&mut self) -> Result<(), End> {
        let held: Vec<_> =
            self.claim.state().filters.iter().map(|filter| (filter.clone(), 0)).collect();
        if !held.is_empty() {
            // The router knows them, with their QoS; saying them again lets it accept an UNSUBSCRIBE.
            self.link().await?.subscribe(&held).await?;
            self.unconfirmed.push_back(None);
        }
        Ok(())
    }

    /// Takes what the router has.
    pub fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
        match delivery {
            Delivery::Nothing => {}
            Delivery::Subscribed => {
                // Written now and not before: from here on no message is missed ([MQTT-3.8.4-1]).
                if let Some(Some(confirmed)) = self.unconfirmed.pop_front() {
                    confirmed.write(&mut self.out).map_err(PacketError::from)?;
                }
            }
            Delivery::Packet(packet) => {
                let is_publish = matches!(packet, rumqttd::protocol::Packet::Publish(..));
                let before = self.out.len();
                V4.write(packet, &mut self.out).map_err(|_| End::Protocol("unwritable packet"))?;
                if is_publish
                    && let Some(pkid) = self.out.get(before..).and_then(packet::publish_id)
                {
                    self.delivery()?.sent(pkid);
                }
            }
        }
        Ok(())
    }

    async fn link(&mut self) -> Result<&mut Link, RouterDied> {
        if self.link.is_none() {
            let router = &self.services.router;
            self.link = Some(match self.claim.persistent {
                Some(number) => router.persistent_link(number, false).await?,
                None => router.clean_link().await?,
            });
        }
        self.link.as_mut().ok_or(RouterDied)
    }

    /// Takes packets off the read buffer until it holds no whole one or a batch is staged.
    pub async fn take_packets(&mut self) -> Result<(), End> {
        if self.staged.is_some() || self.leaving {
            return Ok(());
        }
        let mut batch = Batch::default();
        while batch.packets < BATCH_PACKETS
            && let Some(packet) = packet::next(&mut self.inbound)?
        {
            match packet {
                Packet::Publish(publish) => self.take_publish(publish, &mut batch)?,
                Packet::PubRel(release) => {
                    self.claim.state().received.remove(&release.pkid);
                    PubComp::new(release.pkid).write(&mut self.out).map_err(PacketError::from)?;
                }
                Packet::Subscribe(subscribe) => self.subscribe(subscribe).await?,
                Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe).await?,
                Packet::PubAck(ack) => self.delivery()?.puback(ack.pkid).await?,
                Packet::PubRec(ack) => self.delivery()?.pubrec(ack.pkid).await?,
                Packet::PubComp(ack) => self.delivery()?.pubcomp(ack.pkid).await?,
                Packet::PingReq => {
                    PingResp.write(&mut self.out).map_err(PacketError::from)?;
                }
                Packet::Disconnect => {
                    self.leaving = true;
                    break;
                }
                Packet::Connect(_) => return Err(End::Protocol("a second CONNECT")),
                Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                    return Err(End::Protocol("a packet that only servers send"));
                }
            }
        }
        self.stage(batch).await
    }

    fn delivery(&mut self) -> Result<&mut Link, LinkError> {
        self.link.as_mut().ok_or(LinkError::Unasked)
    }

    fn take_publish(&mut self, publish: Publish, batch: &mut Batch) -> Result<(), End> {
        let Publish { qos, topic, pkid, payload, retain, .. } = publish;
        if topic_name(topic.as_bytes()).is_err() {
            return Err(End::Protocol("PUBLISH to what is not a topic name"));
        }
        batch.packets += 1;
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                PubAck::new(pkid).write(&mut batch.acknowledgements).map_err(PacketError::from)?;
            }
            QoS::ExactlyOnce => {
                PubRec::new(pkid).write(&mut batch.acknowledgements).map_err(PacketError::from)?;
                if batch.received.contains(&pkid) || self.claim.state().received.contains(&pkid) {
                    // Taken before and not released yet: the same message again.
                    return Ok(());
                }
                batch.received.push(pkid);
            }
        }
        if topic.starts_with('$') {
            debug!(topic, "a client published into the broker's own tree; ignored");
            return Ok(());
        }
        if !self.grants.may_write(&topic) {
            // MQTT 3.1.1 has no way to say so ([MQTT-3.3.5-2]): acknowledged, and that is all.
            return Ok(());
        }
        // A copy: a slice would keep the whole read buffer alive for as long as the router keeps the message.
        let message = Message { topic, payload: Bytes::copy_from_slice(&payload), retain };
        batch.records.extend(intake::record(&message, &self.services.logged, clock::unix_ms()));
        batch.messages.push(message);
        Ok(())
    }

    /// Starts the commit of a batch, or goes on at once when it has nothing for the log.
    async fn stage(&mut self, batch: Batch) -> Result<(), End> {
        let Batch { packets, records, messages, acknowledgements, received } = batch;
        if packets == 0 {
            return Ok(());
        }
        let recorder = self.services.recorder.clone();
        let nothing = records.is_empty();
        let commit = Box::pin(async move { recorder.commit(records).await });
        self.staged = Some(Staged { messages, acknowledgements, received, commit });
        if nothing { self.acknowledge().await } else { Ok(()) }
    }

    /// After the commit: tells the client, then everybody else.
    pub async fn acknowledge(&mut self) -> Result<(), End> {
        if let Some(staged) = self.staged.take() {
            self.claim.state().received.extend(staged.received);
            self.out.put(staged.acknowledgements);
            self.services.router.publish(&staged.messages).await?;
        }
        Ok(())
    }

    async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let mut granted = Vec::new();
        let mut codes = Vec::new();
        for wanted in &subscribe.filters {
            match self.grant(&wanted.path, granted.len()) {
                Ok(filter) => {
                    granted.push((filter, wanted.qos as u8));
                    codes.push(SubscribeReasonCode::Success(wanted.qos));
                }
                Err(reason) => {
                    debug!(filter = wanted.path, %reason, "subscription not granted");
                    codes.push(SubscribeReasonCode::Failure);
                }
            }
        }
        let confirmed = SubAck::new(subscribe.pkid, codes);
        if granted.is_empty() {
            confirmed.write(&mut self.out).map_err(PacketError::from)?;
        } else {
            self.link().await?.subscribe(&granted).await?;
            self.unconfirmed.push_back(Some(confirmed));
            self.claim.state().filters.extend(granted.into_iter().map(|(filter, _)| filter));
        }
        Ok(())
    }

    fn grant(&self, filter: &str, more: usize) -> Result<Filter, NotGranted> {
        let held = self.claim.state().filters.len() + more;
        let filter = self.grants.subscription(filter, held)?;
        if self.services.router.admit(&filter) { Ok(filter) } else { Err(NotGranted::RouterFull) }
    }

    async fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), End> {
        let held: Vec<Filter> = {
            let mut state = self.claim.state();
            let named = unsubscribe.topics.iter().filter_map(|topic| topic.parse::<Filter>().ok());
            named.filter(|filter| state.filters.remove(filter)).collect()
        };
        if !held.is_empty() {
            self.link().await?.unsubscribe(&held).await?;
        }
        UnsubAck::new(unsubscribe.pkid).write(&mut self.out).map_err(PacketError::from)?;
        Ok(())
    }

    /// Sees the last commit through and writes its acknowledgements.
    pub async fn finish<S: Stream>(&mut self, carrier: &mut Carrier<S>) -> Result<(), End> {
        if self.staged.is_some() {
            committed(&mut self.staged).await?;
            self.acknowledge().await?;
        }
        carrier.close(&mut self.out).await?;
        Ok(())
    }
}

#[derive(Default)]
struct Batch {
    packets: usize,
    records: Vec<crate::store::Record>,
    messages: Vec<Message>,
    acknowledgements: BytesMut,
    /// Packet ids of QoS 2 messages; taken over into the session when they are committed.
    received: Vec<u16>,
}
