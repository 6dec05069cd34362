//! Who used the processors during a measurement.

use std::time::Duration;

use super::process::{cpu, machine_cpu};

/// CPU times: between two of them, or since each began.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTimes {
    /// The generator's, with the process that it is.
    pub load: Duration,
    pub broker: Duration,
    /// All of the machine.
    machine: Duration,
}

impl CpuTimes {
    /// Now, with the broker whose process this is.
    pub fn now(broker: u32) -> Self {
        Self { load: cpu(std::process::id()), broker: cpu(broker), machine: machine_cpu() }
    }

    pub fn since(self, earlier: Self) -> Self {
        Self {
            load: self.load.saturating_sub(earlier.load),
            broker: self.broker.saturating_sub(earlier.broker),
            machine: self.machine.saturating_sub(earlier.machine),
        }
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            load: self.load + other.load,
            broker: self.broker + other.broker,
            machine: self.machine + other.machine,
        }
    }

    /// What is neither the generator's nor the broker's: a machine with much of it was not quiet.
    pub fn others(self) -> Duration {
        self.machine.saturating_sub(self.load + self.broker)
    }
}
