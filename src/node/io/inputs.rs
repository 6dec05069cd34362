//! Inputs: debounced levels, read on a thread of their own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, warn};

use super::debounce::Debounce;
use super::switches::{Direction, Switches};
use crate::dht::Level;
use crate::gpio::digital::Input as Line;
use crate::reading::Id;
use crate::throttled_log::ThrottledLog;
use crate::wire::Switch;

/// An input without interrupts is polled this often: with the usual debounce of 50 ms a change is published within
/// 100 ms.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Time between two lines that an input cannot be read.
const FAULT_LINE_INTERVAL: Duration = Duration::from_mins(1);
/// Longest wait, so that the thread sees the end of the node.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// An input on its line.
pub struct Input {
    name: Id,
    line: Box<dyn Line>,
    active: Level,
    debounce: Debounce,
    fault_line: ThrottledLog,
}

impl Input {
    /// An input whose level counts after `settle` without a change. `active` is the level that means on.
    #[must_use]
    pub fn new(name: Id, line: Box<dyn Line>, active: Level, settle: Duration) -> Self {
        let debounce = Debounce::new(settle, Switch::Off);
        let mut input = Self {
            name,
            line,
            active,
            debounce,
            fault_line: ThrottledLog::new(FAULT_LINE_INTERVAL),
        };
        if let Some(state) = input.read() {
            input.debounce = Debounce::new(settle, state);
        }
        input
    }

    fn read(&mut self) -> Option<Switch> {
        match self.line.level() {
            Ok(level) => Some(if level == self.active { Switch::On } else { Switch::Off }),
            Err(cause) => {
                if let Some(left_out) = self.fault_line.due(Instant::now()) {
                    warn!(input = %self.name, %cause, left_out, "could not read the input");
                }
                None
            }
        }
    }
}

/// Reads inputs until `stop` is closed.
pub fn run(mut inputs: Vec<Input>, stop: &Receiver<()>, switches: &Arc<Switches>) {
    for input in &inputs {
        switches.set(Direction::Input, &input.name, input.debounce.state());
    }
    while stop.try_recv() == Err(TryRecvError::Empty) {
        let now = Instant::now();
        let polled = inputs.iter().any(|input| input.line.events().is_none());
        let wait = inputs
            .iter()
            .filter_map(|input| input.debounce.deadline())
            .map(|at| at.saturating_duration_since(now))
            .chain(polled.then_some(POLL_INTERVAL))
            .min()
            .unwrap_or(WAIT_MAX)
            .min(WAIT_MAX);
        let ready = wait_for(&inputs, wait);
        for (index, input) in inputs.iter_mut().enumerate() {
            let edge = ready.contains(&index);
            if edge && let Err(cause) = input.line.take_event() {
                debug!(input = %input.name, %cause, "could not take the input's event");
            }
            if let Some(seen) = input.read()
                && let Some(state) = input.debounce.observe(seen, edge, Instant::now())
            {
                debug!(input = %input.name, state = state.as_str(), "input");
                switches.set(Direction::Input, &input.name, state);
            }
        }
    }
}

/// Waits for an event of any input. Returns the places of those that have one.
fn wait_for(inputs: &[Input], wait: Duration) -> Vec<usize> {
    let (places, mut fds): (Vec<usize>, Vec<PollFd<'_>>) = inputs
        .iter()
        .enumerate()
        .filter_map(|(index, input)| {
            Some((index, PollFd::from_borrowed_fd(input.line.events()?, PollFlags::IN)))
        })
        .unzip();
    // Rounded up: waking before the deadline would only mean waiting again.
    let wait = wait + Duration::from_micros(1);
    let Ok(wait) = Timespec::try_from(wait) else { return Vec::new() };
    if poll(&mut fds, Some(&wait)).is_err() {
        // Interrupted by a signal: the next turn reads again.
        return Vec::new();
    }
    let ready = fds.iter().zip(places).filter(|(fd, _)| fd.revents().contains(PollFlags::IN));
    ready.map(|(_, index)| index).collect()
}
