//! A connected client: takes its packets, and gathers their effects for one commit.

mod deliver;
mod pending_commit;
mod publish;
mod subscribe;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

pub use deliver::read;
pub use pending_commit::{committed, released};

use self::deliver::Page;
use self::pending_commit::{Hold, PendingCommit};
use super::close::End;
use super::handshake::Opened;
use crate::broker::access::permissions::Permissions;
use crate::broker::commit::batch::Batch as Commit;
use crate::broker::commit::series_quota::KnownTopics;
use crate::broker::context::Services;
use crate::broker::delivery::fan_out::Accepted;
use crate::broker::delivery::outbound::Outbound;
use crate::broker::delivery::retained_replay::ReplayRequest;
use crate::broker::net::buffers::{Buffered, OWN_BYTES};
use crate::broker::net::shares::Pool;
use crate::broker::net::turns::UserTurns;
use crate::broker::session::state::Session;
use crate::mqtt::Topic;
use crate::mqtt::codec::{self, CodecError, Packet, PacketType, Version};
use crate::store::Change;

/// Most PUBLISH packets and filters of one connection in one commit.
const BATCH_PACKETS: usize = 256;
/// Those of them that a connection may have without a share of the pool of buffers, and the share of each further one: a
/// small message, its record and its change.
const OWN_PACKETS: usize = 16;
const PACKET_BYTES: usize = 512;
/// Longest time in which a connection takes packets before others get their turn. The packet that exceeds it is the last
/// one of the commit.
const TURN_MAX: Duration = Duration::from_millis(5);
/// Packets after each of which the time is looked at.
const TURN_PACKETS: usize = 4;
/// Records, changes and messages of one connection in one commit, each message with the stored sessions that it is for. The
/// packet that exceeds it is the last one of the commit.
const BATCH_CHANGES: usize = 1000;
/// Bytes of a buffer that an idle connection keeps.
const BUFFER_BYTES: usize = OWN_BYTES;

/// A connected client.
pub struct Client<'a> {
    services: &'a Services,
    session: Arc<Session>,
    permissions: Arc<Permissions>,
    turns: Arc<UserTurns>,
    pub version: Version,
    /// Bytes read and not taken yet.
    pub inbound: BytesMut,
    /// Bytes to write.
    pub out: BytesMut,
    /// What `inbound` has of the pool, and the packets from it that wait for their commit.
    read: Buffered,
    /// What the packets that wait for their commit have of the pool beside their bytes.
    batched: Buffered,
    /// What the topics in `aliases` have of the pool.
    aliased: Buffered,
    /// Whether `out` and `inbound` were large since they were last empty.
    large: (bool, bool),
    /// The commit under way.
    pub pending: Option<PendingCommit>,
    /// Set while the client is held back: the queues of its subscribers are congested.
    pub hold: Option<Hold>,
    /// The outbound side of the client.
    pub outbound: Outbound,
    /// The page of the log that is being read.
    pub page: Option<Page>,
    /// What the page has of the pool, being read and then written.
    paged: Buffered,
    /// Number of the latest message read from the log, and whether there may be more.
    page_after: i64,
    may_wait: bool,
    /// Topics that the client has given an alias (MQTT 5.0 §3.3.2.3.4).
    aliases: HashMap<u16, Topic>,
    /// Telemetry topics whose series are known.
    known_topics: KnownTopics,
    /// PUBLISH packets taken since the connection's loop last asked.
    pub taken: u32,
    /// Packets were left in `inbound` because a batch was full.
    more: bool,
    /// Why the connection ends, once what was taken before is committed: a DISCONNECT or a malformed packet was read.
    ending: Option<End>,
}

impl<'a> Client<'a> {
    /// A client that was just accepted; `inbound` may hold what it sent after its CONNECT.
    pub fn new(services: &'a Services, opened: &Opened, inbound: BytesMut) -> Self {
        let session = Arc::clone(&opened.lease.session);
        let acl = opened.permissions.acl();
        let fan_out = services.fan_out.clone();
        let buffered = || Buffered::new(services.buffers.clone(), Arc::clone(&opened.holder));
        Self {
            services,
            permissions: Arc::clone(&opened.permissions),
            turns: services.turns.of(&opened.holder),
            version: opened.capabilities.version,
            inbound,
            out: BytesMut::new(),
            read: buffered(),
            paged: buffered(),
            batched: buffered(),
            aliased: buffered(),
            large: (false, false),
            pending: None,
            hold: None,
            outbound: Outbound::new(
                opened.capabilities,
                Arc::clone(&session),
                acl,
                fan_out,
                buffered(),
            ),
            page: None,
            page_after: 0,
            may_wait: session.persistent.is_some() && opened.lease.session_present,
            aliases: HashMap::new(),
            known_topics: KnownTopics::default(),
            taken: 0,
            more: false,
            ending: None,
            session,
        }
    }

    /// The reason to end that the client's packets gave, when everything before them is done.
    pub fn has_ended(&mut self) -> Option<End> {
        if self.pending.is_none() { self.ending.take() } else { None }
    }

    /// Drops the whole packets in the read buffer up to a DISCONNECT, which is returned as the reason to end. So does a
    /// DISCONNECT that was taken and waits for the commit of the packets before it.
    ///
    /// # Errors
    /// When a packet is malformed.
    pub fn skip_to_disconnect(&mut self) -> Result<Option<End>, CodecError> {
        if let Some(End::Disconnect(_)) = self.ending {
            return Ok(self.ending.take());
        }
        while let Some(packet) = codec::next(self.version, &mut self.inbound)? {
            if let Packet::Disconnect(disconnect) = packet {
                return Ok(Some(End::Disconnect(disconnect)));
            }
        }
        Ok(None)
    }

    /// Whether more packets are taken.
    pub const fn is_taking(&self) -> bool {
        self.pending.is_none() && self.ending.is_none() && self.hold.is_none()
    }

    /// Whether the store, or the upstream database that acknowledgements wait for, cannot commit at present.
    pub fn is_store_blocked(&self) -> bool {
        !self.services.recorder.counters().is_acknowledging()
    }

    /// Whether packets wait for their commit.
    pub const fn is_committing(&self) -> bool {
        self.pending.is_some()
    }

    /// Bytes were read into `inbound`.
    pub fn note_read(&mut self) {
        self.large.1 |= self.inbound.len() > BUFFER_BYTES;
    }

    /// Most bytes that are read at once, where that is less than usual: many of the user's connections send, or many
    /// bytes are buffered.
    pub fn reads_little(&self) -> Option<usize> {
        (self.read.is_scarce() || self.turns.is_crowded()).then_some(OWN_BYTES)
    }

    /// Gives large buffers back once they are empty: a thousand idle clients would keep the memory of the largest message
    /// that each of them ever had.
    pub fn release_buffers(&mut self) {
        for (buffer, large) in
            [(&mut self.out, &mut self.large.0), (&mut self.inbound, &mut self.large.1)]
        {
            *large |= buffer.len() > BUFFER_BYTES;
            if *large && buffer.is_empty() {
                *buffer = BytesMut::new();
                *large = false;
            }
        }
    }

    /// Whether the bytes of a large packet that is not whole yet may be read.
    pub fn may_read(&mut self) -> bool {
        if self.inbound.len() < OWN_BYTES {
            if self.pending.is_none() {
                self.read.release();
            }
            return true;
        }
        let whole = codec::next_length(&self.inbound).unwrap_or(0);
        self.read.admits_next(whole.max(self.inbound.len()))
    }

    /// The pool of buffers.
    pub fn buffers(&self) -> Pool {
        self.services.buffers.clone()
    }

    /// Whether something waits for a share of the pool of buffers.
    pub const fn waits_for_room(&self) -> bool {
        self.read.waits() || self.paged.waits() || self.outbound.buffered.waits()
    }

    /// Whether the rest of a large packet has not come for too long while others wait for a share of that pool.
    pub fn is_overdue(&self) -> bool {
        self.is_taking() && self.read.is_overdue(Instant::now())
    }

    /// Whether the client is held back for its subscribers.
    pub const fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether there is work left that waits for nothing: packets that were read, or retained messages to look up.
    pub fn has_more(&self) -> bool {
        self.hold.is_none() && !self.is_committing() && (self.more || self.outbound.is_replaying())
    }

    /// Whether a SUBSCRIBE is not acknowledged yet. Messages follow its SUBACK, as clients expect, although MQTT 3.1.1
    /// §3.8.4 allows them before.
    fn is_subscribing(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.subscribing)
    }

    /// Whether the next packet is a SUBSCRIBE behind a message that is to be retained and is not committed yet: the
    /// SUBSCRIBE replays only messages that were retained before its own commit.
    fn subscribes_too_early(&self, batch: &Batch) -> bool {
        codec::is_next(PacketType::Subscribe, &self.inbound)
            && batch.commit.accepted.iter().any(Accepted::is_retained)
    }

    /// Takes packets off the read buffer until it holds no whole one or a batch is full.
    pub async fn take_packets(&mut self) {
        if !self.is_taking() {
            return;
        }
        let turns = Arc::clone(&self.turns);
        let turn = if self.inbound.is_empty() { None } else { turns.take().await };
        let mut batch = Batch::default();
        let (started, mut looked) = (Instant::now(), 0);
        let most = if self.read.is_scarce() { OWN_PACKETS } else { BATCH_PACKETS };
        self.more = false;
        while self.ending.is_none() {
            let mut is_over = false;
            if batch.packets >= looked + TURN_PACKETS {
                looked = batch.packets;
                is_over = started.elapsed() >= TURN_MAX;
            }
            if is_over
                || batch.packets >= most
                || batch.commit.len() >= BATCH_CHANGES
                || self.subscribes_too_early(&batch)
            {
                self.more = true;
                break;
            }
            match codec::next(self.version, &mut self.inbound) {
                Ok(None) => break,
                Ok(Some(packet)) => {
                    // The packets before it are committed and acknowledged first.
                    self.ending = self.take_packet(packet, &mut batch).err();
                }
                Err(error) => self.ending = Some(error.into()),
            }
        }
        if batch.packets > 0 {
            self.read.renew();
        }
        if batch.packets > OWN_PACKETS {
            self.batched.set(batch.packets * PACKET_BYTES);
        }
        drop(turn);
        self.commit(batch).await;
    }

    fn take_packet(&mut self, packet: Packet, batch: &mut Batch) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.take_publish(publish, batch)?,
            Packet::PubRel(ack) => self.take_pubrel(ack.packet_id, batch),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, batch),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, batch),
            Packet::PubAck(ack) => {
                let number = self.outbound.in_flight.puback(ack.packet_id);
                self.settle(number, batch)?;
            }
            Packet::PubRec(ack) => {
                // MQTT 5.0 §4.3.3: from 0x80 on the exchange is over.
                self.take_pubrec(ack.packet_id, ack.reason >= 0x80, batch)?;
            }
            Packet::PubComp(ack) => {
                let number = self.outbound.in_flight.pubcomp(ack.packet_id);
                if let Ok(Some(_)) = number {
                    self.session.state().complete(ack.packet_id);
                }
                self.settle(number, batch)?;
            }
            Packet::PingReq => codec::write_pingresp(&mut self.out),
            Packet::Disconnect(disconnect) => return Err(End::Disconnect(disconnect)),
            Packet::Connect => return Err(End::Protocol("a second CONNECT")),
        }
        Ok(())
    }
}

/// The packets that are taken off the read buffer in one turn.
#[derive(Default)]
struct Batch {
    /// PUBLISH packets and filters.
    packets: usize,
    /// To commit, and to deliver then.
    commit: Commit,
    /// Packet ids of the `QoS` 2 messages that are new.
    received: Vec<u16>,
    /// Completed deliveries from the log. No acknowledgement waits for their commit.
    settled: Vec<Change>,
    acknowledgements: BytesMut,
    /// New subscriptions, whose retained messages follow their SUBACK.
    replays: Vec<ReplayRequest>,
    /// A SUBACK is among the acknowledgements.
    subscribing: bool,
}
