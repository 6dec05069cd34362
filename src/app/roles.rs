//! `humidor node` and `humidor broker`: a role until a signal.

use std::io::{self, Write};

use tracing::info;

use super::failure::Failure;
use super::server::Server;
use super::{block_on, print, start_log, start_role_log, supervisor};
use crate::broker::{BrokerError, Counters, Stage};
use crate::config::{self, Layers};
use crate::exit::Code;
use crate::health::{self, Answer, State};
use crate::node::{Forget, Forgotten, Node, NodeHealth};
use crate::shutdown::{self, Signals, Trigger};
use crate::upstream::UpstreamStatus;

/// Runs the board's role.
pub fn node(layers: Layers) -> Result<(), Failure> {
    start_role_log(&layers);
    let config = config::node(layers)?;
    block_on(async {
        let signals = signals()?;
        let (trigger, shutdown) = shutdown::channel();
        let health_name = health::name("node", config.node.as_str());
        let node = Node::start(config, shutdown.clone())?;
        let health = std::sync::Arc::clone(node.health());
        tokio::spawn(health::serve(health_name, move || node_health(&health), shutdown));
        supervisor::keep_alive();
        supervisor::ready();
        until_signalled(node.ended(), signals, &trigger).await?;
        info!("stopped");
        Ok(())
    })
}

/// Deletes a node's retained messages on its brokers, and prints their topics.
pub fn forget(layers: Layers) -> Result<(), Failure> {
    start_log(&layers.logging().quiet());
    let brokers = config::forget(layers)?;
    block_on(async {
        // One that is away keeps no other one's messages.
        let mut failed = None;
        for forget in brokers {
            match forget.run().await {
                Ok(done) => print_forgotten(&forget, &done)?,
                Err(error) => {
                    let before = failed.replace(Failure::new(Code::Unavailable, error));
                    before.iter().try_for_each(|before| writeln!(io::stderr(), "{before}"))?;
                }
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

fn print_forgotten(forget: &Forget, done: &Forgotten) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for topic in &done.topics {
        writeln!(out, "deleted {topic}")?;
    }
    if done.topics.is_empty() {
        writeln!(out, "{} has no retained messages of `{}`", forget.broker, forget.node)?;
    }
    if done.online {
        writeln!(
            out,
            "its last status was `online`: a node that still runs publishes them again when it connects; stop it and run this command again"
        )?;
    }
    if done.more {
        writeln!(out, "more messages remain: run this command again")?;
    }
    Ok(())
}

fn node_health(health: &NodeHealth) -> Answer {
    let (state, detail) = health.assess();
    Answer { role: "node".to_owned(), state, detail }
}

/// Runs the broker's role.
pub fn broker(print: bool, layers: Layers) -> Result<(), Failure> {
    start_role_log(&layers);
    let config = config::broker(layers)?;
    block_on(async {
        let mut signals = signals()?;
        let (trigger, shutdown) = shutdown::channel();
        let listening = Server::listen(config, shutdown.clone()).await?;
        let health_name = health::name("broker", &listening.address().port().to_string());
        let counters = listening.counters();
        tokio::spawn(health::serve(health_name, move || broker_health(&counters), shutdown));
        supervisor::keep_alive();
        let opening = listening.open();
        tokio::pin!(opening);
        let (server, stopping) = tokio::select! {
            server = &mut opening => (server, false),
            () = signals.received() => {
                info!("stopping");
                supervisor::stopping();
                trigger.throw();
                (opening.await, true)
            }
        };
        let server = match server {
            Err(BrokerError::Stopped) => {
                info!("stopped before the log was open");
                return Ok(());
            }
            server => server?,
        };
        supervisor::ready();
        if print {
            let live = server.broker.live();
            std::thread::spawn(move || print::follow(live));
        }
        if stopping {
            server.ended().await?;
        } else {
            until_signalled(server.ended(), signals, &trigger).await?;
        }
        info!("stopped");
        Ok(())
    })
}

fn broker_health(counters: &Counters) -> Answer {
    let (recorded, commits) = counters.totals();
    let work = format!(
        "{} readings, {} repeats, {} samples, {} refused in {commits} commits",
        recorded.readings, recorded.repeats, recorded.samples, recorded.refused
    );
    let work = match counters.upstream().map(|forwarding| forwarding.status()) {
        None => work,
        Some(status) => format!("{work}; PostgreSQL: {}", upstream_state(&status)),
    };
    let (state, detail) = match (counters.blocked(), counters.disk_errors()) {
        (Some(cause), _) => (State::Unhealthy, format!("cannot commit: {cause}")),
        (None, (1.., Some(latest))) => (
            State::Degraded,
            format!(
                "disk error: {latest}; since then the log was written to the disk anew. Look at `dmesg`, and replace the card or disk; {work}"
            ),
        ),
        (None, _) if counters.awaited().is_some() => (
            State::Degraded,
            format!(
                "nothing is acknowledged, since PostgreSQL is awaited (HUMIDOR_ACK=upstream): {}; {work}",
                counters.awaited().unwrap_or_default()
            ),
        ),
        (None, _) => match counters.stage() {
            Stage::Opening => (State::Starting, "opening and checking the log".to_owned()),
            Stage::Checking => (State::Healthy, format!("checking the log; {work}")),
            Stage::Checked => (State::Healthy, work),
        },
    };
    Answer { role: "broker".to_owned(), state, detail }
}

/// The forwarder's state, for people.
fn upstream_state(status: &UpstreamStatus) -> String {
    let lag = match status.lag {
        0 => "up to date".to_owned(),
        lag => format!("{lag} behind, the oldest for {} s", status.lag_time.as_secs()),
    };
    let filling = if status.filling { ", stored readings are being sent" } else { "" };
    let error = status.error.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
    format!("{lag}{filling}{error}")
}

/// Catches signals before anything else: a supervisor may send one at once.
pub fn signals() -> Result<Signals, Failure> {
    Signals::catch().map_err(|error| Failure::new(Code::Internal, error))
}

/// Waits for a role to end, by itself or after a signal.
async fn until_signalled<E>(
    ended: impl Future<Output = Result<(), E>>,
    mut signals: Signals,
    trigger: &Trigger,
) -> Result<(), E> {
    tokio::pin!(ended);
    tokio::select! {
        outcome = &mut ended => return outcome,
        () = signals.received() => {}
    }
    info!("stopping");
    supervisor::stopping();
    trigger.throw();
    ended.await
}
