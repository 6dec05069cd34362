//! One client's connection: reads packets, has them committed, acknowledges, passes on, and writes
//! what the router has for the client. One task, one loop; nothing in it waits for the other side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::access::{self, Access, Grants, NotAdmitted};
use super::carrier::{Carrier, Stream};
use super::client::{Client, committed, delivered};
use super::intake;
use super::packet::{self, Message, PacketError};
use super::recorder::{Recorder, Stopped};
use super::router::{LinkError, Router, RouterDied};
use super::sessions::{Claim, Sessions};
use crate::clock;
use crate::shutdown::Shutdown;
use crate::wire::{Filter, topic_name};

/// How long a client may take from the connection to its whole CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes nothing off its socket for this long is gone.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long a closing connection still waits for its last commit and acknowledgements.
const LINGER: Duration = Duration::from_secs(3);
/// How long a connection that takes a client id over waits for the other to leave.
const TAKEOVER: Duration = Duration::from_secs(1);
/// Bytes that wait for the client before the router is asked for more.
const OUT_HIGH_BYTES: usize = 64 * 1024;

/// What every connection works with.
#[derive(Clone)]
pub struct Services {
    /// Commits.
    pub recorder: Recorder,
    /// Fans out.
    pub router: Router,
    /// Who is connected.
    pub sessions: Sessions,
    /// Who may do what.
    pub access: Access,
    /// Topic filters of foreign publishers that are logged.
    pub logged: Arc<[Filter]>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("the client said goodbye")]
    Disconnect,
    #[error("the client closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("refused at CONNECT: {0}")]
    Refused(&'static str),
    #[error("not admitted: {0}")]
    NotAdmitted(#[from] NotAdmitted),
    #[error("its user was changed")]
    Withdrawn,
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("nothing heard for 1.5 × keep-alive")]
    Silent,
    #[error("the client takes nothing off its socket")]
    Stalled,
    #[error("its client id connected elsewhere")]
    TakenOver,
    #[error("the broker is stopping")]
    Stopping,
    #[error("{0}")]
    Link(#[from] LinkError),
    #[error("{0}")]
    Store(#[from] Stopped),
}

impl From<RouterDied> for End {
    fn from(died: RouterDied) -> Self {
        Self::Link(died.into())
    }
}

/// Serves one client until it leaves, misbehaves, or `shutdown`.
pub async fn serve<S: Stream>(stream: S, peer: SocketAddr, services: Services, shutdown: Shutdown) {
    let mut carrier = Carrier::new(stream);
    let mut inbound = BytesMut::with_capacity(1024);
    let opening = timeout(CONNECT_TIMEOUT, open(&mut carrier, peer, &mut inbound, &services)).await;
    let (connect, mut claim, grants) = match opening {
        Ok(Ok(opened)) => opened,
        Ok(Err(end)) => {
            debug!(%peer, reason = %end, "no connection");
            return;
        }
        Err(_) => {
            debug!(%peer, "no CONNECT within {CONNECT_TIMEOUT:?}");
            return;
        }
    };
    let client = connect.client_id.clone();
    debug!(%peer, client, "connected");
    let mut will = connect.last_will.as_ref().map(|will| Message {
        topic: will.topic.clone(),
        payload: Bytes::copy_from_slice(&will.message),
        retain: will.retain,
    });
    let end = match run(&mut carrier, inbound, &connect, &mut claim, &grants, &services, shutdown)
        .await
    {
        Ok(never) => match never {},
        Err(end) => end,
    };
    debug!(%peer, client, reason = %end, "disconnected");
    if matches!(end, End::Disconnect) {
        // [MQTT-3.1.2-10]: a client that says goodbye takes its will with it.
        will = None;
    }
    if let Some(will) = will {
        publish_will(&services, will).await;
    }
    // Only now: who has taken the client id over waits for it, so that this will's `offline` comes before
    // its own `online`.
    drop(claim);
}

async fn publish_will(services: &Services, will: Message) {
    if let Some(record) = intake::record(&will, &services.logged, clock::unix_ms()) {
        // A will is acknowledged to nobody: a store that cannot commit does not hold it up.
        let _ = timeout(LINGER, services.recorder.commit(vec![record])).await;
    }
    let _ = services.router.publish(&[will]).await;
}

/// CONNECT to CONNACK.
async fn open<S: Stream>(
    carrier: &mut Carrier<S>,
    peer: SocketAddr,
    inbound: &mut BytesMut,
    services: &Services,
) -> Result<(Connect, Claim, Grants), End> {
    let mut connect = loop {
        match packet::first(inbound) {
            Ok(Some(connect)) => break connect,
            Ok(None) => {}
            Err(PacketError::Level(level)) => {
                carrier.write_all(packet::refuse_level(level)).await?;
                return Err(PacketError::Level(level).into());
            }
            Err(error) => return Err(error.into()),
        }
        if carrier.read(inbound).await? == 0 {
            return Err(End::Closed);
        }
    };
    if connect.client_id.is_empty() && connect.clean_session {
        // [MQTT-3.1.3-6]: the server names it.
        connect.client_id = format!("auto-{:016x}", fastrand::u64(..));
    }
    if !access::client_id(&connect.client_id) {
        refuse(carrier, ConnectReturnCode::BadClientId).await?;
        return Err(End::Refused("client id"));
    }
    if let Some(will) = &connect.last_will
        && topic_name(will.topic.as_bytes()).is_err()
    {
        return Err(End::Protocol("the will's topic is not a topic name"));
    }
    let login = connect.login.as_ref();
    let login = login.map(|login| (login.username.as_str(), login.password.as_bytes()));
    let grants = match services.access.admit(peer, &connect.client_id, login).await {
        Ok(grants) => grants,
        Err(refusal) => {
            let code = match refusal {
                NotAdmitted::NotAuthorized => ConnectReturnCode::NotAuthorized,
                NotAdmitted::ClientId(_) => ConnectReturnCode::BadClientId,
                NotAdmitted::Busy => ConnectReturnCode::ServiceUnavailable,
            };
            refuse(carrier, code).await?;
            return Err(refusal.into());
        }
    };
    if let Some(will) = &connect.last_will
        && !grants.may_write(&will.topic)
    {
        refuse(carrier, ConnectReturnCode::NotAuthorized).await?;
        return Err(NotAdmitted::NotAuthorized.into());
    }
    let Ok(claim) = services.sessions.claim(grants.session(), connect.clean_session) else {
        refuse(carrier, ConnectReturnCode::ServiceUnavailable).await?;
        return Err(End::Refused("no room for another persistent session"));
    };
    let mut claim = claim;
    if let Some(predecessor) = claim.predecessor.take() {
        let _ = timeout(TAKEOVER, predecessor).await;
    }
    if let Some(number) = claim.discarded {
        // Opened clean, the router forgets what it kept under this number.
        drop(services.router.persistent_link(number, true).await?);
        services.sessions.forgotten(number);
    }
    let mut bytes = BytesMut::new();
    let accepted = ConnAck::new(ConnectReturnCode::Success, claim.session_present);
    accepted.write(&mut bytes).map_err(PacketError::from)?;
    carrier.write_all(&bytes).await?;
    Ok((connect, claim, grants))
}

async fn refuse<S: Stream>(carrier: &mut Carrier<S>, code: ConnectReturnCode) -> Result<(), End> {
    let mut bytes = BytesMut::new();
    ConnAck::new(code, false).write(&mut bytes).map_err(PacketError::from)?;
    carrier.write_all(&bytes).await?;
    Ok(())
}

enum Never {}

/// The connection's loop. Always returns why it ended.
async fn run<S: Stream>(
    carrier: &mut Carrier<S>,
    inbound: BytesMut,
    connect: &Connect,
    claim: &mut Claim,
    grants: &Grants,
    services: &Services,
    mut shutdown: Shutdown,
) -> Result<Never, End> {
    let silence = (connect.keep_alive > 0)
        .then(|| Duration::from_secs(u64::from(connect.keep_alive)) * 3 / 2);
    let (_no_takeover, taken_over) = tokio::sync::oneshot::channel();
    let mut taken_over = std::mem::replace(&mut claim.taken_over, taken_over);
    let mut client = Client::new(services, claim, grants, inbound);
    client.resume().await?;

    let started = Instant::now();
    let (mut heard, mut written) = (started, started);
    let alarm = sleep_until(started + silence.unwrap_or(WRITE_STALL).min(WRITE_STALL));
    let withdrawn = grants.withdrawn();
    tokio::pin!(alarm, withdrawn);
    loop {
        let nothing_to_write = carrier.is_idle(&client.out);
        client.take_packets().await?;
        if client.has_left() {
            return Err(End::Disconnect);
        }
        if nothing_to_write {
            written = Instant::now();
        }
        // A client that takes nothing is not listened to either: its answers would have to be kept.
        let room = client.out.len() < OUT_HIGH_BYTES;
        let listening = room && !client.is_committing();
        tokio::select! {
            moved = carrier.progress(listening.then_some(&mut client.inbound), &mut client.out) => {
                let moved = moved?;
                if moved.read == Some(0) {
                    return Err(End::Closed);
                }
                let now = Instant::now();
                if moved.read.is_some() {
                    heard = now;
                }
                if moved.wrote {
                    written = now;
                }
            }
            committed = committed(&mut client.staged), if client.is_committing() => {
                committed?;
                client.acknowledge().await?;
                // While a commit is awaited nothing is read; that silence is ours.
                heard = Instant::now();
            }
            delivery = delivered(&mut client.link), if room => {
                client.deliver(delivery?)?;
            }
            () = &mut alarm => {
                let now = Instant::now();
                if listening && silence.is_some_and(|limit| now >= heard + limit) {
                    return Err(End::Silent);
                }
                if !carrier.is_idle(&client.out) && now >= written + WRITE_STALL {
                    return Err(End::Stalled);
                }
                let next = silence.map_or(now + WRITE_STALL, |limit| (heard + limit).min(now + WRITE_STALL));
                alarm.as_mut().reset(next.max(now + Duration::from_secs(1)));
            }
            () = &mut withdrawn => return Err(End::Withdrawn),
            _ = &mut taken_over => return Err(End::TakenOver),
            () = shutdown.requested() => {
                let _ = timeout(LINGER, client.finish(carrier)).await;
                return Err(End::Stopping);
            }
        }
    }
}
