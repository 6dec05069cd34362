//! Holes in a board's numbers, whose readings may have gone to another hall: PostgreSQL is asked before they count.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use crate::store::Gap;
use crate::upstream::{self, Target};

/// Holes that wait for an answer. Beyond it a hole counts without one.
const HOLES_MAX: usize = 256;
/// Time until PostgreSQL is asked again when it does not answer.
const AGAIN: Duration = Duration::from_secs(15);
/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A hole that one alarm has seen.
#[derive(Debug, Clone)]
pub struct Hole {
    /// The alarm's index.
    pub alarm: usize,
    /// What is missing.
    pub gap: Gap,
    /// When to ask: other halls forward meanwhile.
    pub ask_at: Instant,
}

/// Asks PostgreSQL, on a task of its own that ends when this is dropped.
pub struct Halls {
    ask: Sender<Hole>,
    missing: Receiver<Hole>,
    _task: JoinSet<()>,
}

impl Halls {
    /// Asks the database at `target`.
    #[must_use]
    pub fn start(target: Target) -> Self {
        let (ask, asked) = mpsc::channel(HOLES_MAX);
        let (found, missing) = mpsc::channel(HOLES_MAX);
        let mut task = JoinSet::new();
        task.spawn(run(target, asked, found));
        Self { ask, missing, _task: task }
    }

    /// Asks for a hole in its time; returns it when too many wait.
    pub fn ask(&self, hole: Hole) -> Option<Hole> {
        self.ask.try_send(hole).err().map(TrySendError::into_inner)
    }

    /// The next hole that no hall has filled.
    pub async fn missing(&mut self) -> Hole {
        match self.missing.recv().await {
            Some(hole) => hole,
            None => std::future::pending().await,
        }
    }
}

async fn run(target: Target, mut asked: Receiver<Hole>, found: Sender<Hole>) {
    let mut waiting: Vec<Hole> = Vec::new();
    loop {
        let next = waiting.iter().map(|hole| hole.ask_at).min();
        let time = async {
            match next {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            hole = asked.recv(), if waiting.len() < HOLES_MAX => match hole {
                Some(hole) => waiting.push(hole),
                None => return,
            },
            () = time => {
                let now = Instant::now();
                let (due, later) = waiting.into_iter().partition(|hole| hole.ask_at <= now);
                waiting = later;
                for hole in settle(&target, due, &mut waiting).await {
                    if found.send(hole).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// What is still missing of each of `due`; all of them join those that wait when there is no answer.
async fn settle(target: &Target, due: Vec<Hole>, waiting: &mut Vec<Hole>) -> Vec<Hole> {
    let gaps: Vec<Gap> = due.iter().map(|hole| hole.gap.clone()).collect();
    let error = match timeout(ANSWER_LIMIT, upstream::gaps(target.clone(), &gaps)).await {
        Ok(Ok(left)) => return remains(due, &left),
        Ok(Err(fault)) => fault.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    // The forwarder tells why.
    debug!(error, holes = due.len(), "PostgreSQL cannot be asked what other halls have");
    let ask_at = Instant::now() + AGAIN;
    waiting.extend(due.into_iter().map(|hole| Hole { ask_at, ..hole }));
    Vec::new()
}

/// The holes of which some is `left`, one for each part.
fn remains(due: Vec<Hole>, left: &[Gap]) -> Vec<Hole> {
    let parts = due.into_iter().flat_map(|hole| {
        let within = left.iter().filter(|gap| {
            gap.node == hole.gap.node
                && gap.boot == hole.gap.boot
                && gap.from >= hole.gap.from
                && gap.to <= hole.gap.to
        });
        within.map(|gap| Hole { gap: gap.clone(), ..hole.clone() }).collect::<Vec<_>>()
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alarm_gets_what_is_left_of_its_own_holes() {
        let gap =
            |node: &str, from, to| Gap { node: node.to_owned(), boot: "b".to_owned(), from, to };
        let hole = |alarm, gap| Hole { alarm, gap, ask_at: Instant::now() };
        let due = vec![
            hole(0, gap("press", 3, 9)),
            hole(1, gap("press", 3, 9)),
            hole(2, gap("oven", 3, 9)),
            hole(0, gap("press", 20, 20)),
        ];
        let left = [gap("press", 4, 5), gap("press", 8, 9), gap("oven", 20, 20)];
        let found: Vec<_> =
            remains(due, &left).into_iter().map(|hole| (hole.alarm, hole.gap.from)).collect();
        assert_eq!(found, [(0, 4), (0, 8), (1, 4), (1, 8)]);
    }
}
