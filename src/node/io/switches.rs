//! The exchange between io and the MQTT session: states of inputs and outputs one way; commands, and the time of the
//! broker's last packet, the other way.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::reading::Id;
use crate::wire::{Command, Switch};

/// Most commands that wait for the outputs, which carry one out in microseconds.
const COMMANDS_MAX: usize = 64;

/// Whether a switch is read or driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// `…/input/<name>`
    Input,
    /// `…/output/<name>`
    Output,
}

/// A state to publish.
pub type StateChange = (Direction, Id, Switch);

/// The latest state of each switch, and whether it was published. A state that changes twice before the session
/// publishes it is published once.
#[derive(Debug)]
pub struct Switches {
    states: Mutex<BTreeMap<(Direction, Id), (Switch, bool)>>,
    changed: Notify,
    commands: mpsc::Sender<(Id, Command)>,
    last_packet: watch::Sender<Option<Instant>>,
}

/// The outputs' end of [`Switches`].
#[derive(Debug)]
pub struct FromBroker {
    /// Commands, each with its output.
    pub commands: mpsc::Receiver<(Id, Command)>,
    /// Time of the broker's last packet; `None` before the first.
    pub last_packet: watch::Receiver<Option<Instant>>,
}

impl Switches {
    /// No switch yet, and the outputs' end.
    #[must_use]
    pub fn new() -> (Self, FromBroker) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (last_packet, last_packet_receiver) = watch::channel(None);
        let states = Mutex::default();
        let switches = Self { states, changed: Notify::new(), commands, last_packet };
        (switches, FromBroker { commands: receiver, last_packet: last_packet_receiver })
    }

    /// Notes a state. Another one than before is published.
    pub fn set(&self, direction: Direction, name: &Id, state: Switch) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let known = states.get(&(direction, name.clone()));
        if known.is_none_or(|(known, _)| *known != state) {
            states.insert((direction, name.clone()), (state, false));
            self.changed.notify_one();
        }
    }

    /// Waits for a state to publish. Cancelling and calling again is fine.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All states are to be published again, to a broker that may have lost them.
    pub fn republish_all(&self) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.values_mut().for_each(|(_, published)| *published = false);
    }

    /// Up to `room` states to publish. They count as published from now on.
    #[must_use]
    pub fn take_unpublished(&self, room: usize) -> Vec<StateChange> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let unpublished = states.iter_mut().filter(|(_, (_, published))| !published);
        unpublished
            .take(room)
            .map(|((direction, name), (state, published))| {
                *published = true;
                (*direction, name.clone(), *state)
            })
            .collect()
    }

    /// Passes a command on to the outputs. Drops it, with a warning, when too many wait.
    pub fn send_command(&self, name: Id, command: Command) {
        if self.commands.try_send((name, command)).is_err() {
            warn!(
                "command dropped: {COMMANDS_MAX} commands wait already, or the outputs have ended"
            );
        }
    }

    /// A packet from the broker has arrived.
    pub fn packet_received(&self) {
        self.last_packet.send_replace(Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_state_is_published_once_and_all_again_to_a_new_broker() {
        let (switches, _outputs) = Switches::new();
        let (door, fan): (Id, Id) = ("door".parse().unwrap(), "fan".parse().unwrap());
        switches.set(Direction::Input, &door, Switch::On);
        switches.set(Direction::Input, &door, Switch::Off);
        switches.set(Direction::Output, &fan, Switch::On);
        assert_eq!(switches.take_unpublished(1), [(Direction::Input, door.clone(), Switch::Off)]);
        assert_eq!(switches.take_unpublished(9), [(Direction::Output, fan.clone(), Switch::On)]);
        switches.set(Direction::Output, &fan, Switch::On);
        assert_eq!(switches.take_unpublished(9), []);
        switches.republish_all();
        assert_eq!(switches.take_unpublished(9).len(), 2);
    }
}
