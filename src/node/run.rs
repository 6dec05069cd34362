//! The node from start to end: the operator's log reads like this file.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::info;

use super::config::{NodeConfig, OutputConfig};
use super::delivery::outbox::Outbox;
use super::delivery::session::Session;
use super::delivery::tunnel;
use super::discovery::DiscoveryMessage;
use super::io::inputs;
use super::io::lines::{Lines, LinesError, OpenLines};
use super::io::outputs;
use super::io::switches::Switches;
use super::sampling::sampler::{self, Failures};
use crate::clock::{Stamper, unix_ms};
use crate::reading::Id;
use crate::shutdown::{self, Shutdown};
use crate::store::OpenError;
use crate::wire::Health;

/// Longest silence on the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The files of its TLS are missing or wrong.
    #[error("TLS: {0}")]
    Tls(#[from] crate::tls::TlsError),
    /// The outbox could not be opened.
    #[error(transparent)]
    Outbox(#[from] OpenError),
    /// A line could not be had.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The outbox's file is damaged.
    #[error("the outbox is damaged; at the next start it is moved aside and a new one begun")]
    Damaged,
}

/// A node that samples and delivers.
pub struct Node {
    outbox: Arc<Outbox>,
    running: JoinHandle<Result<(), NodeError>>,
}

impl Node {
    /// Opens the outbox and the lines and runs until `shutdown`.
    ///
    /// # Errors
    /// [`NodeError`] when it cannot start.
    pub fn start(config: NodeConfig, shutdown: Shutdown) -> Result<Self, NodeError> {
        let boot = new_boot();
        let discovery =
            config.discovery.as_ref().map(|prefix| DiscoveryMessage::new(&config, prefix));
        if let Some(files) = &config.tls {
            // What is wrong with them is said now, and not at night when they are needed.
            tunnel::client_config(files)?;
        }
        info!(node = %config.node, %boot, broker = %config.broker, "starting");
        let OpenLines { sensors, inputs, outputs } = Lines::new(
            &config.node,
            &config.board,
            config.backend,
        )
        .open(&config.sensors, &config.inputs, &config.outputs)?;
        let outbox = Arc::new(Outbox::open(&config.data, boot, config.outbox_capacity)?);

        let stamper = Stamper::start(config.clock);
        let failures = Failures::default();
        let (stop, stopped) = mpsc::channel();
        let sampling = {
            let (outbox, failures) = (Arc::clone(&outbox), failures.clone());
            std::thread::Builder::new()
                .name("sampler".to_owned())
                .spawn(move || {
                    sampler::run(
                        sensors,
                        config.interval,
                        &failures,
                        &stopped,
                        |sensor, measurement| {
                            outbox.push(sensor, stamper.now(), measurement);
                        },
                    );
                })
                .map_err(NodeError::Thread)?
        };
        let (switches, from_broker) = Switches::new();
        let switches = Arc::new(switches);
        let keep_alive = keep_alive(&config.outputs);
        let commanded = !outputs.is_empty();
        let (stop_watching, watching_stopped) = mpsc::channel();
        let watching = {
            let switches = Arc::clone(&switches);
            std::thread::Builder::new()
                .name("inputs".to_owned())
                .spawn(move || {
                    if !inputs.is_empty() {
                        inputs::run(inputs, &watching_stopped, &switches);
                    }
                })
                .map_err(NodeError::Thread)?
        };
        let (end_outputs, outputs_end) = shutdown::channel();
        let driving =
            tokio::spawn(outputs::run(outputs, from_broker, Arc::clone(&switches), outputs_end));
        let session = Session {
            node: config.node,
            broker: config.broker,
            password: config.password,
            tls: config.tls,
            outbox: Arc::clone(&outbox),
            switches,
            commanded,
            discovery,
            keep_alive,
            health: health(Arc::clone(&outbox), stamper, failures),
        };
        let watched = Arc::clone(&outbox);
        let running = tokio::spawn(async move {
            let mut requested = shutdown;
            let (end_session, session_end) = shutdown::channel();
            let session = tokio::spawn(async move { session.run(session_end).await });
            let outcome = tokio::select! {
                () = requested.requested() => Ok(()),
                () = watched.damaged() => Err(NodeError::Damaged),
            };
            // Outputs are safe before anything else is waited for.
            end_outputs.throw();
            let driven = driving.await;
            drop((stop, stop_watching));
            let sampled = spawn_blocking(move || sampling.join()).await;
            let looked = spawn_blocking(move || watching.join()).await;
            info!("sampling stopped");
            end_session.throw();
            let delivered = session.await;
            info!("session ended");
            for joined in [sampled, looked] {
                if let Ok(Err(panic)) = joined {
                    std::panic::resume_unwind(panic);
                }
            }
            for ended in [driven, delivered] {
                if let Err(error) = ended {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
            outcome
        });
        Ok(Self { outbox, running })
    }

    /// What waits for the broker.
    #[must_use]
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Waits until the node has ended: after `shutdown`, when sampling has stopped and `offline` was said.
    ///
    /// # Errors
    /// Why it ended before it was asked to.
    pub async fn ended(self) -> Result<(), NodeError> {
        match self.running.await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// Seconds of silence after which the broker is asked whether it is there. An output's limit counts from the
/// last word, so it is asked three times within the shortest limit.
fn keep_alive(outputs: &[OutputConfig]) -> Duration {
    let limits = outputs.iter().map(|output| output.safety.away / 3);
    limits.chain([KEEP_ALIVE]).min().unwrap_or(KEEP_ALIVE).max(Duration::from_secs(1))
}

/// A name for this run that no other run of this node has: the time orders it for a reader, the random
/// part keeps it unique on a board that always wakes up in 1970.
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

fn health(
    outbox: Arc<Outbox>,
    stamper: Stamper,
    failures: Failures,
) -> Box<dyn Fn() -> Health + Send + Sync> {
    Box::new(move || {
        let now = stamper.now();
        Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("HUMIDOR_REVISION").map(str::to_owned),
            boot: outbox.boot().clone(),
            at: now.at_ms,
            clock: now.clock,
            taken: outbox.taken(),
            outbox: outbox.depth(),
            dropped: outbox.dropped(),
            outbox_kind: outbox.kind().as_str().to_owned(),
            failures: failures.snapshot(),
        }
    })
}
