//! From a new stream to its CONNACK.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnAckProperties, ConnectReturnCode};
use tokio::time::timeout;

use super::close::End;
use crate::broker::access;
use crate::broker::access::permissions::Grants;
use crate::broker::connection::packet::{self, Opening, PACKET_MAX_BYTES, PacketError, Version};
use crate::broker::connection::reply;
use crate::broker::connection::will::Will;
use crate::broker::context::Services;
use crate::broker::counters::Traffic;
use crate::broker::delivery::outbound::ClientCapabilities;
use crate::broker::net::admission::Visitor;
use crate::broker::net::transport::{Carrier, Stream};
use crate::broker::session::lease::Lease;
use crate::clock;

/// How long a connection that takes a client id over waits for the other to leave.
const TAKEOVER: Duration = Duration::from_secs(1);
/// Longest keep-alive that MQTT 5.0 clients are given, seconds: half an hour would be how long a node that lost
/// its power is still `online`. 0, which asks for none, stays 0.
const KEEP_ALIVE_MAX: u16 = 60;
/// `QoS` 2 messages that a client may have begun and not released.
pub const RECEIVE_MAXIMUM: u16 = 256;
/// Topic aliases that a client may use, each of up to a topic's length.
pub const ALIASES: u16 = 32;

/// A client that was accepted.
pub struct Opened {
    pub lease: Lease,
    pub grants: Arc<Grants>,
    pub will: Option<Will>,
    pub capabilities: ClientCapabilities,
    /// Session expiry interval, seconds.
    pub expiry_s: u32,
    /// Silence after which the client is gone.
    pub silence: Option<Duration>,
}

/// Reads CONNECT and answers it.
///
/// # Errors
/// Why there is no connection.
pub async fn open<S: Stream>(
    carrier: &mut Carrier<S>,
    peer: SocketAddr,
    visitor: &mut Visitor,
    inbound: &mut BytesMut,
    services: &Services,
) -> Result<Opened, End> {
    let opening = loop {
        match packet::first(inbound) {
            Ok(Some(opening)) => break opening,
            Ok(None) => {}
            Err(error) => {
                if let PacketError::Level(level) = error {
                    let version = if level > 4 { Version::V5 } else { Version::V4 };
                    refuse(carrier, version, 0x84).await?;
                }
                return Err(error.into());
            }
        }
        let read = tokio::select! {
            read = carrier.read(inbound) => read?,
            () = visitor.evicted() => return Err(End::Evicted),
        };
        if read == 0 {
            return Err(End::Closed);
        }
    };
    let version = opening.version;
    let accepted = accept(opening, peer, visitor, services).await;
    let (mut opened, mut connack) = match accepted {
        Ok(accepted) => accepted,
        Err((reason, end)) => {
            refuse(carrier, version, reason).await?;
            return Err(end);
        }
    };
    if let Some(previous) = opened.lease.previous.take() {
        let _ = timeout(TAKEOVER, previous).await;
    }
    if !opened.lease.changes.is_empty() {
        // A session that is said to be there is there after a restart too.
        services.recorder.commit_changes(&mut opened.lease.changes).await?;
    }
    connack.session_present = opened.lease.session_present;
    let mut bytes = BytesMut::new();
    match version {
        Version::V4 => bytes.extend([0x20, 2, u8::from(connack.session_present), 0]),
        Version::V5 => {
            connack.write(&mut bytes).map_err(PacketError::from)?;
        }
    }
    carrier.write_all(&bytes).await?;
    Traffic::count(&services.fan_out.traffic.connections);
    Ok(opened)
}

async fn refuse<S: Stream>(
    carrier: &mut Carrier<S>,
    version: Version,
    reason: u8,
) -> Result<(), End> {
    let mut bytes = BytesMut::new();
    reply::refusal(version, reason, &mut bytes);
    carrier.write_all(&bytes).await?;
    Ok(())
}

/// Decides about a CONNECT. The error is the reason code and what is logged.
async fn accept(
    opening: Opening,
    peer: SocketAddr,
    visitor: &mut Visitor,
    services: &Services,
) -> Result<(Opened, ConnAck), (u8, End)> {
    let Opening { version, mut connect, will, login } = opening;
    let mut properties = connack_properties();
    let wishes = connect.properties.take().unwrap_or_default();
    if wishes.authentication_method.is_some() {
        return Err((0x8c, End::Refused("an authentication method")));
    }
    let expiry_s = wishes.session_expiry_interval.unwrap_or(0);
    if connect.client_id.is_empty() && (connect.clean_start || version == Version::V5) {
        // [MQTT-3.1.3-6]: the server names it.
        connect.client_id = format!("auto-{:016x}", fastrand::u64(..));
        properties.assigned_client_identifier = Some(connect.client_id.clone());
    }
    if !access::client_id(&connect.client_id) {
        return Err((0x85, End::Refused("client id")));
    }
    let login = login.as_ref();
    let login = login.map(|login| (login.username.as_str(), login.password.as_bytes()));
    let grants = services.access.admit(peer, &connect.client_id, login).await;
    let grants = grants.map_err(|refusal| (refusal.reason(), End::NotAdmitted(refusal)))?;
    visitor.sit_down().map_err(|full| (0x97, full.into()))?;
    connect.client_id = grants.session();
    let will = match will.map(|will| Will::new(will, &connect.client_id)) {
        Some(Err(_)) => return Err((0x90, End::Refused("the will's topic is not a topic name"))),
        Some(Ok(will)) if will.is_reserved() => {
            return Err((0x87, End::Refused("a will for the broker's own tree")));
        }
        Some(Ok(will)) if !grants.may_write(will.topic()) => {
            return Err((0x87, End::Refused("a will to another's topic")));
        }
        will => will.and_then(Result::ok),
    };
    let now_ms = clock::unix_ms();
    let lease =
        Lease::take(&services.registry, &connect.client_id, connect.clean_start, expiry_s, now_ms);
    let Ok(lease) = lease else {
        return Err((0x97, End::Refused("no room for another persistent session")));
    };
    let mut keep_alive = connect.keep_alive;
    if version == Version::V5 && keep_alive > KEEP_ALIVE_MAX {
        keep_alive = KEEP_ALIVE_MAX;
        properties.server_keep_alive = Some(keep_alive);
    }
    let capabilities = ClientCapabilities {
        version,
        receive_maximum: wishes.receive_maximum.unwrap_or(u16::MAX),
        packet_max: wishes.max_packet_size.map_or(usize::MAX, |bytes| bytes as usize),
        aliases: wishes.topic_alias_max.unwrap_or(0),
    };
    let silence = Duration::from_secs(u64::from(keep_alive)) * 3 / 2;
    let silence = (keep_alive > 0).then_some(silence);
    let connack = ConnAck {
        session_present: false,
        code: ConnectReturnCode::Success,
        properties: Some(properties),
    };
    let grants = Arc::new(grants);
    Ok((Opened { lease, grants, will, capabilities, expiry_s, silence }, connack))
}

/// What every MQTT 5.0 client is told (§3.2.2.3).
const fn connack_properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: Some(RECEIVE_MAXIMUM),
        max_qos: None,
        retain_available: None,
        // The fixed header has at most five bytes.
        max_packet_size: Some(PACKET_MAX_BYTES + 5),
        assigned_client_identifier: None,
        topic_alias_max: Some(ALIASES),
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}
