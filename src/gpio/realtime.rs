//! Real-time priority and locked memory, for the 25 ms of a read and not longer.
//!
//! Reads work without both: an interrupted frame shows gaps and is read again. With both, fewer frames are
//! interrupted.

use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use tracing::info;

/// Lowest of the real-time priorities: above every ordinary task, below every other real-time one.
const PRIORITY: i32 = 1;

/// Which of the two the system permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permitted {
    fifo: bool,
    lock: bool,
}

impl Permitted {
    /// Neither, for readers that need no exact time.
    pub const NEITHER: Self = Self { fifo: false, lock: false };

    /// Tries both once, gives them back, and logs which of them is not permitted.
    #[must_use]
    pub fn probe() -> Self {
        let permitted = {
            let attempt = Guard::enter(Self { fifo: true, lock: true });
            attempt.permitted
        };
        if permitted != (Self { fifo: true, lock: true }) {
            info!(
                real_time = permitted.fifo,
                memory_lock = permitted.lock,
                "reads run without full real-time privileges, which is enough for most boards; on a busy board more reads succeed with `--cap-add SYS_NICE --cap-add IPC_LOCK`"
            );
        }
        permitted
    }
}

/// While it lives, this thread has real-time priority and its memory is locked, as far as permitted.
#[derive(Debug)]
pub struct Guard {
    permitted: Permitted,
}

impl Guard {
    /// Raises the priority and locks memory, as far as `permitted` says.
    #[must_use]
    pub fn enter(permitted: Permitted) -> Self {
        // Only what is in memory already, and without touching the rest: populating every thread's
        // stack would take longer than the read.
        let lock =
            permitted.lock && mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT).is_ok();
        let fifo = permitted.fifo && kernel::set_scheduler(kernel::FIFO, PRIORITY);
        Self { permitted: Permitted { fifo, lock } }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.permitted.fifo {
            let _ = kernel::set_scheduler(kernel::OTHER, 0);
        }
        if self.permitted.lock {
            let _ = munlockall();
        }
    }
}

/// The one call here that no safe crate offers without bindings of other systems. musl's wrapper of it always
/// fails, so the call is made directly.
#[allow(unsafe_code)]
mod kernel {
    pub const OTHER: libc::c_int = libc::SCHED_OTHER;
    pub const FIFO: libc::c_int = libc::SCHED_FIFO;

    /// Changes how this thread is scheduled; returns whether that was permitted.
    pub fn set_scheduler(policy: libc::c_int, priority: i32) -> bool {
        // `struct sched_param` of the kernel is one int (include/uapi/linux/sched/types.h).
        let parameter: libc::c_int = priority;
        // SAFETY: the kernel reads one int from a pointer to an int that outlives the call. 0 is the
        // calling thread.
        let outcome = unsafe {
            libc::syscall(
                libc::SYS_sched_setscheduler,
                0 as libc::pid_t,
                policy,
                &raw const parameter,
            )
        };
        outcome == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> String {
        // Field 41 of proc(5)'s stat, counted after the command's closing parenthesis.
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().to_owned()
    }

    #[test]
    fn real_time_priority_ends_with_the_read() {
        let permitted = Permitted::probe();
        assert_eq!(policy(), "0");
        {
            let _realtime = Guard::enter(permitted);
            assert_eq!(policy(), if permitted.fifo { "1" } else { "0" });
        }
        assert_eq!(policy(), "0");
        let _ordinary = Guard::enter(Permitted::NEITHER);
        assert_eq!(policy(), "0");
    }
}
