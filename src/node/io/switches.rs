//! The exchange between io and the MQTT session: states of inputs and outputs one way; commands, and the time at which the
//! broker was last heard, the other way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::reading::Id;
use crate::throttled_log::ThrottledLog;
use crate::wire::{Command, Switch, Wanted};

/// Time between two lines on commands for outputs that are not configured.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

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

/// The state that a command, or a row of commands, leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// This state.
    Be(Switch),
    /// The other state, or the same one after an even number of toggles.
    Toggle(bool),
}

/// The commands of one output that have arrived and are not carried out yet, as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Where all of them together lead.
    pub to: Change,
    /// The hold time of the last one.
    pub hold: Option<Duration>,
    /// Commands before the last one, which are not carried out by themselves.
    pub passed_over: u64,
}

impl Pending {
    /// One command.
    #[must_use]
    pub const fn new(command: Command) -> Self {
        let to = match command.to {
            Wanted::Be(state) => Change::Be(state),
            Wanted::Toggle => Change::Toggle(true),
        };
        Self { to, hold: command.hold, passed_over: 0 }
    }

    /// Adds a later command. The result leads to the state that carrying out each in turn leads to.
    const fn then(self, command: Command) -> Self {
        let to = match (command.to, self.to) {
            (Wanted::Be(state), _) => Change::Be(state),
            (Wanted::Toggle, Change::Be(state)) => Change::Be(state.inverse()),
            (Wanted::Toggle, Change::Toggle(odd)) => Change::Toggle(!odd),
        };
        Self { to, hold: command.hold, passed_over: self.passed_over + 1 }
    }
}

#[derive(Debug, Default)]
struct Commands {
    /// Of each configured output.
    pending: BTreeMap<Id, Option<Pending>>,
    /// Commands that were not carried out by themselves, since the start.
    passed_over: u64,
}

/// The latest state of each switch, and whether it was published. A state that changes twice before the session
/// publishes it is published once. Likewise the commands of an output: those that arrive before it is switched become one.
#[derive(Debug)]
pub struct Switches {
    states: Mutex<BTreeMap<(Direction, Id), (Switch, bool)>>,
    changed: Notify,
    commands: Mutex<Commands>,
    commanded: Notify,
    heard: Mutex<Option<Instant>>,
    /// Outputs whose lines fail, and why.
    faults: Mutex<BTreeMap<Id, String>>,
    faults_changed: AtomicBool,
    unknown_line: ThrottledLog,
}

impl Switches {
    /// No state yet. Commands are taken for these outputs.
    #[must_use]
    pub fn new(outputs: impl IntoIterator<Item = Id>) -> Self {
        let pending = outputs.into_iter().map(|name| (name, None)).collect();
        Self {
            states: Mutex::default(),
            changed: Notify::new(),
            commands: Mutex::new(Commands { pending, passed_over: 0 }),
            commanded: Notify::new(),
            heard: Mutex::new(None),
            faults: Mutex::default(),
            faults_changed: AtomicBool::new(false),
            unknown_line: ThrottledLog::new(COMPLAINT_INTERVAL),
        }
    }

    /// Notes a state. Another one than before is published.
    pub fn set(&self, direction: Direction, name: &Id, state: Switch) {
        let mut states = lock(&self.states);
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
        lock(&self.states).values_mut().for_each(|(_, published)| *published = false);
    }

    /// Up to `room` states to publish. They count as published from now on.
    #[must_use]
    pub fn take_unpublished(&self, room: usize) -> Vec<StateChange> {
        let mut states = lock(&self.states);
        let unpublished = states.iter_mut().filter(|(_, (_, published))| !published);
        unpublished
            .take(room)
            .map(|((direction, name), (state, published))| {
                *published = true;
                (*direction, name.clone(), *state)
            })
            .collect()
    }

    /// Passes a command on to its output. The last one always counts, however many came before it.
    pub fn send_command(&self, name: &Id, command: Command) {
        let mut commands = lock(&self.commands);
        let Some(pending) = commands.pending.get_mut(name) else {
            drop(commands);
            if let Some(left_out) = self.unknown_line.due(std::time::Instant::now()) {
                warn!(output = %name, left_out, "command for an output that is not configured");
            }
            return;
        };
        let earlier = pending.take();
        *pending = Some(earlier.map_or(Pending::new(command), |earlier| earlier.then(command)));
        if earlier.is_some() {
            commands.passed_over += 1;
        }
        drop(commands);
        self.commanded.notify_one();
    }

    /// Waits for a command. Cancelling and calling again is fine.
    pub async fn commanded(&self) {
        self.commanded.notified().await;
    }

    /// Takes the command of each output that has one.
    #[must_use]
    pub fn take_commands(&self) -> Vec<(Id, Pending)> {
        let mut commands = lock(&self.commands);
        let pending = commands.pending.iter_mut();
        pending.filter_map(|(name, pending)| Some((name.clone(), pending.take()?))).collect()
    }

    /// Commands since the start that were not carried out by themselves, since a later one came before the output was
    /// switched.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        lock(&self.commands).passed_over
    }

    /// Notes that an output's line fails, and why; `None` once it holds.
    pub fn set_fault(&self, output: &Id, fault: Option<String>) {
        let mut faults = lock(&self.faults);
        if faults.get(output) == fault.as_ref() {
            return;
        }
        match fault {
            Some(fault) => faults.insert(output.clone(), fault),
            None => faults.remove(output),
        };
        self.faults_changed.store(true, Relaxed);
    }

    /// The outputs that are not in the state that they should have, and why.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<Id, String> {
        lock(&self.faults).clone()
    }

    /// Whether the faults changed since the last call.
    pub fn take_faults_changed(&self) -> bool {
        self.faults_changed.swap(false, Relaxed)
    }

    /// The broker is there and would deliver a command.
    pub fn broker_heard(&self) {
        *lock(&self.heard) = Some(Instant::now());
    }

    /// When the broker was last heard; `None` before the first time.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        *lock(&self.heard)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_state_is_published_once_and_all_again_to_a_new_broker() {
        let switches = Switches::new([]);
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

    #[test]
    fn the_last_command_of_a_burst_counts_and_every_toggle_does() {
        let fan: Id = "fan".parse().unwrap();
        let switches = Switches::new([fan.clone()]);
        let to = |to| Command { to, hold: None };
        let (on, off) = (to(Wanted::Be(Switch::On)), to(Wanted::Be(Switch::Off)));
        let toggle = to(Wanted::Toggle);
        let pulse = Command { hold: Some(Duration::from_secs(1)), ..on };
        let mut passed_over = 0;
        for (burst, expected) in [
            ([vec![on; 70], vec![off]].concat(), Change::Be(Switch::Off)),
            (vec![toggle, toggle], Change::Toggle(false)),
            (vec![toggle, toggle, toggle], Change::Toggle(true)),
            (vec![off, toggle], Change::Be(Switch::On)),
            (vec![pulse, toggle, toggle], Change::Be(Switch::On)),
        ] {
            for command in &burst {
                switches.send_command(&fan, *command);
            }
            let [(name, pending)] = switches.take_commands().try_into().unwrap();
            let earlier = burst.len() as u64 - 1;
            passed_over += earlier;
            assert_eq!((name, pending.to), (fan.clone(), expected));
            assert_eq!((pending.hold, pending.passed_over), (None, earlier));
        }
        switches.send_command(&"lamp".parse().unwrap(), on);
        assert_eq!((switches.take_commands(), switches.passed_over()), (vec![], passed_over));
    }
}
