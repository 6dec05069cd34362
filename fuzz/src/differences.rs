//! The known differences between the broker's codec and mqtt-proto 0.4.0, each with its reason. Each holds only where
//! what mqtt-proto reads shows that the difference is this one.

use humidor::mqtt::codec::{CodecError, Packet};
use humidor::mqtt::{TOPIC_MAX_BYTES, TopicError};
use mqtt_proto::{Error, Protocol, QosPid, v3, v5};

use crate::oracle::{Ours, Theirs};

/// Why the broker refuses what mqtt-proto takes; `None`: there is no good reason.
pub fn we_refuse(error: &CodecError, theirs: &Theirs, frame: &[u8]) -> Option<&'static str> {
    let view = View::of(theirs)?;
    let (holds, reason) = match *error {
        CodecError::Malformed("DUP at QoS 0") => {
            (view.dup_at_0, "mqtt-proto takes DUP at QoS 0, against [MQTT-3.3.1-2]")
        }
        CodecError::Malformed(
            "a length takes more bytes than it needs" | "a number takes more bytes than it needs",
        ) => (
            view.bytes < frame.len(),
            "mqtt-proto takes numbers in more bytes than they need, against [MQTT-1.5.5-1]",
        ),
        CodecError::Malformed("bytes behind the last field") => (
            view.bytes < frame.len(),
            "mqtt-proto does not look behind the last field of some packets",
        ),
        CodecError::Malformed("U+0000 in a text") => {
            (view.text.contains("\\0"), "mqtt-proto takes U+0000 in texts, against [MQTT-1.5.4-2]")
        }
        CodecError::Malformed("a reason code that this packet does not have") => (
            view.server_reason,
            "mqtt-proto takes reasons that only a server gives in a DISCONNECT, against [MQTT-3.14.2-1]",
        ),
        CodecError::Malformed("QoS or retain of a will that is not there") => (
            view.is_connect && !view.has_will,
            "mqtt-proto takes a retain flag without a will, against [MQTT-3.1.2-13]",
        ),
        CodecError::Malformed("a password without a user name") => (
            view.only_password,
            "mqtt-proto takes a password without a user name in 3.1.1, against [MQTT-3.1.2-22]",
        ),
        CodecError::Protocol("a packet that only servers send") => {
            (view.from_server, "mqtt-proto reads the packets of both sides")
        }
        CodecError::Protocol("AUTH without an authentication method") => {
            (view.is_auth, "mqtt-proto reads AUTH, which depends on the CONNECT before it")
        }
        CodecError::Protocol("a property that may not be 0") => {
            (view.zero, "mqtt-proto takes 0 for Receive Maximum and the like, against §3.1.2.11.3")
        }
        CodecError::Protocol("authentication data without a method") => (
            view.data_without_method,
            "mqtt-proto takes authentication data without a method, against §3.1.2.11.10",
        ),
        CodecError::Protocol("a subscription identifier from a client") => {
            (view.identified, "mqtt-proto reads the packets of both sides")
        }
        CodecError::Protocol("neither a topic name nor a topic alias") => {
            (view.nowhere, "mqtt-proto takes a PUBLISH to nowhere, against §3.3.2.1")
        }
        CodecError::Protocol("a response topic that is not a topic name") => (
            view.response_topic.as_deref().is_some_and(stricter),
            "a topic here has 1 to 1,024 bytes and no control characters",
        ),
        CodecError::Protocol("No Local on a shared subscription") => {
            (view.shared_no_local, "mqtt-proto takes No Local on a share, against [MQTT-3.8.3-4]")
        }
        CodecError::TopicAlias => {
            (view.alias_0, "mqtt-proto takes alias 0, against [MQTT-3.3.2-8]")
        }
        CodecError::Topic(TopicError::Empty | TopicError::Long | TopicError::Control) => (
            view.topic.as_deref().is_some_and(stricter),
            "a topic here has 1 to 1,024 bytes and no control characters",
        ),
        CodecError::Level(3) => (view.is_v3_1, "mqtt-proto supports MQTT 3.1"),
        CodecError::TooMany("topic filters") => {
            (view.filters > 512, "512 filters in one packet are the most here")
        }
        CodecError::TooMany("user properties") => {
            (view.user_properties > 64, "64 user properties in one section are the most here")
        }
        CodecError::TooLarge(_) => (frame.len() > 256 * 1024, "256 KiB are the most here"),
        _ => return None,
    };
    holds.then_some(reason)
}

/// Why the broker takes what mqtt-proto refuses.
pub fn they_refuse(ours: &Ours, theirs: &Theirs) -> Option<&'static str> {
    match (ours, theirs) {
        (
            Ours::Packet(Packet::Subscribe(_) | Packet::Unsubscribe(_)),
            Theirs::RefusedV4(Error::InvalidTopicFilter(filter))
            | Theirs::RefusedV5(v5::ErrorV5::Common(Error::InvalidTopicFilter(filter))),
        ) => filter
            .parse::<humidor::mqtt::Filter>()
            .is_err()
            .then_some("the broker answers a filter that is none in its SUBACK or UNSUBACK"),
        (
            Ours::Packet(Packet::Publish(publish)),
            Theirs::RefusedV5(v5::ErrorV5::InvalidPayloadFormat),
        ) => std::str::from_utf8(&publish.payload).is_err().then_some(
            "whether a payload is UTF-8 is for its subscribers to see (§3.3.2.3.2: may)",
        ),
        _ => None,
    }
}

fn stricter(topic: &str) -> bool {
    topic.is_empty() || topic.len() > TOPIC_MAX_BYTES || topic.chars().any(char::is_control)
}

/// What of a packet shows that a difference is a known one.
#[derive(Default)]
struct View {
    /// Bytes of the packet when mqtt-proto writes it again.
    bytes: usize,
    /// All of it as text, U+0000 as `\0`.
    text: String,
    dup_at_0: bool,
    from_server: bool,
    is_auth: bool,
    is_connect: bool,
    is_v3_1: bool,
    has_will: bool,
    only_password: bool,
    zero: bool,
    data_without_method: bool,
    server_reason: bool,
    identified: bool,
    nowhere: bool,
    alias_0: bool,
    shared_no_local: bool,
    topic: Option<String>,
    response_topic: Option<String>,
    filters: usize,
    user_properties: usize,
}

impl View {
    fn of(theirs: &Theirs) -> Option<Self> {
        match theirs {
            Theirs::V4(packet) => Some(Self::of_v4(packet)),
            Theirs::V5(packet) => Some(Self::of_v5(packet)),
            _ => None,
        }
    }

    fn of_v4(packet: &v3::Packet) -> Self {
        let mut view = Self {
            bytes: packet.encode().map_or(0, |bytes| bytes.as_ref().len()),
            text: format!("{packet:?}"),
            ..Self::default()
        };
        match packet {
            v3::Packet::Connect(connect) => {
                view.is_connect = true;
                view.is_v3_1 = connect.protocol == Protocol::V310;
                view.has_will = connect.last_will.is_some();
                view.topic = connect.last_will.as_ref().map(|will| will.topic_name.to_string());
                view.only_password = connect.username.is_none() && connect.password.is_some();
            }
            v3::Packet::Publish(publish) => {
                view.dup_at_0 = publish.dup && publish.qos_pid == QosPid::Level0;
                view.topic = Some(publish.topic_name.to_string());
            }
            v3::Packet::Subscribe(subscribe) => view.filters = subscribe.topics.len(),
            v3::Packet::Unsubscribe(unsubscribe) => view.filters = unsubscribe.topics.len(),
            v3::Packet::Connack(_)
            | v3::Packet::Suback(_)
            | v3::Packet::Unsuback(_)
            | v3::Packet::Pingresp => view.from_server = true,
            _ => {}
        }
        view
    }

    fn of_v5(packet: &v5::Packet) -> Self {
        let mut view = Self {
            bytes: packet.encode().map_or(0, |bytes| bytes.as_ref().len()),
            text: format!("{packet:?}"),
            ..Self::default()
        };
        match packet {
            v5::Packet::Connect(connect) => view.connect(connect),
            v5::Packet::Publish(publish) => {
                let properties = &publish.properties;
                view.dup_at_0 = publish.dup && publish.qos_pid == QosPid::Level0;
                view.alias_0 = properties.topic_alias == Some(0);
                view.identified = properties.subscription_id.is_some();
                view.zero = properties.subscription_id.is_some_and(|id| id.value() == 0);
                view.nowhere = publish.topic_name.is_empty() && properties.topic_alias.is_none();
                view.topic = Some(publish.topic_name.to_string());
                view.response_topic = properties.response_topic.as_ref().map(ToString::to_string);
                view.user_properties = properties.user_properties.len();
            }
            v5::Packet::Puback(ack) => view.user_properties = ack.properties.user_properties.len(),
            v5::Packet::Pubrec(ack) => view.user_properties = ack.properties.user_properties.len(),
            v5::Packet::Pubrel(ack) => view.user_properties = ack.properties.user_properties.len(),
            v5::Packet::Pubcomp(ack) => view.user_properties = ack.properties.user_properties.len(),
            v5::Packet::Subscribe(subscribe) => {
                view.filters = subscribe.topics.len();
                view.user_properties = subscribe.properties.user_properties.len();
                view.zero = subscribe.properties.subscription_id.is_some_and(|id| id.value() == 0);
                view.shared_no_local = subscribe
                    .topics
                    .iter()
                    .any(|(filter, options)| options.no_local && filter.is_shared());
            }
            v5::Packet::Unsubscribe(unsubscribe) => {
                view.filters = unsubscribe.topics.len();
                view.user_properties = unsubscribe.properties.user_properties.len();
            }
            v5::Packet::Disconnect(disconnect) => {
                view.user_properties = disconnect.properties.user_properties.len();
                // Of these the table of §3.14.2.1 says "Server".
                view.server_reason = matches!(
                    disconnect.reason_code as u8,
                    0x87 | 0x89 | 0x8b | 0x8d..=0x8f | 0x9a..=0xa2
                );
            }
            v5::Packet::Connack(_)
            | v5::Packet::Suback(_)
            | v5::Packet::Unsuback(_)
            | v5::Packet::Pingresp => view.from_server = true,
            v5::Packet::Auth(_) => view.is_auth = true,
            v5::Packet::Pingreq => {}
        }
        view
    }

    fn connect(&mut self, connect: &v5::Connect) {
        let properties = &connect.properties;
        self.is_connect = true;
        self.zero = properties.receive_max == Some(0) || properties.max_packet_size == Some(0);
        self.data_without_method =
            properties.auth_data.is_some() && properties.auth_method.is_none();
        self.user_properties = properties.user_properties.len();
        let Some(will) = &connect.last_will else { return };
        self.has_will = true;
        self.topic = Some(will.topic_name.to_string());
        self.response_topic = will.properties.response_topic.as_ref().map(ToString::to_string);
        self.user_properties = self.user_properties.max(will.properties.user_properties.len());
    }
}
