//! Outputs: told by commands, safe without them.
//!
//! An output takes its safe level when it is opened, when the node ends, and when the broker was not heard
//! for longer than the output's limit: whoever switched it on could not switch it off any more.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::switches::{Direction, Orders, Switches};
use crate::dht::Level;
use crate::gpio::digital::Output as Line;
use crate::node::config::Safety;
use crate::reading::Id;
use crate::shutdown::Shutdown;
use crate::wire::{Command, Switch, Wanted};

/// The decisions of one output; what it does is the caller's.
#[derive(Debug)]
struct Decision {
    safety: Safety,
    state: Switch,
    /// When the time of a command is over, and what comes after.
    until: Option<(Instant, Switch)>,
}

impl Decision {
    const fn new(safety: Safety) -> Self {
        Self { safety, state: safety.safe, until: None }
    }

    /// What a command makes of it. The latest command counts, whatever the one before it had in mind.
    fn command(&mut self, command: Command, now: Instant) -> Switch {
        self.state = match command.to {
            Wanted::Be(state) => state,
            Wanted::Toggle => self.state.inverse(),
        };
        self.until = command.hold.map(|hold| (now + hold, self.state.inverse()));
        self.state
    }

    /// When to look again, if nothing else happens.
    fn deadline(&self, heard: Option<Instant>) -> Option<Instant> {
        let timed = self.until.map(|(at, _)| at);
        let away = (self.state != self.safety.safe || self.until.is_some())
            .then(|| heard.map(|heard| heard + self.safety.away))?;
        timed.into_iter().chain(away).min()
    }

    /// What time makes of it, if anything; and whether that is because the broker is away.
    fn pass(&mut self, heard: Option<Instant>, now: Instant) -> Option<(Switch, bool)> {
        let away = heard.is_none_or(|heard| heard + self.safety.away <= now);
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
    decision: Decision,
}

impl Output {
    /// An output whose line is at the safe level. `active` is the level that means on.
    #[must_use]
    pub fn new(name: Id, line: Box<dyn Line>, active: Level, safety: Safety) -> Self {
        Self { name, line, active, decision: Decision::new(safety) }
    }

    /// Drives the line and says what it really is afterwards.
    fn drive(&mut self, state: Switch, switches: &Switches) {
        let wanted = level(state, self.active);
        let read = self.line.set(wanted).and_then(|()| self.line.level());
        match read {
            Ok(found) if found == wanted => switches.set(Direction::Output, &self.name, state),
            Ok(_) => {
                error!(output = %self.name, wanted = state.as_str(), "the line does not follow: look for a short circuit or a second driver");
                switches.set(Direction::Output, &self.name, state.inverse());
            }
            Err(cause) => error!(output = %self.name, %cause, "the line cannot be driven"),
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

/// Carries out commands and watches the clock until `shutdown`, then makes everything safe.
pub async fn run(
    mut outputs: Vec<Output>,
    mut orders: Orders,
    switches: Arc<Switches>,
    mut shutdown: Shutdown,
) {
    for output in &mut outputs {
        output.drive(output.decision.state, &switches);
    }
    loop {
        let heard = *orders.heard.borrow();
        let next = outputs.iter().filter_map(|output| output.decision.deadline(heard)).min();
        let time = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((name, command)) = orders.commands.recv() => {
                let Some(output) = outputs.iter_mut().find(|output| output.name == name) else {
                    warn!(output = %name, "there is no such output here");
                    continue;
                };
                let state = output.decision.command(command, Instant::now());
                info!(output = %name, state = state.as_str(), "told");
                output.drive(state, &switches);
            }
            () = time => {
                let heard = *orders.heard.borrow();
                for output in &mut outputs {
                    if let Some((state, away)) = output.decision.pass(heard, Instant::now()) {
                        if away {
                            warn!(output = %output.name, state = state.as_str(), "no broker for {:?}: safe state", output.decision.safety.away);
                        }
                        output.drive(state, &switches);
                    }
                }
            }
            () = shutdown.requested() => break,
        }
    }
    for output in &mut outputs {
        output.drive(output.decision.safety.safe, &switches);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shutdown;
    use crate::sim::SimOutput;

    const SAFETY: Safety = Safety { safe: Switch::Off, away: Duration::from_mins(1) };

    fn to(to: Switch) -> Command {
        Command { to: Wanted::Be(to), hold: None }
    }

    fn for_ms(ms: u64) -> Command {
        Command { to: Wanted::Be(Switch::On), hold: Some(Duration::from_millis(ms)) }
    }

    #[test]
    fn a_timed_command_ends_by_itself_unless_another_comes() {
        let start = Instant::now();
        let heard = Some(start);
        let at = |ms| start + Duration::from_millis(ms);
        let mut decision = Decision::new(SAFETY);
        assert_eq!(decision.command(for_ms(500), start), Switch::On);
        assert_eq!(decision.pass(heard, at(499)), None);
        assert_eq!(decision.deadline(heard), Some(at(500)));
        assert_eq!(decision.pass(heard, at(500)), Some((Switch::Off, false)));
        assert_eq!(decision.pass(heard, at(501)), None);
        decision.command(for_ms(500), at(600));
        decision.command(to(Switch::On), at(700));
        assert_eq!(decision.pass(heard, at(2_000)), None);
    }

    #[test]
    fn toggling_is_from_what_was_told_last() {
        let mut decision = Decision::new(SAFETY);
        let toggle = Command { to: Wanted::Toggle, hold: None };
        let now = Instant::now();
        assert_eq!(decision.command(toggle, now), Switch::On);
        assert_eq!(decision.command(toggle, now), Switch::Off);
    }

    #[test]
    fn without_the_broker_it_is_safe_after_its_limit_and_not_before() {
        let start = Instant::now();
        let mut decision = Decision::new(SAFETY);
        decision.command(to(Switch::On), start);
        assert_eq!(decision.deadline(Some(start)), Some(start + SAFETY.away));
        assert_eq!(decision.pass(Some(start), start + SAFETY.away / 2), None);
        // Heard in between: the limit counts from there.
        let later = start + SAFETY.away / 2;
        assert_eq!(decision.pass(Some(later), start + SAFETY.away), None);
        assert_eq!(decision.pass(Some(later), later + SAFETY.away), Some((Switch::Off, true)));
        assert_eq!(decision.deadline(Some(later)), None);
        // A pulse from the safe state and back does not outlive the broker either.
        let mut inverse = Decision::new(Safety { safe: Switch::On, ..SAFETY });
        inverse.command(to(Switch::Off), start);
        assert_eq!(inverse.pass(None, start), Some((Switch::On, true)));
    }

    #[tokio::test]
    async fn an_output_is_safe_at_the_start_and_at_the_end() {
        let (switches, orders) = Switches::new();
        let switches = Arc::new(switches);
        let fan: Id = "fan".parse().unwrap();
        let line = Box::new(SimOutput(Level::High));
        let safety = Safety { away: Duration::from_millis(200), ..SAFETY };
        let output = Output::new(fan.clone(), line, Level::High, safety);
        let (trigger, stopped) = shutdown::channel();
        let running = tokio::spawn(run(vec![output], orders, Arc::clone(&switches), stopped));
        let next = async || {
            let changed = tokio::time::timeout(Duration::from_secs(20), switches.changed());
            changed.await.expect("a state within 20 s");
            switches.take(1).remove(0).2
        };
        assert_eq!(next().await, Switch::Off);
        switches.heard();
        switches.command(fan.clone(), to(Switch::On));
        assert_eq!(next().await, Switch::On);
        let told = Instant::now();
        assert_eq!(next().await, Switch::Off, "the broker was not heard again");
        assert!(told.elapsed() >= safety.away / 2);
        switches.heard();
        switches.command(fan, to(Switch::On));
        assert_eq!(next().await, Switch::On);
        trigger.throw();
        assert_eq!(next().await, Switch::Off);
        running.await.unwrap();
    }
}
