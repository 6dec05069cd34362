//! The event loop of one client's connection: it reads packets, has them committed, acknowledges them and writes
//! deliveries. One task, one loop; nothing in it waits for the other side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::arrived::take_arrived;
use super::client::{Client, committed, read, released};
use super::close::End;
use super::handshake::{self, Opened};
use super::withdrawal;
use crate::broker::context::Services;
use crate::broker::counters::Traffic;
use crate::broker::net::admission::Permit;
use crate::broker::net::rate_limit::RateLimiter;
use crate::broker::net::transport::{Stream, Transport};
use crate::mqtt::codec::{self, Version};
use crate::shutdown::Shutdown;

/// A client that reads nothing from its socket for this long is disconnected.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How long a closing connection still waits for its last commit and acknowledgements.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// The same when the client id is taken over meanwhile.
const TAKE_OVER_FINISH_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a client may go on sending after it was told the reason: if the socket were closed at once, the system
/// would discard that packet.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of output that wait for the client before its next packet is taken.
const OUT_HIGH_BYTES: usize = 64 * 1024;

/// Serves one client until it disconnects, breaks the protocol, or `shutdown`.
pub async fn serve<S: Stream>(
    stream: S,
    peer: SocketAddr,
    mut permit: Permit,
    services: Services,
    shutdown: Shutdown,
) {
    let mut transport = Transport::new(stream);
    transport
        .set_rate_limit(RateLimiter::new(services.admission.limits(), std::time::Instant::now()));
    let mut inbound = BytesMut::with_capacity(1024);
    let opening = handshake::open(&mut transport, peer, &mut permit, &mut inbound, &services).await;
    match opening {
        // Boxed: a connection without a CONNECT does not take the memory of a client's.
        Ok(opened) => {
            let client = serve_client(transport, inbound, opened, peer, permit, services, shutdown);
            Box::pin(client).await;
        }
        Err(end) => {
            if end.is_breach() {
                Traffic::count(&services.fan_out.traffic.malformed);
            }
            end.tell_operator(peer, None);
            debug!(%peer, reason = %end, "no connection");
            // These close at once.
            if !matches!(end, End::Evicted | End::NoConnect | End::NotCommitted) {
                let _ = timeout(CLOSE_TIMEOUT, transport.hang_up()).await;
            }
        }
    }
}

/// Serves a client that was accepted.
async fn serve_client<S: Stream>(
    mut transport: Transport<S>,
    inbound: BytesMut,
    mut opened: Opened,
    peer: SocketAddr,
    mut permit: Permit,
    services: Services,
    shutdown: Shutdown,
) {
    let client_id = Arc::clone(&opened.lease.session.client_id);
    debug!(%peer, client = &*client_id, version = ?opened.capabilities.version, "connected");
    let mut client = Client::new(&services, &opened, inbound);
    let mut end = match run(&mut transport, &mut client, &mut opened, shutdown.clone()).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    // A board that comes back may need this place.
    permit.leave_place();
    let taken_over = matches!(end, End::TakenOver);
    if end.leaves_packets_unread() {
        end = take_arrived(&mut transport, &mut client, end).await;
    }
    let (mut polite, expiry_s) = match &end {
        // [MQTT-3.14.4-3]: only a normal disconnection takes the will along.
        End::Disconnect(disconnect) => (disconnect.reason == 0, disconnect.session_expiry_s),
        _ => (false, None),
    };
    if expiry_s.is_some_and(|wanted| wanted > 0 && opened.expiry_s == 0) {
        // [MQTT-3.14.2-2]
        end = End::Protocol("a session that ends with its connection is to outlive it");
        polite = false;
    }
    if end.is_breach() {
        Traffic::count(&services.fan_out.traffic.malformed);
    }
    end.tell_operator(peer, Some(&client_id));
    debug!(%peer, client = &*client_id, reason = %end, "disconnected");
    // Who takes over relies on what its session has taken: that is settled before it reads on. After a take-over the
    // commit was waited for already.
    if !taken_over {
        tokio::select! {
            _ = timeout(FINISH_TIMEOUT, client.finish()) => {}
            _ = &mut opened.lease.taken_over => {
                let _ = timeout(TAKE_OVER_FINISH_TIMEOUT, client.finish()).await;
            }
        }
    }
    client.abandon();
    let expiry_s = expiry_s.filter(|_| !end.is_breach()).unwrap_or(opened.expiry_s);
    let session = &opened.lease.session;
    let (expiry_s, mut changes) =
        withdrawal::leave(&opened.permissions, session, &services, expiry_s);
    changes.extend(opened.lease.leave(expiry_s, services.fan_out.timeline.now_ms()));
    // [MQTT-3.1.2-10]: a client that says goodbye takes its will with it.
    let mut will = opened.will.take();
    if polite && let Some(will) = will.take() {
        changes.extend(will.discard());
    }
    if timeout(FINISH_TIMEOUT, services.recorder.note(&mut changes)).await.is_err() {
        services.registry.take_back(changes);
    }
    if let Some(will) = will {
        will.publish_for(&opened.lease, expiry_s, &services, shutdown).await;
    }
    // Only now: who has taken the client id over waits for it, so that this will's `offline` comes before
    // its own `online`.
    drop(opened);
    // Last of all: the client may take its time, and nobody waits for it.
    write_reason_and_close(&mut transport, &mut client, &end).await;
}

/// Writes the rest of the output, acknowledgements of packets before a breach among it, and the reason, and closes.
async fn write_reason_and_close<S: Stream>(
    transport: &mut Transport<S>,
    client: &mut Client<'_>,
    end: &End,
) {
    if let Some(reason) = end.reason()
        && client.version == Version::V5
    {
        codec::write_disconnect(reason, &mut client.out);
    } else if !matches!(end, End::Stopping | End::Quota(_)) && !end.is_breach() {
        let _ = timeout(CLOSE_TIMEOUT, transport.hang_up()).await;
        return;
    }
    let closing = async {
        transport.close(&mut client.out).await?;
        while transport.read(&mut client.inbound).await? > 0 {
            client.inbound.clear();
        }
        std::io::Result::Ok(())
    };
    let _ =
        timeout(if matches!(end, End::Stopping) { FINISH_TIMEOUT } else { CLOSE_TIMEOUT }, closing)
            .await;
}

enum Never {}

/// The loop. It always returns why the connection ended.
async fn run<S: Stream>(
    transport: &mut Transport<S>,
    client: &mut Client<'_>,
    opened: &mut Opened,
    mut shutdown: Shutdown,
) -> Result<Never, End> {
    let silence = opened.silence;
    let taken_over = &mut opened.lease.taken_over;
    let session = Arc::clone(&opened.lease.session);
    let permissions = Arc::clone(&opened.permissions);
    let buffers = client.buffers();
    let withdrawn = permissions.withdrawn();
    // It may have been taken over during its own handshake: then it gets no deliveries.
    if taken_over.try_recv().is_ok() {
        return Err(End::TakenOver);
    }
    let started = Instant::now();
    let (mut last_read, mut last_written) = (started, started);
    let alarm = sleep_until(started + silence.unwrap_or(WRITE_STALL).min(WRITE_STALL));
    tokio::pin!(alarm, withdrawn);
    loop {
        // Before anything asks for room: what comes back in between is not missed.
        let room_freed = buffers.freed();
        let nothing_to_write = transport.is_idle(&client.out);
        // A client that reads nothing is not read either: the answers would have to be kept.
        if client.out.len() < OUT_HIGH_BYTES {
            client.take_packets().await;
        }
        transport.charge(std::mem::take(&mut client.taken));
        if let Some(end) = client.has_ended() {
            return Err(end);
        }
        client.write_deliveries().await;
        client.release_buffers();
        client.read_on();
        if nothing_to_write {
            last_written = Instant::now();
        }
        let room = client.out.len() < OUT_HIGH_BYTES;
        let more = room && client.has_more();
        let listening = room && !more && client.is_taking() && client.may_read();
        transport.read_at_most(client.reads_little());
        tokio::select! {
            moved = transport.progress(listening.then_some(&mut client.inbound), &mut client.out) => {
                let moved = moved?;
                if moved.read == Some(0) {
                    return Err(End::Closed);
                }
                let now = Instant::now();
                if moved.read.is_some() {
                    client.note_read();
                    last_read = now;
                }
                if moved.wrote {
                    last_written = now;
                }
            }
            committed = committed(&mut client.pending), if client.is_committing() => {
                client.acknowledge(committed?);
                // Nothing was read while the commit was awaited: the silence does not count.
                last_read = Instant::now();
            }
            () = released(&mut client.hold), if client.is_held() => {
                client.hold = None;
                // Nothing was read meanwhile: the silence does not count.
                last_read = Instant::now();
            }
            // More packets are here already; other connections get their turn first.
            () = yield_now(), if more => {}
            () = session.queue.ready() => {}
            () = room_freed, if client.waits_for_room() => {}
            page = read(&mut client.page) => client.take_page(page?),
            () = &mut alarm => {
                let now = Instant::now();
                // Nothing is read meanwhile: the silence does not count.
                if transport.is_holding_back() {
                    last_read = now;
                }
                if listening && silence.is_some_and(|limit| now >= last_read + limit) {
                    // Its packet may have arrived in the same moment, or while the whole machine stood still.
                    match transport.read_arrived(&mut client.inbound).await? {
                        None => return Err(End::Silent),
                        Some(0) => return Err(End::Closed),
                        Some(_) => last_read = now,
                    }
                }
                if client.is_overdue() {
                    return Err(End::Quota("buffered bytes, and the rest of a large packet does not come"));
                }
                if !transport.is_idle(&client.out) && now >= last_written + WRITE_STALL {
                    return Err(End::Stalled);
                }
                let next = silence.map_or(now + WRITE_STALL, |limit| (last_read + limit).min(now + WRITE_STALL));
                alarm.as_mut().reset(next.max(now + Duration::from_secs(1)));
            }
            () = &mut withdrawn => return Err(End::Withdrawn),
            _ = &mut *taken_over => return Err(End::TakenOver),
            () = shutdown.requested() => return Err(End::Stopping),
        }
    }
}
