//! What happens, made into server-sent events once, however many watch: committed readings, and what boards
//! say of themselves.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::broker::{Heard, Insider, Live};
use crate::clock;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::store::Record;
use crate::web::live::boards::{Board, Boards};
use crate::wire::BoardTopic;

/// Events that one watcher may be behind before it is sent away.
const BEHIND_EVENTS: usize = 256;
/// Readings in one event.
const READINGS_PER_EVENT: usize = 100;

/// One event as it goes over the wire.
pub type Event = Arc<str>;

/// The events, and what the boards last said.
#[derive(Debug, Clone)]
pub struct Feed {
    events: broadcast::Sender<Event>,
    boards: Arc<RwLock<Boards>>,
}

/// A committed reading, as the API shows one.
#[derive(Debug, Serialize)]
struct Committed<'a> {
    node: &'a str,
    sensor: &'a str,
    boot: &'a str,
    seq: u64,
    at: i64,
    clock: &'static str,
    temperature: Option<f64>,
    humidity: Option<f64>,
}

/// A board under its name.
#[derive(Debug, Serialize)]
pub struct Named<'a> {
    node: &'a str,
    #[serde(flatten)]
    board: &'a Board,
}

impl<'a> Named<'a> {
    /// `board` under the id of its node.
    pub fn new(node: &'a Id, board: &'a Board) -> Self {
        Self { node: node.as_str(), board }
    }
}

impl Feed {
    /// Follows committed readings and what the boards say, until `shutdown`.
    pub fn start(live: broadcast::Receiver<Live>, insider: Insider, shutdown: Shutdown) -> Self {
        let (events, _) = broadcast::channel(BEHIND_EVENTS);
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
            let heard = insider.hear(&filters, |heard| boards.heard(&heard));
            tokio::select! {
                _ = heard => {}
                () = until.requested() => {}
            }
        });
        feed
    }

    /// Events from now on.
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.events.receiver_count()
    }

    /// What the boards last said.
    pub fn boards(&self) -> RwLockReadGuard<'_, Boards> {
        self.boards.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(&self, mut live: broadcast::Receiver<Live>) {
        loop {
            match live.recv().await {
                Ok(committed) => self.committed(&committed),
                // Who watches asks for the latest again.
                Err(RecvError::Lagged(_)) => self.tell("refresh", &()),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn committed(&self, records: &[Record]) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let readings: Vec<Committed> = records
            .iter()
            .filter_map(|record| match record {
                Record::Reading { node, sensor, telemetry } => Some(Committed {
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
        for some in readings.chunks(READINGS_PER_EVENT) {
            self.tell("readings", some);
        }
    }

    fn heard(&self, heard: &Heard<'_>) {
        let mut boards = self.boards.write().unwrap_or_else(PoisonError::into_inner);
        // Nobody knows when a retained word was said.
        let at = (!heard.retained).then(clock::unix_ms);
        let Some(node) = boards.hear(heard.topic, heard.payload, at) else { return };
        drop(boards);
        let boards = self.boards();
        match boards.get(&node) {
            Some(board) => self.tell("board", &Named::new(&node, board)),
            None => self.tell("gone", &serde_json::json!({ "node": node })),
        }
    }

    fn tell(&self, name: &str, data: &(impl Serialize + ?Sized)) {
        // Nobody may be watching.
        let _ = self.events.send(event(name, data));
    }
}

/// An event of server-sent events. JSON has no line break in it, so one `data:` line is enough.
pub fn event(name: &str, data: &(impl Serialize + ?Sized)) -> Event {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}
