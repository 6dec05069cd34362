//! PUBLISH and PUBREL from a client: checked, taken once, acknowledged after the commit.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::Publish;

use super::{Batch, Client};
use crate::broker::connection::close::End;
use crate::broker::connection::handshake::{ALIASES, RECEIVE_MAXIMUM};
use crate::broker::connection::packet::{self, Version};
use crate::broker::connection::reply::{self, Ack};
use crate::clock;
use crate::mqtt::{Message, QoS, Topic, encode_properties, topic_name};
use crate::store::Change;

impl Client<'_> {
    pub(super) fn take_pubrel(&self, pkid: u16, batch: &mut Batch) {
        let known = self.session.state().received.remove(&pkid);
        if let Some(session) = self.session.persistent {
            // Committed before PUBCOMP leaves: the next message with this packet id is a new one.
            let released = Change::Released { session, packet_id: pkid };
            batch.commit.changes.push(released);
        }
        let reason = if known { 0 } else { 0x92 };
        reply::ack(self.version, Ack::Complete, pkid, reason, &mut batch.acknowledgements);
    }

    pub(super) fn take_publish(
        &mut self,
        mut publish: Publish,
        batch: &mut Batch,
    ) -> Result<(), End> {
        batch.packets += 1;
        self.taken += 1;
        self.services.fan_out.traffic.received.fetch_add(1, Relaxed);
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
        batch.commit.accept(message, &self.services.fan_out, &self.services.logged);
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
            batch.commit.changes.push(received);
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
            let topic = Topic::from_bytes(&publish.topic).map_err(|_| End::TopicName)?;
            self.aliases.insert(alias, topic);
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
