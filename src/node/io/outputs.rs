//! Outputs: driven by commands, safe without them.
//!
//! An output takes its safe level when it is opened, when the node ends, and when the broker was not heard for longer than
//! the output's limit: a client that switched it on could no longer switch it off. The broker counts as heard only while it
//! has granted the subscription to commands.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::switches::{Change, Direction, Pending, Switches};
use crate::dht::Level;
use crate::gpio::digital::Output as Line;
use crate::node::config::Safety;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::throttled_log::ThrottledLog;
use crate::wire::Switch;

/// Time between two lines on commands of one output, and between two lines on a line that does not follow.
const COMMAND_LINE_INTERVAL: Duration = Duration::from_secs(10);
const FAULT_LINE_INTERVAL: Duration = Duration::from_mins(1);

/// The state that one output should have. Time is an argument, and the caller drives the line.
#[derive(Debug)]
struct Target {
    safety: Safety,
    state: Switch,
    /// The end of a timed command, and the state after it.
    until: Option<(Instant, Switch)>,
}

impl Target {
    const fn new(safety: Safety) -> Self {
        Self { safety, state: safety.safe, until: None }
    }

    /// Applies commands and returns the new state. The latest command counts: it ends the time of an earlier one.
    fn apply(&mut self, command: Pending, now: Instant) -> Switch {
        self.state = match command.to {
            Change::Be(state) => state,
            Change::Toggle(true) => self.state.inverse(),
            Change::Toggle(false) => self.state,
        };
        self.until = command.hold.map(|hold| (now + hold, self.state.inverse()));
        self.state
    }

    /// When [`Self::pass_time`] may change the state next, if neither a command comes nor the broker is heard before.
    fn deadline(&self, last_heard: Option<Instant>) -> Option<Instant> {
        let timed = self.until.map(|(at, _)| at);
        let away = (self.state != self.safety.safe || self.until.is_some())
            .then(|| last_heard.map(|at| at + self.safety.away))?;
        timed.into_iter().chain(away).min()
    }

    /// The new state, if it changes by the passing of time; and whether that is because the broker is away.
    fn pass_time(&mut self, last_heard: Option<Instant>, now: Instant) -> Option<(Switch, bool)> {
        let away = last_heard.is_none_or(|at| at + self.safety.away <= now);
        if away && (self.state != self.safety.safe || self.until.is_some()) {
            self.until = None;
            self.state = self.safety.safe;
            return Some((self.state, true));
        }
        let (_, after) = self.until.take_if(|(at, _)| *at <= now)?;
        self.state = after;
        Some((self.state, false))
    }
}

/// An output on its line.
pub struct Output {
    name: Id,
    line: Box<dyn Line>,
    active: Level,
    target: Target,
    command_line: ThrottledLog,
    fault_line: ThrottledLog,
}

impl Output {
    /// An output whose line is at the safe level. `active` is the level that means on.
    #[must_use]
    pub fn new(name: Id, line: Box<dyn Line>, active: Level, safety: Safety) -> Self {
        Self {
            name,
            line,
            active,
            target: Target::new(safety),
            command_line: ThrottledLog::new(COMMAND_LINE_INTERVAL),
            fault_line: ThrottledLog::new(FAULT_LINE_INTERVAL),
        }
    }

    /// Carries out commands.
    fn obey(&mut self, command: Pending, switches: &Switches) {
        let state = self.target.apply(command, Instant::now());
        if let Some(left_out) = self.command_line.due(std::time::Instant::now()) {
            info!(output = %self.name, state = state.as_str(), passed_over = command.passed_over, left_out, "output switched by a command");
        }
        self.drive(state, switches);
    }

    /// Drives the line, and notes the state that the line has afterwards.
    fn drive(&mut self, state: Switch, switches: &Switches) {
        let wanted = level(state, self.active);
        let read_back = self.line.set(wanted).and_then(|()| self.line.level());
        match read_back {
            Ok(found) if found == wanted => switches.set(Direction::Output, &self.name, state),
            Ok(_) => {
                if let Some(left_out) = self.fault_line.due(std::time::Instant::now()) {
                    error!(output = %self.name, wanted = state.as_str(), left_out, "the line does not follow the output: look for a short circuit or a second driver");
                }
                switches.set(Direction::Output, &self.name, state.inverse());
            }
            Err(cause) => {
                if let Some(left_out) = self.fault_line.due(std::time::Instant::now()) {
                    error!(output = %self.name, %cause, left_out, "could not switch the output");
                }
            }
        }
    }
}

/// The level that means `state`.
#[must_use]
pub const fn level(state: Switch, active: Level) -> Level {
    match state {
        Switch::On => active,
        Switch::Off => active.inverse(),
    }
}

/// Carries out commands and ends their times until `shutdown`; then every output takes its safe state.
pub async fn run(mut outputs: Vec<Output>, switches: Arc<Switches>, mut shutdown: Shutdown) {
    for output in &mut outputs {
        output.drive(output.target.state, &switches);
    }
    loop {
        let last_heard = switches.last_heard();
        let next = outputs.iter().filter_map(|output| output.target.deadline(last_heard)).min();
        let time = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = switches.commanded() => {
                for (name, command) in switches.take_commands() {
                    if let Some(output) = outputs.iter_mut().find(|output| output.name == name) {
                        output.obey(command, &switches);
                    }
                }
            }
            () = time => {
                let last_heard = switches.last_heard();
                for output in &mut outputs {
                    if let Some((state, away)) = output.target.pass_time(last_heard, Instant::now()) {
                        if away {
                            warn!(output = %output.name, state = state.as_str(), "no broker that would deliver commands for {:?}: output takes its safe state", output.target.safety.away);
                        }
                        output.drive(state, &switches);
                    }
                }
            }
            () = shutdown.requested() => break,
        }
    }
    for output in &mut outputs {
        output.drive(output.target.safety.safe, &switches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown;
    use crate::sim::SimOutput;
    use crate::wire::{Command, Wanted};

    const SAFETY: Safety = Safety { safe: Switch::Off, away: Duration::from_mins(1) };

    fn to(to: Switch) -> Pending {
        Pending::new(Command { to: Wanted::Be(to), hold: None })
    }

    fn for_ms(ms: u64) -> Pending {
        Pending { hold: Some(Duration::from_millis(ms)), ..to(Switch::On) }
    }

    #[test]
    fn a_timed_command_ends_by_itself_unless_another_comes() {
        let start = Instant::now();
        let last_heard = Some(start);
        let at = |ms| start + Duration::from_millis(ms);
        let mut target = Target::new(SAFETY);
        assert_eq!(target.apply(for_ms(500), start), Switch::On);
        assert_eq!(target.pass_time(last_heard, at(499)), None);
        assert_eq!(target.deadline(last_heard), Some(at(500)));
        assert_eq!(target.pass_time(last_heard, at(500)), Some((Switch::Off, false)));
        assert_eq!(target.pass_time(last_heard, at(501)), None);
        target.apply(for_ms(500), at(600));
        target.apply(to(Switch::On), at(700));
        assert_eq!(target.pass_time(last_heard, at(2_000)), None);
    }

    #[test]
    fn toggling_is_from_the_last_commanded_state() {
        let mut target = Target::new(SAFETY);
        let toggle = Pending::new(Command { to: Wanted::Toggle, hold: None });
        let now = Instant::now();
        assert_eq!(target.apply(toggle, now), Switch::On);
        assert_eq!(target.apply(toggle, now), Switch::Off);
    }

    #[test]
    fn without_the_broker_it_is_safe_after_its_limit_and_not_before() {
        let start = Instant::now();
        let mut target = Target::new(SAFETY);
        target.apply(to(Switch::On), start);
        assert_eq!(target.deadline(Some(start)), Some(start + SAFETY.away));
        assert_eq!(target.pass_time(Some(start), start + SAFETY.away / 2), None);
        // A packet in between: the limit counts from there.
        let later = start + SAFETY.away / 2;
        assert_eq!(target.pass_time(Some(later), start + SAFETY.away), None);
        assert_eq!(target.pass_time(Some(later), later + SAFETY.away), Some((Switch::Off, true)));
        assert_eq!(target.deadline(Some(later)), None);
        // A pulse from the safe state and back does not outlive the broker either.
        let mut inverse = Target::new(Safety { safe: Switch::On, ..SAFETY });
        inverse.apply(to(Switch::Off), start);
        assert_eq!(inverse.pass_time(None, start), Some((Switch::On, true)));
    }

    #[tokio::test]
    async fn an_output_is_safe_at_the_start_and_at_the_end() {
        let fan: Id = "fan".parse().unwrap();
        let switches = Arc::new(Switches::new([fan.clone()]));
        let on = Command { to: Wanted::Be(Switch::On), hold: None };
        let line = Box::new(SimOutput(Level::High));
        let safety = Safety { away: Duration::from_millis(200), ..SAFETY };
        let output = Output::new(fan.clone(), line, Level::High, safety);
        let (trigger, stopped) = shutdown::channel();
        let running = tokio::spawn(run(vec![output], Arc::clone(&switches), stopped));
        let next = async || {
            let changed = tokio::time::timeout(Duration::from_secs(20), switches.changed());
            changed.await.expect("a state within 20 s");
            switches.take_unpublished(1).remove(0).2
        };
        assert_eq!(next().await, Switch::Off);
        switches.broker_heard();
        switches.send_command(&fan, on);
        assert_eq!(next().await, Switch::On);
        let commanded = Instant::now();
        assert_eq!(next().await, Switch::Off, "the broker was not heard");
        assert!(commanded.elapsed() >= safety.away / 2);
        switches.broker_heard();
        switches.send_command(&fan, on);
        assert_eq!(next().await, Switch::On);
        trigger.throw();
        assert_eq!(next().await, Switch::Off);
        running.await.unwrap();
    }
}
