//! First in the queue and never paged out, for the 25 ms of a read and not longer.
//!
//! Reads work without: a frame that was interrupted is found out by its gaps and read again. With it,
//! fewer are.

use rustix::mm::{MlockAllFlags, mlockall, munlockall};
use tracing::info;

/// Lowest of the real-time priorities: above every ordinary task, below every other real-time one.
const PRIORITY: i32 = 1;

/// What the system permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permitted {
    fifo: bool,
    lock: bool,
}

impl Permitted {
    /// Nothing, for readers that are not in a hurry.
    pub const NOTHING: Self = Self { fifo: false, lock: false };

    /// Tries both once, takes them back, and says what is not permitted.
    #[must_use]
    pub fn probe() -> Self {
        let permitted = {
            let attempt = During::begin(Self { fifo: true, lock: true });
            attempt.permitted
        };
        if permitted != (Self { fifo: true, lock: true }) {
            info!(
                real_time = permitted.fifo,
                memory_lock = permitted.lock,
                "reads run without full real-time privileges, which is fine; busy boards read more at once with `--cap-add SYS_NICE --cap-add IPC_LOCK`"
            );
        }
        permitted
    }
}

/// While it lives, this thread is in a hurry.
#[derive(Debug)]
pub struct During {
    permitted: Permitted,
}

impl During {
    /// Begins, as far as it is permitted.
    #[must_use]
    pub fn begin(permitted: Permitted) -> Self {
        // Only what is in memory already, and without touching the rest: populating every thread's
        // stack would take longer than the read.
        let lock =
            permitted.lock && mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT).is_ok();
        let fifo = permitted.fifo && kernel::set_scheduler(kernel::FIFO, PRIORITY);
        Self { permitted: Permitted { fifo, lock } }
    }
}

impl Drop for During {
    fn drop(&mut self) {
        if self.permitted.fifo {
            let _ = kernel::set_scheduler(kernel::OTHER, 0);
        }
        if self.permitted.lock {
            let _ = munlockall();
        }
    }
}

/// The one call here that no safe crate offers without bringing bindings of other systems along. musl's
/// wrapper of it always fails, so it is made directly.
#[allow(unsafe_code)]
mod kernel {
    pub const OTHER: libc::c_int = libc::SCHED_OTHER;
    pub const FIFO: libc::c_int = libc::SCHED_FIFO;

    /// Changes how this thread is scheduled; whether that was permitted.
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
    fn the_hurry_ends_with_the_read() {
        let permitted = Permitted::probe();
        assert_eq!(policy(), "0");
        {
            let _hurry = During::begin(permitted);
            assert_eq!(policy(), if permitted.fifo { "1" } else { "0" });
        }
        assert_eq!(policy(), "0");
        let _calm = During::begin(Permitted::NOTHING);
        assert_eq!(policy(), "0");
    }
}
