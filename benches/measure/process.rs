//! What the kernel says of a process.

use std::fs;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;

/// CPU time of all its threads, user and system, in steps of a tick (10 ms). A process that is gone has had none.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): utime and stime are fields 14 and 15; the name, field 2, may have spaces in its parentheses.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
}

/// CPU time of the whole machine: user, nice, system and interrupts.
pub fn machine_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    // proc(5): "cpu", user, nice, system, idle, iowait, irq, softirq.
    let fields = stat.lines().next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(1).take(7).enumerate().filter(|(at, _)| ![3, 4].contains(at));
    let ticks: u64 = ticks.filter_map(|(_, field)| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
}

/// Resident memory in MB.
pub fn resident_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kb.unwrap_or(f64::NAN) / 1000.0
}

/// Bytes that it had written to a disk, or made the kernel write later: `write_bytes` of `proc_pid_io(5)`. The kernel counts
/// pages of files as they become dirty, so a page that is written again before it went out counts once; the file
/// system's journal and inodes are not in it. `None` when the process is gone.
pub fn written_bytes(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes:"))?.trim().parse().ok()
}

/// Whether it has ended and its parent has not asked for its exit code.
pub fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|fields| fields.trim_start().starts_with('Z'))
}
