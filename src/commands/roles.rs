//! `humidor node` and `humidor broker`: a role until a signal.

use tracing::info;

use super::{print, runtime, start_log};
use crate::broker::{Broker, Counters};
use crate::config::{self, Layers};
use crate::exit::{Code, Failure};
use crate::health::{self, Answer};
use crate::node::{Node, Outbox};
use crate::shutdown::{self, Signals};

/// The board's role.
pub fn node(layers: Layers) -> Result<(), Failure> {
    start_log(&layers);
    let config = config::node(layers)?;
    runtime()?.block_on(async {
        let mut signals = signals()?;
        let (trigger, shutdown) = shutdown::channel();
        let health_name = health::name("node", config.node.as_str());
        let node = Node::start(config, shutdown.clone())?;
        let outbox = std::sync::Arc::clone(node.outbox());
        tokio::spawn(health::serve(health_name, move || node_health(&outbox), shutdown));
        signals.received().await;
        trigger.throw();
        node.ended().await;
        info!("stopped");
        Ok(())
    })
}

fn node_health(outbox: &Outbox) -> Answer {
    Answer {
        role: "node".to_owned(),
        healthy: true,
        detail: format!(
            "{} taken in this run, {} waiting ({}), {} given up",
            outbox.taken(),
            outbox.depth(),
            outbox.kind().as_str(),
            outbox.dropped()
        ),
    }
}

/// The broker's role.
pub fn broker(print: bool, layers: Layers) -> Result<(), Failure> {
    start_log(&layers);
    let config = config::broker(layers)?;
    runtime()?.block_on(async {
        let mut signals = signals()?;
        let (trigger, shutdown) = shutdown::channel();
        let broker = Broker::start(config, shutdown.clone()).await?;
        let counters = broker.counters();
        let health_name = health::name("broker", &broker.address().port().to_string());
        tokio::spawn(health::serve(health_name, move || broker_health(&counters), shutdown));
        if print {
            tokio::spawn(print::follow(broker.live()));
        }
        let ended = broker.ended();
        tokio::pin!(ended);
        tokio::select! {
            outcome = &mut ended => outcome?,
            () = signals.received() => {
                info!("stopping");
                trigger.throw();
                ended.await?;
            }
        }
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
