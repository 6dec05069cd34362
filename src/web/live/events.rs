//! `/api/v1/events`: server-sent events for a bounded number of subscribers. The broker ends the stream of a
//! subscriber that lags behind; a browser's `EventSource` reconnects.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::HeaderName;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};

use super::feed::{Event, Feed, event};
use crate::broker::origin;
use crate::clock;
use crate::shutdown::Shutdown;
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;
use crate::web::server::Peer;

/// Event streams at once.
const STREAMS_MAX: usize = 64;
/// Event streams of one address at once.
const STREAMS_PER_ADDRESS_MAX: usize = 16;
/// Event streams of one user at once: a wall of pages for a hall that has one login.
const STREAMS_PER_USER_MAX: usize = 32;
/// Event streams of all guests at once: some stay for who logs in.
const STREAMS_OF_GUESTS_MAX: usize = 48;
/// Silence after which a comment is sent, so that proxies and browsers keep the stream open.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Longest life of a stream. The browser reconnects, and the broker checks its permission again.
const STREAM_LIFETIME: Duration = Duration::from_hours(1);
/// Delay after which a browser reconnects.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);
/// `Retry-After` when all streams are in use, in seconds.
const RETRY_AFTER_FULL_S: &str = "30";

/// Counts the open streams: in total, by address, by user and of all guests.
#[derive(Debug, Clone, Default)]
struct StreamLimit(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    /// By the address that counts: see [`origin`].
    of_address: HashMap<IpAddr, usize>,
    /// `None`: the guests.
    of_user: HashMap<Option<Arc<str>>, usize>,
}

/// The right to one open stream; released when dropped.
#[derive(Debug)]
struct StreamPermit {
    limit: StreamLimit,
    address: IpAddr,
    user: Option<Arc<str>>,
}

impl StreamLimit {
    fn acquire(&self, from: IpAddr, user: Option<Arc<str>>) -> Option<StreamPermit> {
        let address = origin(from);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = open.of_address.get(&address).copied().unwrap_or_default();
        let of_user = open.of_user.get(&user).copied().unwrap_or_default();
        let most = if user.is_some() { STREAMS_PER_USER_MAX } else { STREAMS_OF_GUESTS_MAX };
        if open.of_address.values().sum::<usize>() >= STREAMS_MAX
            || of_address >= STREAMS_PER_ADDRESS_MAX
            || of_user >= most
        {
            return None;
        }
        *open.of_address.entry(address).or_default() += 1;
        *open.of_user.entry(user.clone()).or_default() += 1;
        Some(StreamPermit { limit: self.clone(), address, user })
    }
}

/// One less for `key`, which goes with its last.
fn release<K: Eq + Hash>(open: &mut HashMap<K, usize>, key: &K) {
    if let Some(own) = open.get_mut(key) {
        *own -= 1;
        if *own == 0 {
            open.remove(key);
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.limit.0.lock().unwrap_or_else(PoisonError::into_inner);
        release(&mut open.of_address, &self.address);
        release(&mut open.of_user, &self.user);
    }
}

struct EventStream {
    first: Option<Arc<str>>,
    events: broadcast::Receiver<Event>,
    identity: Identity,
    until: Instant,
    shutdown: Shutdown,
    _permit: StreamPermit,
}

impl EventStream {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(Bytes::copy_from_slice(first.as_bytes()));
        }
        let identity = self.identity.clone();
        let withdrawn = identity.withdrawn();
        tokio::pin!(withdrawn);
        let quiet = Instant::now() + KEEP_ALIVE_INTERVAL;
        loop {
            let event = tokio::select! {
                // No event after the permission to see it has ended.
                biased;
                () = &mut withdrawn => return None,
                () = self.shutdown.requested() => return None,
                () = sleep_until(self.until) => return None,
                () = sleep_until(quiet) => return Some(Bytes::from_static(b":\n\n")),
                event = self.events.recv() => event,
            };
            // The subscriber lags too far behind, or the broker stops.
            if let Some(text) = event.ok()?.text_for(&identity) {
                return Some(Bytes::copy_from_slice(text.as_bytes()));
            }
        }
    }
}

#[derive(Clone)]
struct EventsState {
    run: Arc<str>,
    feed: Feed,
    limit: StreamLimit,
    shutdown: Shutdown,
}

/// The route of the event stream. `run` identifies this run of the broker; streams end at `shutdown`.
pub fn routes(run: Arc<str>, feed: Feed, shutdown: Shutdown) -> Router {
    let state = EventsState { run, feed, limit: StreamLimit::default(), shutdown };
    Router::new().route("/api/v1/events", get(events)).with_state(state)
}

async fn events(
    State(state): State<EventsState>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(identity): Extension<Identity>,
) -> Response {
    let Some(permit) = state.limit.acquire(peer.ip(), identity.user.clone()) else {
        let full = HttpError::unavailable(
            "too many event streams are open; close another page or try again later",
        );
        return ([(RETRY_AFTER, RETRY_AFTER_FULL_S)], full).into_response();
    };
    let hello = json!({ "run": &*state.run, "now": clock::unix_ms() });
    let first = format!("retry: {}\n{}", RECONNECT_DELAY.as_millis(), event("hello", &hello));
    let events = EventStream {
        first: Some(first.into()),
        events: state.feed.subscribe(),
        identity,
        until: Instant::now() + STREAM_LIFETIME,
        shutdown: state.shutdown,
        _permit: permit,
    };
    let body = futures_util::stream::unfold(events, async |mut events| {
        let bytes = events.next().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        // nginx would otherwise collect events until its buffer is full.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_per_address_and_in_total_and_released_on_drop() {
        let limit = StreamLimit::default();
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut held: Vec<_> = (0..STREAMS_PER_ADDRESS_MAX)
            .map(|_| limit.acquire(address(1), None).unwrap())
            .collect();
        assert!(limit.acquire(address(1), None).is_none());
        held.pop();
        held.push(limit.acquire(address(1), None).unwrap());
        for n in 2.. {
            let Some(permit) = limit.acquire(address(n), None) else { break };
            held.push(permit);
        }
        assert_eq!(held.len(), STREAMS_OF_GUESTS_MAX);
        for n in 11.. {
            let Some(permit) = limit.acquire(address(n), Some("press".into())) else { break };
            held.push(permit);
        }
        assert_eq!(held.len(), STREAMS_MAX, "who logs in finds room beside the guests");
        held.clear();
        let open = limit.0.lock().unwrap();
        assert!(open.of_address.is_empty() && open.of_user.is_empty());
    }

    #[test]
    fn all_addresses_of_a_site_are_one() {
        let limit = StreamLimit::default();
        let from = |text: String| text.parse().unwrap();
        let take = |text| limit.acquire(from(text), None);
        let held: Vec<_> = (0..64).filter_map(|n| take(format!("2001:db8::{n:x}:1"))).collect();
        assert_eq!(held.len(), STREAMS_PER_ADDRESS_MAX);
        assert!(take("2001:db8:0:1::1".to_owned()).is_some());
    }

    #[test]
    fn one_user_leaves_streams_to_the_others() {
        let limit = StreamLimit::default();
        let user: Arc<str> = "press".into();
        let from = |n: usize| IpAddr::from([127, 0, 0, u8::try_from(n / 16).unwrap()]);
        let held: Vec<_> = (0..STREAMS_PER_USER_MAX)
            .map(|n| limit.acquire(from(n), Some(Arc::clone(&user))).unwrap())
            .collect();
        let other = || limit.acquire(from(64), Some("oven".into()));
        assert!(limit.acquire(from(64), Some(Arc::clone(&user))).is_none());
        assert!(other().is_some());
        drop(held);
        assert!(limit.acquire(from(64), Some(user)).is_some());
    }
}
