//! The time, and whether to believe it: boards have no clock of their own and wake up in the past.

use std::time::Instant;

use crate::reading::{ClockState, Stamp};

/// Unix time in milliseconds UTC by the system's clock.
#[must_use]
pub fn unix_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The broker's clock is not set while it is before this, the beginning of 2025 in Unix ms: no release is older. A board
/// without a battery wakes up in 1970, or at the date of its kernel.
pub const SET_FROM_MS: i64 = 1_735_689_600_000;

/// Whose word is taken for the clock being set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockTrust {
    /// The kernel's: it knows whether a time source (NTP, PTP, GPS) disciplines the clock.
    Kernel,
    /// The operator's, for a plant that sets clocks by other means.
    Always,
}

/// Stamps readings of one run.
#[derive(Debug, Clone, Copy)]
pub struct Stamper {
    started: Instant,
    trust: ClockTrust,
}

impl Stamper {
    /// Starts the run's monotonic count.
    #[must_use]
    pub fn start(trust: ClockTrust) -> Self {
        Self { started: Instant::now(), trust }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Stamp {
        let clock = match self.trust {
            ClockTrust::Always => ClockState::Synced,
            ClockTrust::Kernel => kernel_clock_state(),
        };
        let mono_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Stamp { at_ms: unix_ms(), clock, mono_ms }
    }
}

/// What the kernel says about its clock. Where it may not be asked (a seccomp filter), the honest
/// answer is that it is not known to be set.
fn kernel_clock_state() -> ClockState {
    match kernel::adjtimex() {
        // Any state but TIME_ERROR: synchronised, perhaps with a leap second ahead (adjtimex(2)).
        Some(state) if state != kernel::TIME_ERROR => ClockState::Synced,
        _ => ClockState::Unsynced,
    }
}

/// The one system call that no safe crate offers: libc's `timex` differs between 32-bit C libraries,
/// while the call's return value, which is all we need, does not.
#[allow(unsafe_code)]
mod kernel {
    /// The clock is not synchronised (`include/uapi/linux/timex.h`).
    pub const TIME_ERROR: libc::c_long = 5;

    /// State of the kernel clock; `None` when the call is refused.
    pub fn adjtimex() -> Option<libc::c_long> {
        // `struct timex` is 208 bytes on 64-bit kernels and less on 32-bit ones. All zero means
        // `modes = 0`: read only, no privilege needed.
        let mut timex = [0_u64; 64];
        // SAFETY: the kernel writes one `struct timex` of at most 208 bytes into a buffer of 512
        // bytes that is aligned for it, and keeps no pointer to it.
        let state = unsafe { libc::syscall(libc::SYS_adjtimex, timex.as_mut_ptr()) };
        (state >= 0).then_some(state)
    }
}
