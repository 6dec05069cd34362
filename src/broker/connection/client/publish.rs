//! PUBLISH and PUBREL from a client: checked, taken once, acknowledged after the commit.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Batch, Client, Commit};
use crate::broker::commit::classify;
use crate::broker::commit::series_quota::QuotaExceeded;
use crate::broker::connection::close::End;
use crate::broker::connection::handshake::{ALIASES, RECEIVE_MAXIMUM};
use crate::broker::delivery::retained_messages::{NoRoom, Room};
use crate::broker::session::state::EXCHANGE_BYTES;
use crate::mqtt::codec::{self, AckKind, Publish, Reason, Version};
use crate::mqtt::{Message, QoS, Topic};
use crate::store::Change;

/// `QoS` 2 messages that a client of 3.1.1 may have begun and not released; that version cannot tell it so.
pub const OPEN_EXCHANGES_V4: usize = 1024;

impl Client<'_> {
    pub(super) fn take_pubrel(&self, packet_id: u16, batch: &mut Batch) {
        let mut state = self.session.state();
        let known = state.received.remove(&packet_id);
        if known {
            state.remove_rows(EXCHANGE_BYTES);
        }
        drop(state);
        if let Some(session) = self.session.persistent {
            // Committed before PUBCOMP is sent: the next message with this packet id is a new one.
            batch.commit.changes.push(Change::Released { session, packet_id });
        }
        let reason = if known { Reason::Success } else { Reason::PacketIdentifierNotFound };
        self.acknowledge_packet(AckKind::PubComp, packet_id, reason, batch);
    }

    pub(super) fn take_publish(&mut self, publish: Publish, batch: &mut Batch) -> Result<(), End> {
        batch.packets += 1;
        self.taken += 1;
        self.services.fan_out.traffic.received.fetch_add(1, Relaxed);
        let Publish { qos, retain, packet_id, alias, payload, expiry_s, properties, .. } = publish;
        let topic = self.resolve_alias(publish.topic, alias)?;
        let expires_at = |expiry_s| {
            self.services
                .fan_out
                .timeline
                .now_ms()
                .saturating_add(i64::from(expiry_s).saturating_mul(1000))
        };
        let message = Message {
            topic,
            payload,
            qos,
            retain,
            expires_at_ms: expiry_s.map(expires_at),
            publisher: Arc::clone(&self.session.client_id),
            properties,
        };
        let recorded = batch.commit.records.len();
        let (reason, room) = self.admit(&message, &mut batch.commit)?;
        let refused = reason != Reason::Success;
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.acknowledge_packet(AckKind::PubAck, packet_id, reason, batch),
            QoS::ExactlyOnce => {
                // A PUBREC that refuses ends the exchange in MQTT 5.0; 3.1.1 goes on to PUBREL.
                let ended = refused && self.version == Version::V5;
                // Before the PUBREC: a message that exceeds the Receive Maximum gets none.
                let new = if ended { Ok(true) } else { self.receive(packet_id, batch) };
                if !matches!(new, Ok(true)) {
                    // The same message again, which was received before and is not released yet, or one too many.
                    batch.commit.records.truncate(recorded);
                }
                let new = new?;
                self.acknowledge_packet(AckKind::PubRec, packet_id, reason, batch);
                if !new {
                    return Ok(());
                }
            }
        }
        if refused {
            return Ok(());
        }
        batch.commit.accept_with(message, room, &self.services.fan_out);
        Ok(())
    }

    /// Whether a message is taken: the reason code for its acknowledgement, and its room among the retained messages.
    ///
    /// # Errors
    /// When it is refused for want of room and MQTT 3.1.1 has no code to say so.
    fn admit(
        &mut self,
        message: &Message,
        commit: &mut Commit,
    ) -> Result<(Reason, Result<Option<Room>, NoRoom>), End> {
        let services = self.services;
        let (fan_out, logged) = (&services.fan_out, &services.logged);
        // A bridge's notifications in `$SYS` are no reason for a line in the log.
        if message.topic.starts_with('$') || !self.permissions.may_write(&message.topic) {
            // MQTT 3.1.1 has no code for it ([MQTT-3.3.5-2]): the message is acknowledged and dropped.
            return Ok((Reason::NotAuthorized, Ok(None)));
        }
        let room = fan_out.reserve(message);
        // The log has a reading whether it is retained or not, and at QoS 0 nobody is told anything.
        if room.is_ok()
            || message.qos == QoS::AtMostOnce
            || classify::is_logged(&message.topic, logged)
        {
            return Ok((self.log(message, commit)?, room));
        }
        match self.version {
            Version::V5 => Ok((Reason::QuotaExceeded, room)),
            // An acknowledgement would say that it is retained.
            Version::V4 => Err(End::Quota("retained messages")),
        }
    }

    /// Records what the log keeps of a message. Returns the reason code for its acknowledgement.
    ///
    /// # Errors
    /// When it is a reading that would begin a series beyond the user's share, and MQTT 3.1.1 has no code for that: an
    /// acknowledgement would say that it is stored.
    fn log(&mut self, message: &Message, commit: &mut Commit) -> Result<Reason, End> {
        let acknowledged = message.qos != QoS::AtMostOnce;
        let told = acknowledged && self.version == Version::V5;
        let (logged, quota) = (&self.services.logged, &self.services.series);
        let now_ms = self.services.fan_out.timeline.now_ms();
        match commit.log(message, logged, quota, &mut self.known_topics, !told, now_ms) {
            Ok(()) => Ok(Reason::Success),
            Err(QuotaExceeded) if acknowledged && !told => {
                Err(End::Quota("series in the log (HUMIDOR_SERIES)"))
            }
            Err(QuotaExceeded) => Ok(Reason::QuotaExceeded),
        }
    }

    fn acknowledge_packet(&self, kind: AckKind, packet_id: u16, reason: Reason, batch: &mut Batch) {
        codec::write_ack(self.version, kind, packet_id, reason, &mut batch.acknowledgements);
    }

    /// Notes a `QoS` 2 message; returns whether it is a new one.
    fn receive(&self, packet_id: u16, batch: &mut Batch) -> Result<bool, End> {
        let mut state = self.session.state();
        let most = match self.version {
            Version::V4 => OPEN_EXCHANGES_V4,
            Version::V5 => usize::from(RECEIVE_MAXIMUM),
        };
        let known = state.received.contains(&packet_id);
        if state.received.len() >= most && !known {
            return Err(End::ReceiveMaximum);
        }
        if !known && !state.add_rows(EXCHANGE_BYTES) {
            return Err(End::Quota("open QoS 2 exchanges in the log"));
        }
        if let Some(session) = self.session.persistent {
            // Also for a repeat: its PUBREC then waits for the commit of the first.
            let received = Change::Received { session, packet_id };
            batch.commit.changes.push(received);
        }
        let new = state.received.insert(packet_id);
        if new {
            batch.received.push(packet_id);
        }
        Ok(new)
    }

    /// The topic that a PUBLISH means (MQTT 5.0 §3.3.2.3.4).
    fn resolve_alias(&mut self, topic: Option<Topic>, alias: Option<u16>) -> Result<Topic, End> {
        let Some(alias) = alias else { return topic.ok_or(End::TopicAlias) };
        if alias > ALIASES {
            return Err(End::TopicAlias);
        }
        match topic {
            Some(topic) => {
                self.aliases.insert(alias, topic.clone());
                let bytes = self.aliases.values().map(|topic| topic.len()).sum();
                if !self.aliased.admits_next(bytes) {
                    return Err(End::Quota("buffered bytes, with the topics of its aliases"));
                }
                Ok(topic)
            }
            None => self.aliases.get(&alias).cloned().ok_or(End::TopicAlias),
        }
    }
}
