//! MQTT clients of a node: their options, the bounds of their packets, and the reason of a failed connection in words.

use std::error::Error as _;

use rumqttc::{ConnectReturnCode, ConnectionError, MqttOptions, StateError, Transport, mqttbytes};

use super::inbound::PASSED_MAX_BYTES;
use super::tunnel::Tunnel;
use crate::node::address::BrokerAddress;
use crate::reading::Id;
use crate::wire::CLIENT_ID_PREFIX;

/// Largest packet to the broker in bytes: the discovery message of forty sensors, inputs and outputs with the longest
/// names. Usual ones have 4 KiB.
const PACKET_OUT_MAX_BYTES: usize = 128 * 1024;

/// Options of a client with the node's own client id, which decides what it may publish. It connects through `tunnel`.
pub fn options(
    node: &Id,
    broker: &BrokerAddress,
    password: Option<&str>,
    tunnel: &Tunnel,
) -> MqttOptions {
    let client_id = format!("{CLIENT_ID_PREFIX}{node}");
    let mut options = MqttOptions::new(client_id, tunnel.entrance.clone(), broker.port);
    options.set_transport(Transport::unix());
    options.set_max_packet_size(PASSED_MAX_BYTES, PACKET_OUT_MAX_BYTES);
    if let Some(user) = &broker.user {
        options.set_credentials(user, password.unwrap_or_default());
    }
    options
}

/// The reason why there is no connection, for the operator of the node.
pub fn reason(error: &ConnectionError, node: &Id, broker: &BrokerAddress) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => refusal(*code, node, broker.user.as_deref()),
        ConnectionError::Io(cause) => format!("no connection to the broker: {cause}"),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
            "no connection to the broker: no answer in time".to_owned()
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".to_owned()
        }
        ConnectionError::MqttState(
            StateError::Io(cause) | StateError::Deserialization(mqttbytes::Error::Io(cause)),
        ) => {
            format!("connection to the broker lost: {cause}")
        }
        ConnectionError::MqttState(StateError::Deserialization(
            mqttbytes::Error::InvalidConnectReturnCode(code),
        )) => format!(
            "broker refused the connection with a code that MQTT 3.1.1 does not have ({code}): is it an MQTT broker of version 3.1.1?"
        ),
        ConnectionError::MqttState(StateError::Deserialization(cause)) => {
            format!("connection to the broker lost: it sent a malformed packet ({cause})")
        }
        ConnectionError::MqttState(StateError::WrongPacket | StateError::Unsolicited(_)) => {
            "connection to the broker lost: it sent a packet out of turn".to_owned()
        }
        ConnectionError::NotConnAck(_) => {
            "no connection to the broker: what answers there is no MQTT broker".to_owned()
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            "connection to the broker lost: no answer to a ping".to_owned()
        }
        other => match other.source() {
            Some(source) => format!("connection to the broker lost: {source}"),
            None => format!("connection to the broker lost: {other}"),
        },
    }
}

/// Whether the broker closed the connection without a word. Which error tells so depends on what was under way.
pub fn is_closed(error: &ConnectionError) -> bool {
    use std::io::ErrorKind as E;
    match error {
        ConnectionError::MqttState(StateError::ConnectionAborted) => true,
        ConnectionError::Io(cause)
        | ConnectionError::MqttState(
            StateError::Io(cause) | StateError::Deserialization(mqttbytes::Error::Io(cause)),
        ) => {
            matches!(
                cause.kind(),
                E::BrokenPipe | E::ConnectionReset | E::UnexpectedEof | E::ConnectionAborted
            )
        }
        _ => false,
    }
}

/// Whether the broker has refused the node itself, which no wait mends.
pub const fn is_refusal(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::BadClientId
                | ConnectReturnCode::RefusedProtocolVersion
        )
    )
}

fn refusal(code: ConnectReturnCode, node: &Id, user: Option<&str>) -> String {
    match (code, user) {
        (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized, Some(user)) => {
            format!(
                "broker refused user `{user}`: unknown user or wrong password; the broker's log says which"
            )
        }
        (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized, None) => {
            "broker refused a client without a user: write mqtt://user@host into HUMIDOR_BROKER, and set HUMIDOR_PASSWORD_FILE".to_owned()
        }
        (ConnectReturnCode::BadClientId, Some(user)) => {
            format!(
                "broker refused node id `{node}`: user `{user}` may not publish as `{node}`; set HUMIDOR_NODE={user} for a user of one board, or use a user with --role fleet"
            )
        }
        (ConnectReturnCode::BadClientId, None) => {
            format!("broker refused client id `{CLIENT_ID_PREFIX}{node}`")
        }
        (ConnectReturnCode::ServiceUnavailable, _) => {
            "broker refused the connection: it has no room for another client, or is not ready".to_owned()
        }
        (ConnectReturnCode::RefusedProtocolVersion, _) => {
            "broker does not support MQTT 3.1.1".to_owned()
        }
        (ConnectReturnCode::Success, _) => "broker refused the connection".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::config::{LINES_PER_KIND_MAX, example};
    use crate::node::discovery::DiscoveryMessage;
    use crate::reading::ID_MAX_CHARS;

    #[test]
    fn a_refused_login_names_the_user_and_the_node() {
        let node: Id = "pi4".parse().unwrap();
        let refused = |code, broker: &str| {
            reason(&ConnectionError::ConnectionRefused(code), &node, &broker.parse().unwrap())
        };
        for code in [ConnectReturnCode::NotAuthorized, ConnectReturnCode::BadUserNamePassword] {
            assert_eq!(
                refused(code, "mqtt://plant@hall"),
                "broker refused user `plant`: unknown user or wrong password; the broker's log says which"
            );
            assert!(refused(code, "mqtt://hall").contains("HUMIDOR_PASSWORD_FILE"));
        }
        let other_id = refused(ConnectReturnCode::BadClientId, "mqtt://plant@hall");
        assert!(other_id.contains("HUMIDOR_NODE=plant"), "{other_id}");
        let unavailable = refused(ConnectReturnCode::ServiceUnavailable, "mqtt://plant@hall");
        assert!(!unavailable.contains("password"), "{unavailable}");
    }

    #[test]
    fn the_largest_discovery_message_fits_into_a_packet() {
        let config = example(LINES_PER_KIND_MAX, ID_MAX_CHARS);
        let message = DiscoveryMessage::new(&config, &"homeassistant".parse().unwrap());
        let bytes = message.payload.len() + message.topic.len();
        assert!(bytes + 16 < PACKET_OUT_MAX_BYTES, "{bytes} bytes");
    }
}
