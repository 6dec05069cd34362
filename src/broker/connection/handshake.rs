//! The CONNECT handshake: from a new stream to its CONNACK.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::close::End;
use super::will::Will;
use crate::broker::access;
use crate::broker::access::permissions::Permissions;
use crate::broker::context::Services;
use crate::broker::counters::Traffic;
use crate::broker::delivery::outbound::ClientCapabilities;
use crate::broker::net::admission::Permit;
use crate::broker::net::limits::origin;
use crate::broker::net::transport::{Stream, Transport};
use crate::broker::session::take_over::Lease;
use crate::mqtt::codec::{
    self, CodecError, ConnAck, Connect, PACKET_MAX_BYTES, Reason, Version, write_connack,
    write_refusal,
};
use crate::throttled_log::ThrottledLog;
use crate::wire::is_status_of;

/// How long a client may take from the connection to its whole CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A CONNECT of so many bytes is read whatever others hold, and what lies in the socket of it is looked at before its
/// connection is evicted.
const SMALL_CONNECT_BYTES: usize = 4 * 1024;
/// How long a larger one is not read while evicted connections have not given back what they had.
const LEAVING_PAUSE: Duration = Duration::from_millis(5);
/// How long a client waits for the commit of its session.
const SESSION_COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that takes a client id over waits for the previous one to leave: that one takes the packets
/// that have arrived, and publishes its will. While the store cannot commit, it leaves within four seconds.
const TAKEOVER: Duration = Duration::from_secs(12);
/// A client can cause this line with each CONNECT.
static RESERVED_WILL_LINE: ThrottledLog = ThrottledLog::new(Duration::from_hours(24));
/// How long a CONNECT waits for a place for its will in the writer's queue: a store that cannot commit turns no client away.
const NOTE_WILL: Duration = Duration::from_secs(1);
/// Longest keep-alive of MQTT 5.0 clients, seconds. With half an hour, a node without power would be `online` for that
/// long. 0, which asks for no keep-alive, stays 0.
const KEEP_ALIVE_MAX_S: u16 = 60;
/// `QoS` 2 messages that a client may have begun and not released.
pub const RECEIVE_MAXIMUM: u16 = 256;
/// Topic aliases that a client may use, each of up to a topic's length: two thousand clients may use all of them.
pub const ALIASES: u16 = 10;
/// The highest bit of the protocol level marks a bridge of mosquitto's.
const BRIDGE: u8 = 0x80;

/// A client that was accepted.
pub struct Opened {
    pub lease: Lease,
    pub permissions: Arc<Permissions>,
    /// Whose share of the pools the connection has: its user's, or its address's.
    pub holder: Arc<str>,
    pub will: Option<Will>,
    pub capabilities: ClientCapabilities,
    /// Session expiry interval, seconds.
    pub expiry_s: u32,
    /// Silence after which the connection is closed.
    pub silence: Option<Duration>,
}

/// Reads CONNECT and answers it.
///
/// # Errors
/// [`End`], the reason why the client was not accepted.
pub async fn open<S: Stream>(
    transport: &mut Transport<S>,
    peer: SocketAddr,
    permit: &mut Permit,
    inbound: &mut BytesMut,
    services: &Services,
) -> Result<Opened, End> {
    let connect = read_connect(transport, permit, inbound);
    let connect = timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| End::NoConnect)??;
    let version = connect.version;
    let (mut opened, mut connack) = match Box::pin(accept(connect, peer, permit, services)).await {
        Ok(accepted) => accepted,
        Err((reason, end)) => {
            refuse(transport, version, reason).await?;
            return Err(end);
        }
    };
    if let Some(previous) = opened.lease.previous.take() {
        services.contested.taken_over(&opened.permissions.client_id, peer.ip());
        let _ = timeout(TAKEOVER, previous).await;
    }
    let mut stored_will =
        opened.will.as_mut().and_then(|will| will.store(&services.registry, opened.silence));
    if !opened.lease.changes.is_empty() {
        opened.lease.changes.extend(stored_will.take());
        // A CONNACK with Session Present must be true after a restart too.
        let commit = services.recorder.commit_changes(&mut opened.lease.changes);
        timeout(SESSION_COMMIT_TIMEOUT, commit).await.map_err(|_| End::NotCommitted)??;
    }
    if let Some(stored) = stored_will {
        // The session needs no commit, and the CONNACK does not wait for this one.
        let _ = timeout(NOTE_WILL, services.recorder.note(&mut vec![stored])).await;
    }
    connack.session_present = opened.lease.session_present;
    let mut bytes = BytesMut::new();
    write_connack(version, &connack, &mut bytes);
    // A client may be gone before it reads its CONNACK. The packets that it sent behind its CONNECT count.
    let _ = transport.write_all(&bytes).await;
    Traffic::count(&services.fan_out.traffic.connections);
    Ok(opened)
}

async fn read_connect<S: Stream>(
    transport: &mut Transport<S>,
    permit: &mut Permit,
    inbound: &mut BytesMut,
) -> Result<Connect, End> {
    let mut evicted = false;
    loop {
        let arrived = inbound.len();
        match codec::connect(inbound) {
            Ok(Some(connect)) => {
                permit.take_connect(arrived - inbound.len());
                return Ok(connect);
            }
            Ok(None) => {}
            Err(error) => {
                if let Some(version) = answers_in(&error, inbound) {
                    refuse(transport, version, error.reason()).await?;
                }
                return Err(error.into());
            }
        }
        if evicted {
            return Err(End::Evicted);
        }
        permit.holds(inbound.len());
        let is_small = inbound.len() <= SMALL_CONNECT_BYTES;
        let waits = !is_small && !permit.may_read();
        let read = tokio::select! {
            biased;
            () = permit.evicted() => {
                if !is_small {
                    return Err(End::Evicted);
                }
                evicted = true;
                // A CONNECT that lay in the socket is no reason to turn its client away.
                transport.read_arrived(inbound).await?.unwrap_or(1)
            }
            () = sleep(LEAVING_PAUSE), if waits => continue,
            read = transport.read(inbound), if !waits => read?,
        };
        if read == 0 {
            return Err(End::Closed);
        }
    }
}

/// In which version a CONNECT that is refused with `error` is answered, if at all: one of 3.1.1 that is malformed gets
/// no CONNACK ([MQTT-3.1.4-1]).
fn answers_in(error: &CodecError, stream: &[u8]) -> Option<Version> {
    match error {
        // Clients and bridges of 3.1 and 3.1.1 understand the old form only; a bridge then tries the version below.
        CodecError::Level(level) if level & !BRIDGE < 5 => Some(Version::V4),
        CodecError::Level(_) => Some(Version::V5),
        _ => codec::version_of(stream).filter(|version| *version == Version::V5),
    }
}

async fn refuse<S: Stream>(
    transport: &mut Transport<S>,
    version: Version,
    reason: Reason,
) -> Result<(), End> {
    let mut bytes = BytesMut::new();
    write_refusal(version, reason, &mut bytes);
    transport.write_all(&bytes).await?;
    Ok(())
}

/// The will of a CONNECT, which `session` will have. The error is that of [`accept`].
fn take_will(
    connect: &mut Connect,
    session: &str,
    peer: SocketAddr,
    permissions: &Permissions,
    services: &Services,
) -> Result<Option<Will>, (Reason, End)> {
    let will = match connect.will.take() {
        None => None,
        Some(will) => Some(
            Will::new(will, session, &services.registry)
                .ok_or((Reason::QuotaExceeded, End::Quota("wills")))?,
        ),
    };
    // The notifications of mosquitto's bridges. As a PUBLISH there, it is dropped and the client goes on.
    let (reserved, will): (Option<Will>, Option<Will>) = match will {
        Some(will) if will.is_reserved() => (Some(will), None),
        will => (None, will),
    };
    if let Some(will) = reserved
        && let Some(left_out) = RESERVED_WILL_LINE.due(Instant::now())
    {
        let (client, topic) = (&connect.client_id, will.topic());
        warn!(
            ?client,
            ?topic,
            left_out,
            "the will of a client is left out: topics that begin with `$` are the broker's own"
        );
    }
    if let Some(will) = &will
        && is_status_of(&connect.client_id, will.topic())
        && !permissions.acl().may_write(will.topic())
    {
        // The login was right, so the node may know the difference.
        let user = connect.user.as_deref().unwrap_or("");
        services.access.refuse_node(peer, user, &connect.client_id);
        return Err((
            Reason::ClientIdentifierNotValid,
            End::Refused("a node id that its user may not publish as"),
        ));
    }
    if let Some(will) = &will
        && !permissions.may_write(will.topic())
    {
        return Err((
            Reason::NotAuthorized,
            End::Refused("a will to a topic that this user may not write"),
        ));
    }
    Ok(will)
}

/// Accepts or refuses a CONNECT. The error has the reason code for the client, and the reason for the log.
async fn accept(
    mut connect: Connect,
    peer: SocketAddr,
    permit: &mut Permit,
    services: &Services,
) -> Result<(Opened, ConnAck), (Reason, End)> {
    let version = connect.version;
    if connect.authentication_method.is_some() {
        return Err((Reason::BadAuthenticationMethod, End::Refused("an authentication method")));
    }
    let mut assigned_client_id = None;
    if connect.client_id.is_empty() && (connect.clean_start || version == Version::V5) {
        // [MQTT-3.1.3-6]: the server assigns a client id.
        connect.client_id = format!("auto-{:016x}", fastrand::u64(..));
        assigned_client_id = Some(connect.client_id.clone());
    }
    if !access::client_id(&connect.client_id) {
        return Err((Reason::ClientIdentifierNotValid, End::Refused("client id")));
    }
    // MQTT 5.0 allows a password without a user name.
    let login = (connect.user.is_some() || connect.password.is_some()).then(|| {
        (connect.user.as_deref().unwrap_or(""), connect.password.as_deref().unwrap_or(&[]))
    });
    // An assigned client id is a new one each time.
    let client = if assigned_client_id.is_some() { "" } else { &connect.client_id };
    // A refusal takes its time, in which the connection is one of those that make room for others.
    let permissions = tokio::select! {
        permissions = services.access.admit_as(peer, &connect.client_id, client, login) => permissions,
        () = permit.evicted() => return Err((Reason::ServerBusy, End::Evicted)),
    };
    permit.end_login();
    let permissions = permissions.map_err(|refusal| {
        let user = login.map(|(user, _)| user);
        services.access.note_refused(peer, &connect.client_id, user, refusal);
        (refusal.reason(), End::NotAdmitted(refusal))
    })?;
    permit
        .admit_client(permissions.user())
        .await
        .map_err(|full| (Reason::QuotaExceeded, full.into()))?;
    let client_id = permissions.session();
    let will = take_will(&mut connect, &client_id, peer, &permissions, services)?;
    let (expiry_s, now_ms) = (connect.session_expiry_s, services.fan_out.timeline.now_ms());
    let lease = Lease::take(&services.registry, &client_id, connect.clean_start, expiry_s, now_ms);
    let lease = lease.map_err(|_| (Reason::QuotaExceeded, End::Quota("persistent sessions")))?;
    services.access.note_admitted(peer, &connect.client_id);
    let (mut keep_alive_s, mut server_keep_alive_s) = (connect.keep_alive_s, None);
    if version == Version::V5 && keep_alive_s > KEEP_ALIVE_MAX_S {
        keep_alive_s = KEEP_ALIVE_MAX_S;
        server_keep_alive_s = Some(keep_alive_s);
    }
    let capabilities = ClientCapabilities {
        version,
        receive_maximum: connect.receive_maximum,
        packet_max: connect.packet_max_bytes.map_or(usize::MAX, |bytes| bytes as usize),
        aliases: connect.topic_alias_maximum,
    };
    // [MQTT-3.1.2-22]
    let silence = Duration::from_secs(u64::from(keep_alive_s)) * 3 / 2;
    let silence = (keep_alive_s > 0).then_some(silence);
    let connack = ConnAck {
        session_present: false,
        assigned_client_id,
        server_keep_alive_s,
        receive_maximum: RECEIVE_MAXIMUM,
        // The fixed header has at most five bytes.
        packet_max_bytes: PACKET_MAX_BYTES + 5,
        topic_alias_maximum: ALIASES,
    };
    let holder = permissions.user().map_or_else(|| origin(peer.ip()).to_string().into(), Arc::from);
    let permissions = Arc::new(permissions);
    Ok((Opened { lease, permissions, holder, will, capabilities, expiry_s, silence }, connack))
}
