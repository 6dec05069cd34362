//! Outputs: driven by commands, safe without them.
//!
//! An output takes its safe level when it is opened, when the node ends, and when the broker was not heard for longer than
//! the output's limit: a client that switched it on could no longer switch it off. The broker counts as heard only while it
//! has granted the subscription to commands.
//!
//! A line may fail, and an output whose step to the safe level failed is not safe. Therefore a line that failed is driven
//! again until it holds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
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
/// Wait before a line that failed is driven again: the first, and the longest. It doubles in between.
const DRIVE_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Time for driving a line to its safe level at the end of the node, where it fails.
const LAST_TRIES_WITHIN: Duration = Duration::from_secs(2);

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

/// A line that failed.
#[derive(Debug, Clone, Copy)]
struct Fault {
    /// When to drive it again, and the wait until then.
    again_at: Instant,
    wait: Duration,
    /// Whether it was logged.
    said: bool,
}

/// An output on its line.
pub struct Output {
    name: Id,
    line: Box<dyn Line>,
    active: Level,
    target: Target,
    command_line: ThrottledLog,
    fault_line: ThrottledLog,
    fault: Option<Fault>,
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
            fault: None,
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

    /// When there is something to do next, if nothing comes before.
    fn deadline(&self, last_heard: Option<Instant>) -> Option<Instant> {
        let of_target = self.target.deadline(last_heard);
        let of_fault = self.fault.map(|fault| fault.again_at);
        let of_line = self.command_line.overdue_at().map(Instant::from_std);
        of_target.into_iter().chain(of_fault).chain(of_line).min()
    }

    /// Does what is due by the passing of time.
    fn pass_time(&mut self, switches: &Switches, now: Instant) {
        if let Some((state, away)) = self.target.pass_time(switches.last_heard(), now) {
            if away {
                warn!(output = %self.name, state = state.as_str(), "no broker that would deliver commands for {:?}: output takes its safe state", self.target.safety.away);
            }
            self.drive(state, switches);
        } else if self.fault.is_some_and(|fault| fault.again_at <= now) {
            self.drive(self.target.state, switches);
        }
        if let Some(left_out) = self.command_line.overdue(now.into_std()) {
            info!(output = %self.name, state = self.target.state.as_str(), left_out, "output switched by commands; this is its state now");
        }
    }

    /// Drives the line, and notes the state that the line has afterwards. One that fails is driven again later.
    fn drive(&mut self, state: Switch, switches: &Switches) {
        let wanted = level(state, self.active);
        let cause = match self.line.set(wanted).and_then(|()| self.line.level()) {
            Ok(found) if found == wanted => {
                switches.set(Direction::Output, &self.name, state);
                if let Some(fault) = self.fault.take() {
                    switches.set_fault(&self.name, None);
                    if fault.said {
                        info!(output = %self.name, state = state.as_str(), "the output follows again");
                    }
                }
                return;
            }
            Ok(_) => {
                switches.set(Direction::Output, &self.name, state.inverse());
                "the line does not follow: look for a short circuit or a second driver".to_owned()
            }
            Err(cause) => cause.to_string(),
        };
        let (now, earlier) = (Instant::now(), self.fault);
        let wait = earlier.map_or(DRIVE_AGAIN.0, |earlier| (earlier.wait * 2).min(DRIVE_AGAIN.1));
        let mut said = earlier.is_some_and(|earlier| earlier.said);
        if let Some(left_out) = self.fault_line.due(now.into_std()) {
            error!(output = %self.name, wanted = state.as_str(), %cause, left_out, "could not switch the output; trying again");
            said = true;
        }
        self.fault = Some(Fault { again_at: now + wait, wait, said });
        let fault = format!("could not be switched {}: {cause}", state.as_str());
        switches.set_fault(&self.name, Some(fault));
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
        let next = outputs.iter().filter_map(|output| output.deadline(last_heard)).min();
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
                let now = Instant::now();
                for output in &mut outputs {
                    output.pass_time(&switches, now);
                }
            }
            () = shutdown.requested() => break,
        }
    }
    end(outputs, &switches).await;
}

/// Every output takes its safe state. A line that fails is driven again for a short time: nobody does it afterwards.
async fn end(mut outputs: Vec<Output>, switches: &Switches) {
    let give_up = Instant::now() + LAST_TRIES_WITHIN;
    loop {
        for output in &mut outputs {
            output.drive(output.target.safety.safe, switches);
        }
        outputs.retain(|output| output.fault.is_some());
        if outputs.is_empty() {
            return;
        }
        if Instant::now() + DRIVE_AGAIN.0 > give_up {
            break;
        }
        sleep(DRIVE_AGAIN.0).await;
    }
    for output in outputs {
        error!(output = %output.name, safe = output.target.safety.safe.as_str(), "the output did not take its safe state before the end: switch it off by hand");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::gpio::LineError;
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

    /// A line that fails while it is told to; afterwards it has the level that was set last.
    #[derive(Clone)]
    struct Failing {
        level: Arc<Mutex<Level>>,
        broken: Arc<AtomicBool>,
        tries: Arc<AtomicUsize>,
    }

    impl Failing {
        fn new() -> Self {
            let level = Arc::new(Mutex::new(Level::Low));
            Self { level, broken: Arc::default(), tries: Arc::default() }
        }
    }

    impl Line for Failing {
        fn set(&mut self, level: Level) -> Result<(), LineError> {
            self.tries.fetch_add(1, Ordering::Relaxed);
            if self.broken.load(Ordering::Relaxed) {
                let cause = std::io::Error::from_raw_os_error(libc::EIO);
                return Err(LineError::Io { line: "GPIO27".to_owned(), cause });
            }
            *self.level.lock().unwrap() = level;
            Ok(())
        }

        fn level(&self) -> Result<Level, LineError> {
            Ok(*self.level.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_fails_on_the_step_to_safe_is_driven_again_until_it_holds() {
        let fan: Id = "fan".parse().unwrap();
        let (switches, line) = (Arc::new(Switches::new([fan.clone()])), Failing::new());
        let output = Output::new(fan.clone(), Box::new(line.clone()), Level::High, SAFETY);
        let (trigger, stopped) = shutdown::channel();
        let running = tokio::spawn(run(vec![output], Arc::clone(&switches), stopped));
        switches.changed().await;
        switches.broker_heard();
        switches.send_command(&fan, Command { to: Wanted::Be(Switch::On), hold: None });
        switches.changed().await;
        assert_eq!(line.level().unwrap(), Level::High);
        line.broken.store(true, Ordering::Relaxed);
        let before = line.tries.load(Ordering::Relaxed);
        // An hour without the broker: tried often enough, and not all the time.
        sleep(Duration::from_hours(1)).await;
        let tries = line.tries.load(Ordering::Relaxed) - before;
        assert!((700..800).contains(&tries), "{tries} tries");
        let faults = switches.faults();
        assert!(faults[&fan].contains("OFF") && faults[&fan].contains("GPIO27"), "{faults:?}");
        assert!(switches.take_faults_changed() && !switches.take_faults_changed());
        line.broken.store(false, Ordering::Relaxed);
        switches.changed().await;
        assert_eq!(line.level().unwrap(), Level::Low);
        assert!(switches.faults().is_empty() && switches.take_faults_changed());
        // At the end, too: the first tries fail.
        switches.broker_heard();
        switches.send_command(&fan, Command { to: Wanted::Be(Switch::On), hold: None });
        switches.changed().await;
        line.broken.store(true, Ordering::Relaxed);
        trigger.throw();
        sleep(LAST_TRIES_WITHIN / 2).await;
        line.broken.store(false, Ordering::Relaxed);
        running.await.unwrap();
        assert_eq!(line.level().unwrap(), Level::Low);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_never_holds_does_not_keep_the_node_from_ending() {
        let fan: Id = "fan".parse().unwrap();
        let (switches, line) = (Arc::new(Switches::new([fan.clone()])), Failing::new());
        line.broken.store(true, Ordering::Relaxed);
        let output = Output::new(fan, Box::new(line), Level::High, SAFETY);
        let (trigger, stopped) = shutdown::channel();
        trigger.throw();
        let begin = Instant::now();
        run(vec![output], switches, stopped).await;
        assert!(begin.elapsed() <= LAST_TRIES_WITHIN);
    }
}
