//! The node from its start to its end; the log lines come in the order of this file.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::info;

use super::config::{NodeConfig, OutputConfig};
use super::delivery::outbox::Outbox;
use super::delivery::publishing::Publishing;
use super::delivery::selection::Selection;
use super::delivery::session::Session;
use super::delivery::tunnel;
use super::delivery::vitals::Vitals;
use super::discovery::DiscoveryMessage;
use super::health::NodeHealth;
use super::io::inputs;
use super::io::lines::{Lines, LinesError, OpenLines};
use super::io::outputs;
use super::io::switches::Switches;
use super::sampling::reads::Reads;
use super::sampling::sampler;
use crate::clock::{Stamper, unix_ms};
use crate::reading::Id;
use crate::shutdown::{self, Shutdown, Trigger};
use crate::store::OpenError;
use crate::wire::NodeTopics;

/// Longest silence on the connection before a ping.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Pause between two looks whether the outbox's files are still there.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The reason why the node did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file of its TLS is missing or wrong.
    #[error("TLS")]
    Tls(#[from] crate::tls::TlsError),
    /// The outbox could not be opened.
    #[error(transparent)]
    Outbox(#[from] OpenError),
    /// A line could not be opened.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The outbox's file is damaged.
    #[error("the outbox is damaged: the next start moves it aside and begins a new one")]
    Damaged,
}

/// A node that samples and delivers.
pub struct Node {
    outbox: Arc<Outbox>,
    health: Arc<NodeHealth>,
    running: JoinHandle<Result<(), NodeError>>,
}

impl Node {
    /// Opens the lines and the outbox, and runs until `shutdown`. Returns when everything has started.
    ///
    /// # Errors
    /// [`NodeError`] when it cannot start.
    pub fn start(config: NodeConfig, shutdown: Shutdown) -> Result<Self, NodeError> {
        Self::start_with(config, shutdown, |lines, config| {
            lines.open(&config.sensors, &config.inputs, &config.outputs)
        })
    }

    /// The same, on the lines that `open` returns.
    ///
    /// # Errors
    /// [`NodeError`] when it cannot start.
    pub fn start_with(
        config: NodeConfig,
        shutdown: Shutdown,
        open: impl FnOnce(Lines<'_>, &NodeConfig) -> Result<OpenLines, LinesError>,
    ) -> Result<Self, NodeError> {
        let boot = new_boot();
        info!(node = %config.node, %boot, brokers = %config.brokers, "starting");
        if let Some(files) = &config.tls {
            // A wrong file ends the start, instead of the first connection.
            tunnel::client_config(files)?;
        }
        let lines = Lines::new(&config.node, &config.board, config.backend);
        let OpenLines { sensors, inputs, outputs } = open(lines, &config)?;
        let outbox = Arc::new(Outbox::open(&config.data, boot, config.outbox_capacity)?);
        let stamper = Stamper::start(config.clock);
        let reads = Reads::default();
        let switches = Arc::new(Switches::new(config.outputs.iter().map(|it| it.name.clone())));
        let vitals = Arc::new(Vitals::new());
        let health = Arc::new(NodeHealth {
            outbox: Arc::clone(&outbox),
            stamper,
            reads: reads.clone(),
            switches: Arc::clone(&switches),
            vitals: Arc::clone(&vitals),
        });

        let sampler = {
            let outbox = Arc::clone(&outbox);
            Worker::spawn("sampler", move |stop| {
                let push = |sensor: &Id, measurement| {
                    outbox.push(sensor, stamper.now(), measurement);
                };
                sampler::run(sensors, config.interval, &reads, stop, push);
            })?
        };
        let inputs = {
            let switches = Arc::clone(&switches);
            Worker::spawn("inputs", move |stop| {
                if !inputs.is_empty() {
                    inputs::run(inputs, stop, &switches);
                }
            })?
        };
        let discovery =
            config.discovery.as_ref().map(|prefix| DiscoveryMessage::new(&config, prefix));
        let session = Session {
            publishing: Publishing::new(
                NodeTopics::new(config.node.clone()),
                Arc::clone(&outbox),
                Arc::clone(&switches),
                discovery,
                vitals,
                !outputs.is_empty(),
                config.times,
            ),
            keep_alive: keep_alive(&config.outputs),
            selection: Selection::new(
                config.brokers.in_order_for(&config.node),
                config.times.return_after,
            ),
            node: config.node,
            password: config.password,
            tls: config.tls,
            health: {
                let health = Arc::clone(&health);
                Box::new(move || health.message())
            },
        };
        let outputs = Task::spawn(|end| outputs::run(outputs, switches, end));
        let session = Task::spawn(|end| session.run(end));
        let parts = Parts { sampler, inputs, outputs, session };
        let running = tokio::spawn(parts.run(Arc::clone(&outbox), shutdown));
        Ok(Self { outbox, health, running })
    }

    /// The outbox.
    #[must_use]
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> &Arc<NodeHealth> {
        &self.health
    }

    /// Waits until the node has ended: after `shutdown`, when sampling has stopped and `offline` is published.
    ///
    /// # Errors
    /// [`NodeError`] when it ended by itself.
    pub async fn ended(self) -> Result<(), NodeError> {
        match self.running.await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// The parts of a running node.
struct Parts {
    sampler: Worker,
    inputs: Worker,
    outputs: Task,
    session: Task,
}

impl Parts {
    /// Waits for `shutdown` or a damaged outbox, then ends the parts in the order that loses nothing: the session is
    /// last, so that it delivers the last readings and the outputs' safe states.
    async fn run(self, outbox: Arc<Outbox>, mut shutdown: Shutdown) -> Result<(), NodeError> {
        let outcome = tokio::select! {
            () = shutdown.requested() => Ok(()),
            () = outbox.damaged() => Err(NodeError::Damaged),
            never = look_after_file(&outbox) => match never {},
        };
        // Outputs take their safe level before anything else is waited for.
        self.outputs.end().await;
        let (sampler, inputs) = (self.sampler.stop(), self.inputs.stop());
        join(sampler).await;
        join(inputs).await;
        info!("sampling stopped");
        self.session.end().await;
        info!("session ended");
        outcome
    }
}

/// A thread that works until its channel closes.
struct Worker {
    running: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    fn spawn(
        name: &str,
        work: impl FnOnce(&mpsc::Receiver<()>) + Send + 'static,
    ) -> Result<Self, NodeError> {
        let (running, stop) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&stop));
        Ok(Self { running, thread: thread.map_err(NodeError::Thread)? })
    }

    /// Asks the thread to end.
    fn stop(self) -> thread::JoinHandle<()> {
        drop(self.running);
        self.thread
    }
}

/// Waits for a thread. Its panic is the caller's.
async fn join(thread: thread::JoinHandle<()>) {
    if let Ok(Err(panic)) = spawn_blocking(move || thread.join()).await {
        std::panic::resume_unwind(panic);
    }
}

/// A task that works until its trigger is thrown.
struct Task {
    trigger: Trigger,
    task: JoinHandle<()>,
}

impl Task {
    fn spawn<F: Future<Output = ()> + Send + 'static>(work: impl FnOnce(Shutdown) -> F) -> Self {
        let (trigger, end) = shutdown::channel();
        Self { trigger, task: tokio::spawn(work(end)) }
    }

    /// Ends the task and waits for it. Its panic is the caller's.
    async fn end(self) {
        self.trigger.throw();
        if let Err(error) = self.task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Writes the outbox's files anew when they were deleted.
async fn look_after_file(outbox: &Arc<Outbox>) -> std::convert::Infallible {
    let mut check = tokio::time::interval(FILE_CHECK_INTERVAL);
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        check.tick().await;
        let outbox = Arc::clone(outbox);
        if let Err(error) = spawn_blocking(move || outbox.restore_deleted()).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Keep-alive of the connection. CONNECT carries whole seconds, and rumqttc pings in the same pace. Two pings fit into the
/// shortest limit of an output, which counts from the broker's last packet: one may come late.
fn keep_alive(outputs: &[OutputConfig]) -> Duration {
    let limits = outputs.iter().map(|output| output.safety.away * 2 / 5);
    let shortest = limits.chain([KEEP_ALIVE]).min().unwrap_or(KEEP_ALIVE);
    Duration::from_secs(shortest.as_secs().max(1))
}

/// An id for this run that no other run of this node has. The time orders runs for a reader; the random part keeps the
/// id unique on a board whose clock always starts in 1970.
fn new_boot() -> Id {
    let mut random = [0; 8];
    // Linux's generator does not fail once it is seeded, and a call waits until it is. A generator seeded
    // from the time would repeat itself on boards without a clock.
    if getrandom::fill(&mut random).is_err() {
        random = fastrand::u64(..).to_be_bytes();
    }
    format!("{:x}-{:016x}", unix_ms().unsigned_abs() / 1000, u64::from_be_bytes(random))
        .parse()
        .expect("hexadecimal digits and a dash are an id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::config::example;

    #[test]
    fn the_keep_alive_is_whole_seconds_and_leaves_room_for_a_late_ping() {
        for away_ms in (3_000..200_000).step_by(500) {
            let mut outputs = example(1, 8).outputs;
            outputs[0].safety.away = Duration::from_millis(away_ms);
            let keep_alive = keep_alive(&outputs);
            assert_eq!(keep_alive.subsec_nanos(), 0, "CONNECT has no fractions");
            assert!(keep_alive >= Duration::from_secs(1) && keep_alive <= KEEP_ALIVE);
            assert!(keep_alive * 2 < outputs[0].safety.away, "{away_ms}: {keep_alive:?}");
        }
        assert_eq!(keep_alive(&[]), KEEP_ALIVE);
    }
}
