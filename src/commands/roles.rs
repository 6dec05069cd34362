//! `humidor node` and `humidor broker`: a role until a signal.

use tracing::info;

use super::{block_on, print, quiet, start_log};
use crate::broker::{Broker, Counters};
use crate::config::{self, Layers};
use crate::exit::{Code, Failure};
use crate::health::{self, Answer};
use crate::node::{Node, Outbox};
use crate::shutdown::{self, Signals, Trigger};

/// The board's role.
pub fn node(layers: Layers) -> Result<(), Failure> {
    start_log(&layers);
    let config = config::node(layers)?;
    block_on(async {
        let signals = signals()?;
        let (trigger, shutdown) = shutdown::channel();
        let health_name = health::name("node", config.node.as_str());
        let node = Node::start(config, shutdown.clone())?;
        let outbox = std::sync::Arc::clone(node.outbox());
        tokio::spawn(health::serve(health_name, move || node_health(&outbox), shutdown));
        until_signalled(node.ended(), signals, &trigger).await?;
        info!("stopped");
        Ok(())
    })
}

/// Deletes what a node left on its broker, and says what that was.
pub fn forget(layers: Layers) -> Result<(), Failure> {
    start_log(&quiet(&layers));
    let forget = config::forget(layers)?;
    block_on(async {
        let done = forget.run().await.map_err(|error| Failure::new(Code::Unavailable, error))?;
        for topic in &done.topics {
            println!("deleted {topic}");
        }
        if done.topics.is_empty() {
            println!("{} has nothing of `{}`", forget.broker, forget.node);
        }
        if done.online {
            println!(
                "its last word was `online`: if it still runs, it comes back with its next connection; stop it and say this again"
            );
        }
        if done.more {
            println!("there is more than was taken in one go: say this again");
        }
        Ok(())
    })
}

fn node_health(outbox: &Outbox) -> Answer {
    let write_error = outbox.write_error();
    Answer {
        role: "node".to_owned(),
        healthy: write_error.is_none(),
        detail: write_error.map_or_else(
            || {
                format!(
                    "{} taken in this run, {} waiting ({}), {} given up",
                    outbox.taken(),
                    outbox.depth(),
                    outbox.kind().as_str(),
                    outbox.dropped()
                )
            },
            |cause| format!("the outbox cannot write: {cause}"),
        ),
    }
}

/// The broker's role.
pub fn broker(print: bool, layers: Layers) -> Result<(), Failure> {
    start_log(&layers);
    let config = config::broker(layers)?;
    block_on(async {
        let signals = signals()?;
        let (trigger, shutdown) = shutdown::channel();
        let broker = Broker::start(config, shutdown.clone()).await?;
        let counters = broker.counters();
        let health_name = health::name("broker", &broker.address().port().to_string());
        tokio::spawn(health::serve(health_name, move || broker_health(&counters), shutdown));
        if print {
            let live = broker.live();
            std::thread::spawn(move || print::follow(live));
        }
        until_signalled(broker.ended(), signals, &trigger).await?;
        info!("stopped");
        Ok(())
    })
}

fn broker_health(counters: &Counters) -> Answer {
    let (recorded, commits) = counters.totals();
    let blocked = counters.blocked();
    Answer {
        role: "broker".to_owned(),
        healthy: blocked.is_none(),
        detail: blocked.map_or_else(
            || {
                format!(
                    "{} readings, {} repeats, {} samples, {} refused in {commits} commits",
                    recorded.readings, recorded.repeats, recorded.samples, recorded.refused
                )
            },
            |cause| format!("cannot commit: {cause}"),
        ),
    }
}

/// Signals are caught before anything else: a supervisor may send one at once.
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
    trigger.throw();
    ended.await
}
