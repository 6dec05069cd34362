//! One client's connection: reads packets, has them committed, acknowledges, passes on, and writes
//! what the router has for the client. One task, one loop; nothing in it waits for the other side.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PingResp, PubAck, PubComp, PubRec, Publish,
    SubAck, Subscribe, SubscribeReasonCode, UnsubAck, Unsubscribe,
};
use rumqttd::protocol::Protocol;
use rumqttd::protocol::v4::V4;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::access::{self, NotGranted};
use super::intake;
use super::packet::{self, Message, PacketError};
use super::recorder::{Recorder, Stopped};
use super::router::{Delivery, Link, LinkError, Router, RouterDied};
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
/// PUBLISH packets that one connection has in one commit.
const BATCH_PACKETS: usize = 256;
/// Bytes that wait for the client before the router is asked for more.
const OUT_HIGH_BYTES: usize = 64 * 1024;
/// Room made in the read buffer at a time.
const READ_BYTES: usize = 16 * 1024;

/// What every connection works with.
#[derive(Clone)]
pub struct Services {
    /// Commits.
    pub recorder: Recorder,
    /// Fans out.
    pub router: Router,
    /// Who is connected.
    pub sessions: Sessions,
    /// Topic filters of foreign publishers that are logged.
    pub logged: Arc<[Filter]>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
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

/// Publishes that wait for their commit, and what follows it.
struct Staged {
    messages: Vec<Message>,
    acknowledgements: BytesMut,
    received: Vec<u16>,
    commit: Pin<Box<dyn Future<Output = Result<(), Stopped>> + Send>>,
}

/// Serves one client until it leaves, misbehaves, or `shutdown`.
pub async fn serve(
    mut socket: TcpStream,
    peer: SocketAddr,
    services: Services,
    shutdown: Shutdown,
) {
    let mut inbound = BytesMut::with_capacity(1024);
    let opening = timeout(CONNECT_TIMEOUT, open(&mut socket, &mut inbound, &services)).await;
    let (connect, mut claim) = match opening {
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
    let end = match run(&mut socket, inbound, &connect, &mut claim, &services, shutdown).await {
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
async fn open(
    socket: &mut TcpStream,
    inbound: &mut BytesMut,
    services: &Services,
) -> Result<(Connect, Claim), End> {
    let mut connect = loop {
        match packet::first(inbound) {
            Ok(Some(connect)) => break connect,
            Ok(None) => {}
            Err(PacketError::Level(level)) => {
                socket.write_all(packet::refuse_level(level)).await?;
                return Err(PacketError::Level(level).into());
            }
            Err(error) => return Err(error.into()),
        }
        if socket.read_buf(inbound).await? == 0 {
            return Err(End::Closed);
        }
    };
    if connect.client_id.is_empty() && connect.clean_session {
        // [MQTT-3.1.3-6]: the server names it.
        connect.client_id = format!("auto-{:016x}", fastrand::u64(..));
    }
    if !access::client_id(&connect.client_id) {
        refuse(socket, ConnectReturnCode::BadClientId).await?;
        return Err(End::Refused("client id"));
    }
    if let Some(will) = &connect.last_will
        && topic_name(will.topic.as_bytes()).is_err()
    {
        return Err(End::Protocol("the will's topic is not a topic name"));
    }
    let Ok(claim) = services.sessions.claim(connect.client_id.clone(), connect.clean_session)
    else {
        refuse(socket, ConnectReturnCode::ServiceUnavailable).await?;
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
    socket.write_all(&bytes).await?;
    Ok((connect, claim))
}

async fn refuse(socket: &mut TcpStream, code: ConnectReturnCode) -> Result<(), End> {
    let mut bytes = BytesMut::new();
    ConnAck::new(code, false).write(&mut bytes).map_err(PacketError::from)?;
    socket.write_all(&bytes).await?;
    Ok(())
}

enum Never {}

/// The connection's loop. Always returns why it ended.
async fn run(
    socket: &mut TcpStream,
    inbound: BytesMut,
    connect: &Connect,
    claim: &mut Claim,
    services: &Services,
    mut shutdown: Shutdown,
) -> Result<Never, End> {
    let (mut reader, mut writer) = socket.split();
    let silence = (connect.keep_alive > 0)
        .then(|| Duration::from_secs(u64::from(connect.keep_alive)) * 3 / 2);
    let (_no_takeover, taken_over) = tokio::sync::oneshot::channel();
    let mut taken_over = std::mem::replace(&mut claim.taken_over, taken_over);
    let mut client = Client {
        services,
        claim,
        link: None,
        inbound,
        out: BytesMut::new(),
        staged: None,
        unconfirmed: VecDeque::new(),
        leaving: false,
    };
    client.resume().await?;

    let started = Instant::now();
    let (mut heard, mut written) = (started, started);
    let alarm = sleep_until(started + silence.unwrap_or(WRITE_STALL).min(WRITE_STALL));
    tokio::pin!(alarm);
    loop {
        let nothing_to_write = client.out.is_empty();
        client.take_packets().await?;
        if client.leaving && client.staged.is_none() {
            return Err(End::Disconnect);
        }
        if nothing_to_write {
            written = Instant::now();
        }
        // A client that takes nothing is not listened to either: its answers would have to be kept.
        let room = client.out.len() < OUT_HIGH_BYTES;
        tokio::select! {
            read = read(&mut reader, &mut client.inbound), if client.staged.is_none() && room => {
                if read? == 0 {
                    return Err(End::Closed);
                }
                heard = Instant::now();
            }
            committed = commit(&mut client.staged), if client.staged.is_some() => {
                committed?;
                client.acknowledge().await?;
                // While a commit is awaited nothing is read; that silence is ours.
                heard = Instant::now();
            }
            delivery = next(&mut client.link), if client.link.is_some() && room => {
                client.deliver(delivery?)?;
            }
            wrote = write(&mut writer, &mut client.out), if !client.out.is_empty() => {
                wrote?;
                written = Instant::now();
            }
            () = &mut alarm => {
                let now = Instant::now();
                let listening = client.staged.is_none() && room;
                if listening && silence.is_some_and(|limit| now >= heard + limit) {
                    return Err(End::Silent);
                }
                if !client.out.is_empty() && now >= written + WRITE_STALL {
                    return Err(End::Stalled);
                }
                let next = silence.map_or(now + WRITE_STALL, |limit| (heard + limit).min(now + WRITE_STALL));
                alarm.as_mut().reset(next.max(now + Duration::from_secs(1)));
            }
            _ = &mut taken_over => return Err(End::TakenOver),
            () = shutdown.requested() => {
                let _ = timeout(LINGER, client.finish(&mut writer)).await;
                return Err(End::Stopping);
            }
        }
    }
}

async fn read(reader: &mut ReadHalf<'_>, inbound: &mut BytesMut) -> std::io::Result<usize> {
    inbound.reserve(READ_BYTES);
    reader.read_buf(inbound).await
}

async fn write(writer: &mut WriteHalf<'_>, out: &mut BytesMut) -> std::io::Result<usize> {
    writer.write_buf(out).await
}

async fn commit(staged: &mut Option<Staged>) -> Result<(), Stopped> {
    match staged {
        Some(staged) => staged.commit.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn next(link: &mut Option<Link>) -> Result<Delivery, RouterDied> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

/// A connected client.
struct Client<'a> {
    services: &'a Services,
    claim: &'a mut Claim,
    /// Opened with the first subscription: a client that only publishes costs the router nothing.
    link: Option<Link>,
    inbound: BytesMut,
    out: BytesMut,
    staged: Option<Staged>,
    /// SUBACKs that wait for the router; none for the subscriptions that a session took up again.
    unconfirmed: VecDeque<Option<SubAck>>,
    /// DISCONNECT was read; what was published before it is still committed.
    leaving: bool,
}

impl Client<'_> {
    /// Takes a persistent session's subscriptions up again.
    async fn resume(&mut self) -> Result<(), End> {
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
    fn deliver(&mut self, delivery: Delivery) -> Result<(), End> {
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
    async fn take_packets(&mut self) -> Result<(), End> {
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
    async fn acknowledge(&mut self) -> Result<(), End> {
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
        let filter = access::subscription(filter, held)?;
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
    async fn finish(&mut self, writer: &mut WriteHalf<'_>) -> Result<(), End> {
        if self.staged.is_some() {
            commit(&mut self.staged).await?;
            self.acknowledge().await?;
        }
        writer.write_all_buf(&mut self.out).await?;
        writer.shutdown().await?;
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
