//! Packets that have arrived when the broker ends a connection: they are taken before it is given up, up to the client's
//! DISCONNECT, after which no will is published ([MQTT-3.14.4-3]).

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::client::{Client, committed};
use super::close::End;
use crate::broker::net::transport::{Stream, Transport};

/// Longest time for all of it. The next connection of the client id waits somewhat longer.
const TAKE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for one commit while the store cannot commit.
const BLOCKED_MAX: Duration = Duration::from_millis(500);
/// Bytes that are read before the packets in them are taken.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes that can have arrived at most: more than a socket's buffer holds (`tcp_rmem`). What is read beyond came later.
const ARRIVED_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Takes the packets that have arrived without waiting for more. Returns why the connection ends: `end`, unless its
/// client gave a reason before. Where the packets may not be taken any more, or the store does not commit them in time,
/// only a DISCONNECT among them counts.
pub async fn take_arrived<S: Stream>(
    transport: &mut Transport<S>,
    client: &mut Client<'_>,
    end: End,
) -> End {
    if !matches!(end, End::Withdrawn | End::Stopping) {
        let give_up = Instant::now() + TAKE_MAX;
        match take(transport, client, give_up).await {
            Ok(true) => return end,
            Ok(false) => {}
            Err(earlier) => return earlier,
        }
    }
    look_for_disconnect(transport, client).await.unwrap_or(end)
}

/// Returns whether everything was taken.
async fn take<S: Stream>(
    transport: &mut Transport<S>,
    client: &mut Client<'_>,
    give_up: Instant,
) -> Result<bool, End> {
    let (mut open, mut arrived) = (true, 0);
    loop {
        if client.is_committing() {
            let deadline = give_up.min(Instant::now() + BLOCKED_MAX);
            match timeout_at(deadline, committed(&mut client.pending)).await {
                Ok(committed) => client.acknowledge(committed?),
                Err(_) if client.is_store_blocked() || Instant::now() >= give_up => {
                    return Ok(false);
                }
                // It is slow, and goes on.
                Err(_) => continue,
            }
        }
        // There is no next packet whose reading would be held back.
        client.hold = None;
        if let Some(end) = client.has_ended() {
            return Err(end);
        }
        let before = client.inbound.len();
        let more = open && arrived <= ARRIVED_MAX_BYTES;
        let read = more && read_chunk(transport, client, &mut open).await;
        arrived += client.inbound.len() - before;
        let bytes = client.inbound.len();
        if timeout_at(give_up, client.take_packets()).await.is_err() {
            return Ok(false);
        }
        let taken = client.inbound.len() < bytes;
        if !read && !taken && !client.is_committing() {
            return Ok(true);
        }
        if Instant::now() >= give_up {
            return Ok(false);
        }
    }
}

/// Reads what has arrived, up to [`CHUNK_BYTES`]; returns whether there was anything. `open` becomes false at the end.
async fn read_chunk<S: Stream>(
    transport: &mut Transport<S>,
    client: &mut Client<'_>,
    open: &mut bool,
) -> bool {
    let before = client.inbound.len();
    while *open && client.inbound.len() < CHUNK_BYTES {
        match transport.read_arrived(&mut client.inbound).await {
            Ok(None) => break,
            Ok(Some(0)) | Err(_) => *open = false,
            Ok(Some(_)) => {}
        }
    }
    client.inbound.len() > before
}

/// Finds a DISCONNECT among the packets that have arrived, and drops the packets before it.
async fn look_for_disconnect<S: Stream>(
    transport: &mut Transport<S>,
    client: &mut Client<'_>,
) -> Option<End> {
    let (mut open, mut looked) = (true, 0);
    loop {
        match client.skip_to_disconnect() {
            Ok(None) => {}
            Ok(found) => return found,
            // Nothing behind a malformed packet counts.
            Err(_) => return None,
        }
        let before = client.inbound.len();
        if looked > ARRIVED_MAX_BYTES || !read_chunk(transport, client, &mut open).await {
            return None;
        }
        looked += client.inbound.len() - before;
    }
}
