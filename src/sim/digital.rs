//! Simulated inputs and outputs, for a node without a board.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::dht::Level;
use crate::gpio::LineError;
use crate::gpio::digital::{Input, Output};

/// A simulated input changes this often.
const PERIOD: Duration = Duration::from_secs(20);

/// An input that is low for 20 s, high for 20 s, and so on. It has no events.
#[derive(Debug)]
pub struct SimInput {
    started: Instant,
}

impl Default for SimInput {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl SimInput {
    fn level_after(elapsed: Duration) -> Level {
        let periods = elapsed.as_secs() / PERIOD.as_secs();
        if periods.is_multiple_of(2) { Level::Low } else { Level::High }
    }
}

impl Input for SimInput {
    fn level(&self) -> Result<Level, LineError> {
        Ok(Self::level_after(self.started.elapsed()))
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn take_event(&mut self) -> Result<(), LineError> {
        Ok(())
    }
}

/// An output whose level is the one that was set last.
#[derive(Debug)]
pub struct SimOutput(pub Level);

impl Output for SimOutput {
    fn set(&mut self, level: Level) -> Result<(), LineError> {
        self.0 = level;
        Ok(())
    }

    fn level(&self) -> Result<Level, LineError> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_changes_after_each_period() {
        let after = |seconds| SimInput::level_after(Duration::from_secs(seconds));
        assert_eq!(
            [0, 19, 20, 39, 40].map(after),
            [Level::Low, Level::Low, Level::High, Level::High, Level::Low]
        );
    }
}
