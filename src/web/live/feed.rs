//! The feed of server-sent events: committed readings and samples, and board states, serialised once for all subscribers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::boards::{BoardState, Boards};
use super::visible::visible;
use crate::broker::{Live, LocalClient, LocalMessage};
use crate::clock;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::store::Record;
use crate::web::auth::Identity;
use crate::wire::BoardTopic;

/// Events that one subscriber may lag behind, and the memory of all that any has not read; its stream ends beyond that.
const LAG_MAX_EVENTS: usize = 256;
const LAG_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of memory for each byte of an event's text: of a board's state there are two copies in small pieces.
const BYTES_PER_TEXT_BYTE: usize = 8;
/// Most readings in one event.
const READINGS_PER_EVENT: usize = 100;

/// One event. Clones share it.
#[derive(Debug, Clone)]
pub struct Event {
    /// As it goes over the wire to a subscriber that may read everything.
    text: Arc<str>,
    content: Content,
}

/// What an event tells, for subscribers that may read a part of it.
#[derive(Debug, Clone)]
enum Content {
    /// Not sent: it only takes the place of one that is.
    Skipped,
    /// Nothing of a board.
    None,
    /// These of the committed records.
    Readings(Live, Range<usize>),
    /// The samples of other publishers among these, which came at that time, Unix ms UTC.
    Samples(Live, Range<usize>, i64),
    /// A board, before and after a change.
    Board(Arc<(Id, BoardState, BoardState)>),
}

impl Event {
    /// The event as it goes over the wire to `identity`; `None` when it may see nothing of it.
    pub fn text_for(&self, identity: &Identity) -> Option<Arc<str>> {
        let reads_it = match &self.content {
            Content::Skipped => return None,
            Content::Samples(..) => identity.may_read_foreign_topics(),
            _ => identity.reads_all(),
        };
        if reads_it {
            return Some(Arc::clone(&self.text));
        }
        match &self.content {
            Content::Skipped => None,
            Content::None => Some(Arc::clone(&self.text)),
            Content::Readings(records, range) => {
                let mut readings = committed_readings(&records[range.clone()]);
                readings.retain(|reading| identity.may_read_sensor(reading.node, reading.sensor));
                (!readings.is_empty()).then(|| event("readings", &readings))
            }
            Content::Samples(records, range, at) => {
                let mut samples = committed_samples(&records[range.clone()], *at);
                samples.retain(|sample| identity.may_read_foreign(sample.topic));
                (!samples.is_empty()).then(|| event("samples", &samples))
            }
            Content::Board(change) => {
                let (node, before, after) = &**change;
                let before = visible(node, before, identity);
                match visible(node, after, identity) {
                    Some(after) if before.as_ref() == Some(&after) => None,
                    Some(after) => Some(event("board", &NamedBoard::new(node, &after))),
                    None => before.map(|_| gone(node)),
                }
            }
        }
    }
}

/// The events, and the latest state of every board. Clones share both.
#[derive(Debug, Clone)]
pub struct Feed {
    events: broadcast::Sender<Event>,
    /// The latest events, as far as a subscriber has not read them.
    unread: Arc<Mutex<VecDeque<Weak<str>>>>,
    boards: Arc<RwLock<Boards>>,
}

/// A committed reading, in the form of the API.
#[derive(Debug, Serialize)]
struct CommittedReading<'a> {
    node: &'a str,
    sensor: &'a str,
    boot: &'a str,
    seq: u64,
    at: i64,
    clock: &'static str,
    temperature: Option<f64>,
    humidity: Option<f64>,
}

/// A committed sample, in the form of the API.
#[derive(Debug, Serialize)]
struct CommittedSample<'a> {
    topic: &'a str,
    field: &'a str,
    at: i64,
    value: f64,
}

/// A board state with its node id, in the form of the API.
#[derive(Debug, Serialize)]
pub struct NamedBoard<'a> {
    node: &'a str,
    #[serde(flatten)]
    board: &'a BoardState,
}

impl<'a> NamedBoard<'a> {
    /// `board` with the id of its node.
    pub fn new(node: &'a Id, board: &'a BoardState) -> Self {
        Self { node: node.as_str(), board }
    }
}

impl Feed {
    /// Starts the tasks that follow committed readings, board messages and the removal of boards until `shutdown`.
    pub fn start(
        live: broadcast::Receiver<Live>,
        local_client: LocalClient,
        shutdown: Shutdown,
    ) -> Self {
        let (events, _) = broadcast::channel(LAG_MAX_EVENTS);
        let feed = Self { events, unread: Arc::default(), boards: Arc::default() };
        let mut until = shutdown.clone();
        let readings = feed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = readings.follow(live) => {}
                () = until.requested() => {}
            }
        });
        let (forgotten, mut until) = (feed.clone(), shutdown.clone());
        let client = local_client.clone();
        tokio::spawn(async move {
            let refresh = || forgotten.send(event("refresh", &()), Content::None);
            tokio::select! {
                () = client.follow_forgotten(refresh) => {}
                () = until.requested() => {}
            }
        });
        let (boards, mut until) = (feed.clone(), shutdown);
        tokio::spawn(async move {
            let filters = BoardTopic::filters();
            let subscription = local_client.follow(&filters, |message| boards.apply(&message));
            tokio::select! {
                _ = subscription => {}
                () = until.requested() => {}
            }
        });
        feed
    }

    /// Subscribes to events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.events.receiver_count()
    }

    /// The latest state of every board.
    pub fn boards(&self) -> RwLockReadGuard<'_, Boards> {
        self.boards.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(&self, mut live: broadcast::Receiver<Live>) {
        loop {
            match live.recv().await {
                Ok(records) => self.send_readings(&records),
                // Readings were skipped: the page asks for the latest ones again.
                Err(RecvError::Lagged(_)) => self.send(event("refresh", &()), Content::None),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn send_readings(&self, records: &Live) {
        if self.events.receiver_count() == 0 {
            return;
        }
        for from in (0..records.len()).step_by(READINGS_PER_EVENT) {
            let range = from..records.len().min(from + READINGS_PER_EVENT);
            let readings = committed_readings(&records[range.clone()]);
            if !readings.is_empty() {
                let content = Content::Readings(Arc::clone(records), range);
                self.send(event("readings", &readings), content);
            }
            let (range, at) =
                (from..records.len().min(from + READINGS_PER_EVENT), clock::unix_ms());
            let samples = committed_samples(&records[range.clone()], at);
            if !samples.is_empty() {
                let content = Content::Samples(Arc::clone(records), range, at);
                self.send(event("samples", &samples), content);
            }
        }
    }

    fn apply(&self, message: &LocalMessage<'_>) {
        let mut boards = self.boards.write().unwrap_or_else(PoisonError::into_inner);
        // The time of a retained message is not known.
        let at = (!message.retained).then(clock::unix_ms);
        let Some((node, before)) = boards.apply(message.topic, message.payload, at) else { return };
        drop(boards);
        let after = self.boards().get(&node).cloned().unwrap_or_default();
        let text = if after == BoardState::default() {
            gone(&node)
        } else {
            event("board", &NamedBoard::new(&node, &after))
        };
        self.send(text, Content::Board(Arc::new((node, before, after))));
    }

    fn send(&self, text: Arc<str>, content: Content) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.retain(|text| text.strong_count() > 0);
        unread.push_back(Arc::downgrade(&text));
        let texts = unread.iter().filter_map(Weak::upgrade).map(|text| text.len());
        if texts.sum::<usize>() * BYTES_PER_TEXT_BYTE > LAG_MAX_BYTES {
            // With this one they take the places of all others. Who has read those misses nothing, and others' streams end.
            for _ in 1..LAG_MAX_EVENTS {
                let _ = self.events.send(Event { text: "".into(), content: Content::Skipped });
            }
        }
        let _ = self.events.send(Event { text, content });
    }
}

/// The readings among `records`, in the form of the API.
fn committed_readings(records: &[Record]) -> Vec<CommittedReading<'_>> {
    let readings = records.iter().filter_map(|record| match record {
        Record::Reading { node, sensor, telemetry } => Some(CommittedReading {
            node: node.as_str(),
            sensor: sensor.as_str(),
            boot: telemetry.boot.as_str(),
            seq: telemetry.seq,
            at: telemetry.at,
            clock: telemetry.clock.as_str(),
            temperature: telemetry.temperature,
            humidity: telemetry.humidity,
        }),
        _ => None,
    });
    readings.collect()
}

/// The samples of other publishers among `records`, as of `at`: their own stamps are in log time.
fn committed_samples(records: &[Record], at: i64) -> Vec<CommittedSample<'_>> {
    let numbers = records.iter().filter_map(|record| match record {
        Record::Foreign { topic, numbers, .. } => Some((topic, &numbers.found)),
        _ => None,
    });
    numbers
        .flat_map(|(topic, found)| {
            found.iter().map(move |(field, value)| CommittedSample {
                topic,
                field,
                at,
                value: *value,
            })
        })
        .collect()
}

/// The event of a board of which nothing is left.
fn gone(node: &Id) -> Arc<str> {
    event("gone", &serde_json::json!({ "node": node }))
}

/// A server-sent event. JSON contains no line break, so one `data:` line is enough.
pub fn event(name: &str, data: &(impl Serialize + ?Sized)) -> Arc<str> {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_are_not_read_hold_a_bounded_memory_and_others_miss_nothing() {
        let (events, mut reads) = broadcast::channel(LAG_MAX_EVENTS);
        let feed = Feed { events, unread: Arc::default(), boards: Arc::default() };
        let mut lags = feed.subscribe();
        let text: String = "x".repeat(16 * 1024);
        for n in 0..1_000 {
            feed.send(format!("{n} {text}").into(), Content::None);
            let next = std::iter::from_fn(|| reads.try_recv().ok())
                .find(|event| !matches!(event.content, Content::Skipped));
            assert!(next.is_some_and(|event| event.text.starts_with(&format!("{n} "))));
            let unread = feed.unread.lock().unwrap();
            let held: usize = unread.iter().filter_map(Weak::upgrade).map(|it| it.len()).sum();
            assert!(held * BYTES_PER_TEXT_BYTE <= LAG_MAX_BYTES + 2 * 8 * 17 * 1024, "{held}");
        }
        assert!(matches!(lags.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    }
}
