//! The states of inputs and outputs between those who change them and the session that publishes them,
//! and the commands the other way.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::reading::Id;
use crate::wire::{Command, Switch};

/// Commands that wait for the outputs, at most: they are carried out in microseconds.
const COMMANDS_MAX: usize = 64;

/// Which way a switch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// `…/input/<name>`
    Input,
    /// `…/output/<name>`
    Output,
}

/// A switch whose state is to be published.
pub type Changed = (Direction, Id, Switch);

/// The latest state of each, and whether it was published. A state that changes twice before it could be
/// published is published once.
#[derive(Debug)]
pub struct Switches {
    states: Mutex<BTreeMap<(Direction, Id), (Switch, bool)>>,
    changed: Notify,
    commands: mpsc::Sender<(Id, Command)>,
    heard: watch::Sender<Option<Instant>>,
}

/// What the outputs listen to.
#[derive(Debug)]
pub struct Orders {
    /// Commands, by output.
    pub commands: mpsc::Receiver<(Id, Command)>,
    /// When the broker was last heard.
    pub heard: watch::Receiver<Option<Instant>>,
}

impl Switches {
    /// No switch yet, and what its outputs will listen to.
    #[must_use]
    pub fn new() -> (Self, Orders) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (heard, hearing) = watch::channel(None);
        let states = Mutex::default();
        let switches = Self { states, changed: Notify::new(), commands, heard };
        (switches, Orders { commands: receiver, heard: hearing })
    }

    /// Notes a state.
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

    /// A broker that forgets: all states are to be published again.
    pub fn publish_all(&self) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.values_mut().for_each(|(_, published)| *published = false);
    }

    /// Up to `room` states that are to be published; they count as published.
    #[must_use]
    pub fn take(&self, room: usize) -> Vec<Changed> {
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

    /// Passes a command on.
    pub fn command(&self, name: Id, command: Command) {
        if self.commands.try_send((name, command)).is_err() {
            warn!("a command was dropped: {COMMANDS_MAX} wait already, or the outputs have ended");
        }
    }

    /// The broker said something.
    pub fn heard(&self) {
        self.heard.send_replace(Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_state_is_published_once_and_all_again_to_a_new_broker() {
        let (switches, _orders) = Switches::new();
        let (door, fan): (Id, Id) = ("door".parse().unwrap(), "fan".parse().unwrap());
        switches.set(Direction::Input, &door, Switch::On);
        switches.set(Direction::Input, &door, Switch::Off);
        switches.set(Direction::Output, &fan, Switch::On);
        assert_eq!(switches.take(1), [(Direction::Input, door.clone(), Switch::Off)]);
        assert_eq!(switches.take(9), [(Direction::Output, fan.clone(), Switch::On)]);
        switches.set(Direction::Output, &fan, Switch::On);
        assert_eq!(switches.take(9), []);
        switches.publish_all();
        assert_eq!(switches.take(9).len(), 2);
    }
}
