//! One switch that everything listens to, and the signals that throw it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Ends what listens to it, when thrown or dropped.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Tells when to end.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A switch and its listener.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Throws the switch.
    pub fn throw(&self) {
        let _ = self.0.send(true);
    }
}

impl Shutdown {
    /// Waits for the switch. Cancelling and calling again is fine.
    pub async fn requested(&mut self) {
        // An error means that the trigger was dropped, which ends too.
        let _ = self.0.wait_for(|thrown| *thrown).await;
    }
}

/// SIGTERM and SIGINT, caught from the moment of [`Signals::catch`] on. As process 1 of a container they
/// do nothing unless they are caught; before it they end a process without its farewell.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches both. The first thing a role does.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
