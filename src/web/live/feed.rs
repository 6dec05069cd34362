//! The feed of server-sent events: committed readings and board states, serialised once for all subscribers.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::boards::{BoardState, Boards};
use crate::broker::{Live, LocalClient, LocalMessage};
use crate::clock;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::store::Record;
use crate::wire::BoardTopic;

/// Events that one subscriber may lag behind; its stream ends beyond that.
const LAG_MAX_EVENTS: usize = 256;
/// Most readings in one event.
const READINGS_PER_EVENT: usize = 100;

/// One event as it goes over the wire.
pub type Event = Arc<str>;

/// The events, and the latest state of every board. Clones share both.
#[derive(Debug, Clone)]
pub struct Feed {
    events: broadcast::Sender<Event>,
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
    /// Starts two tasks that follow committed readings and board messages until `shutdown`.
    pub fn start(
        live: broadcast::Receiver<Live>,
        local_client: LocalClient,
        shutdown: Shutdown,
    ) -> Self {
        let (events, _) = broadcast::channel(LAG_MAX_EVENTS);
        let feed = Self { events, boards: Arc::default() };
        let mut until = shutdown.clone();
        let readings = feed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = readings.follow(live) => {}
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
                Err(RecvError::Lagged(_)) => self.send("refresh", &()),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn send_readings(&self, records: &[Record]) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let readings: Vec<CommittedReading> = records
            .iter()
            .filter_map(|record| match record {
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
            })
            .collect();
        for chunk in readings.chunks(READINGS_PER_EVENT) {
            self.send("readings", chunk);
        }
    }

    fn apply(&self, message: &LocalMessage<'_>) {
        let mut boards = self.boards.write().unwrap_or_else(PoisonError::into_inner);
        // The time of a retained message is not known.
        let at = (!message.retained).then(clock::unix_ms);
        let Some(node) = boards.apply(message.topic, message.payload, at) else { return };
        drop(boards);
        let boards = self.boards();
        match boards.get(&node) {
            Some(board) => self.send("board", &NamedBoard::new(&node, board)),
            None => self.send("gone", &serde_json::json!({ "node": node })),
        }
    }

    fn send(&self, name: &str, data: &(impl Serialize + ?Sized)) {
        // An error means that nobody subscribes.
        let _ = self.events.send(event(name, data));
    }
}

/// A server-sent event. JSON contains no line break, so one `data:` line is enough.
pub fn event(name: &str, data: &(impl Serialize + ?Sized)) -> Event {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}
