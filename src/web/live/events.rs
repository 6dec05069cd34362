//! `/api/v1/events`: server-sent events, to a bounded number of watchers. Who is too slow is sent away, and comes
//! back by itself: a browser's `EventSource` does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until, timeout};

use crate::clock;
use crate::shutdown::Shutdown;
use crate::web::Web;
use crate::web::http_error::HttpError;
use crate::web::live::feed::{Event, event};
use crate::web::server::Peer;

/// Event streams at once, all together and of one address.
const STREAMS: usize = 64;
const STREAMS_PER_ADDRESS: usize = 16;
/// A comment goes out after this much silence, so that proxies and browsers see life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A stream ends after this long, so that who may no longer look is asked again.
const STREAM_MAX: Duration = Duration::from_hours(1);
/// When a browser comes back, and when one that found no place may.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_FULL_S: &str = "30";

/// The places at the window.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place; given back when dropped.
#[derive(Debug)]
struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= STREAMS {
            return None;
        }
        let own = taken.entry(address).or_default();
        if *own >= STREAMS_PER_ADDRESS {
            return None;
        }
        *own += 1;
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

struct Watcher {
    first: Option<Event>,
    events: broadcast::Receiver<Event>,
    until: Instant,
    shutdown: Shutdown,
    _place: Place,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(Bytes::copy_from_slice(first.as_bytes()));
        }
        tokio::select! {
            event = timeout(KEEP_ALIVE, self.events.recv()) => match event {
                Ok(Ok(event)) => Some(Bytes::copy_from_slice(event.as_bytes())),
                // Behind by more than is kept, or the broker ends.
                Ok(Err(_)) => None,
                Err(_) => Some(Bytes::from_static(b":\n\n")),
            },
            () = sleep_until(self.until) => None,
            () = self.shutdown.requested() => None,
        }
    }
}

/// The stream.
pub async fn events(State(web): State<Web>, Extension(Peer(peer)): Extension<Peer>) -> Response {
    let Some(place) = web.places.take(peer.ip()) else {
        let full = HttpError::unavailable(
            "too many event streams are open; close one or come again later",
        );
        return ([(RETRY_AFTER, RETRY_FULL_S)], full).into_response();
    };
    let hello = json!({ "run": &*web.run, "now": clock::unix_ms() });
    let first = format!("retry: {}\n{}", RETRY.as_millis(), event("hello", &hello));
    let watcher = Watcher {
        first: Some(first.into()),
        events: web.feed.watch(),
        until: Instant::now() + STREAM_MAX,
        shutdown: web.shutdown.clone(),
        _place: place,
    };
    let stream = futures_util::stream::unfold(watcher, async |mut watcher| {
        let bytes = watcher.next().await?;
        Some((Ok::<_, Infallible>(bytes), watcher))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(stream)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_one_and_for_all_and_given_back() {
        let places = Places::default();
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut held: Vec<_> =
            (0..STREAMS_PER_ADDRESS).map(|_| places.take(address(1)).unwrap()).collect();
        assert!(places.take(address(1)).is_none());
        held.pop();
        held.push(places.take(address(1)).unwrap());
        for n in 2.. {
            let Some(place) = places.take(address(n)) else { break };
            held.push(place);
        }
        assert_eq!(held.len(), STREAMS);
        held.clear();
        assert!(places.0.lock().unwrap().is_empty());
    }
}
