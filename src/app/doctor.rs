//! `humidor doctor`: checks this board, and names a remedy for each fault.

use std::io::{self, Write};
use std::path::Path;

use anyhow::anyhow;
use rustix::io::Errno;
use rustix::thread::{ClockId, NanosleepRelativeResult, Timespec, clock_nanosleep_relative};

use super::failure::{self, Failure};
use super::start_log;
use crate::board::Recognised;
use crate::clock::{ClockTrust, Stamper};
use crate::config::{self, Layers, Wiring};
use crate::exit::Code;
use crate::gpio::Pin;
use crate::gpio::chips::{self, Chips};
use crate::reading::ClockState;

/// Page size in bytes of every known board but the Raspberry Pi 5.
const PAGE_BYTES: usize = 4096;
/// Free space in bytes on the data folder's disk that is soon too little.
const FREE_MIN_BYTES: u64 = 100 * 1024 * 1024;

/// Result of a check.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// No fault.
    Fine(String),
    /// No fault, but the user should know it.
    Note(String),
    /// A fault: its remedy, and the exit code of the command that would fail.
    Wrong(String, Code),
}

/// Prints every finding; the first fault sets the exit code.
pub fn run(layers: Layers) -> Result<(), Failure> {
    start_log(&layers.logging().quiet());
    let (data, Wiring { board, uses }) = config::data_and_wiring(layers)?;
    let chips = Chips::scan(Path::new(chips::DEVICES));
    let mut findings = vec![("board", about_board(&board)), ("gpio", about_chips(&chips))];
    findings.extend(uses.iter().map(|(name, pin)| ("pin", about_pin(name, pin, &board, &chips))));
    findings.push(("clock", about_clock(Stamper::start(ClockTrust::Kernel).now().clock)));
    findings.push(("seccomp", about_filter(call_of_32_bit_programs())));
    findings.push(("pages", about_pages(rustix::param::page_size())));
    findings.push(("data", about_folder(&data)));
    let (mut out, mut first) = (io::stdout().lock(), None);
    for (subject, finding) in findings {
        match finding {
            Finding::Fine(text) => writeln!(out, "ok     {subject}: {text}")?,
            Finding::Note(text) => writeln!(out, "note   {subject}: {text}")?,
            Finding::Wrong(text, code) => {
                writeln!(out, "WRONG  {subject}: {text}")?;
                first = first.or(Some(code));
            }
        }
    }
    first.map_or(Ok(()), |code| Err(Failure::new(code, anyhow!("a check failed, see above"))))
}

fn about_board(board: &Recognised) -> Finding {
    if board.board.is_some() {
        Finding::Fine(board.to_string())
    } else {
        Finding::Note(format!(
            "not recognised ({}); set HUMIDOR_BOARD to use pins by number or name",
            board.reason
        ))
    }
}

fn about_chips(chips: &Chips) -> Finding {
    if let Some(denied) = chips.denied.first() {
        let text = format!("{}: permission denied: {}", denied.device.display(), denied.remedy());
        return Finding::Wrong(text, Code::Permission);
    }
    if chips.open.is_empty() {
        let error = crate::gpio::LineError::NoChips { folder: chips::DEVICES.to_owned() };
        return Finding::Wrong(error.to_string(), Code::NoDevice);
    }
    let open = chips.open.iter().map(|c| format!("{} `{}`", c.path().display(), c.label()));
    Finding::Fine(open.collect::<Vec<_>>().join(", "))
}

fn about_pin(name: &str, pin: &Pin, board: &Recognised, chips: &Chips) -> Finding {
    let (address, known) = match board.resolve(pin) {
        Ok(found) => found,
        Err(error) => return Finding::Wrong(format!("{name}: {error}"), Code::Config),
    };
    match chips.line(&address, &pin.to_string()) {
        Err(error) => Finding::Wrong(format!("{name}: {error}"), failure::of_line(&error)),
        Ok(line) => match (chips::consumer(&line), known.and_then(|known| known.reserved)) {
            (Some(user), _) => Finding::Note(format!("{name}@{pin} is in use by `{user}`")),
            (None, Some(reason)) => Finding::Note(format!("{name}@{pin}: {reason}")),
            (None, None) => Finding::Fine(format!("{name}@{pin} is line {address}, free")),
        },
    }
}

fn about_clock(clock: ClockState) -> Finding {
    match clock {
        ClockState::Synced => Finding::Fine("a time source synchronises it".to_owned()),
        ClockState::Unsynced => Finding::Note(
            "no time source synchronises it: readings are marked `unsynced` and corrected later. Run chrony or systemd-timesyncd on the board, or set HUMIDOR_CLOCK=always if the clock is set by other means".to_owned(),
        ),
    }
}

/// Tries the system calls with 64-bit times, which Linux 5.1 added for 32-bit programs, by a sleep of zero: the vDSO never
/// answers it. A 64-bit program has only one such call.
fn call_of_32_bit_programs() -> Result<(), Errno> {
    match clock_nanosleep_relative(ClockId::Monotonic, &Timespec { tv_sec: 0, tv_nsec: 0 }) {
        NanosleepRelativeResult::Err(error) => Err(error),
        NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) => Ok(()),
    }
}

fn about_filter(answer: Result<(), Errno>) -> Finding {
    match answer {
        Ok(()) => Finding::Fine("the system calls for time and sleep are allowed".to_owned()),
        // A filter that does not know these calls answers EPERM; the C library then does not try the older ones.
        Err(error) => Finding::Wrong(
            format!(
                "a seccomp filter refuses the system calls for time and sleep ({error}). Install Docker 19.03.9 and libseccomp 2.4.2 or later on the board; until then use docker run --security-opt seccomp=unconfined"
            ),
            Code::Permission,
        ),
    }
}

fn about_pages(bytes: usize) -> Finding {
    let text = format!("{bytes} bytes");
    if bytes == PAGE_BYTES {
        Finding::Fine(text)
    } else {
        Finding::Note(format!(
            "{text}: humidor runs; some other programs for ARM need {PAGE_BYTES}"
        ))
    }
}

fn about_folder(folder: &Path) -> Finding {
    // The folder may not exist yet: then the nearest existing one above it has to be writable.
    let there = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".humidor-doctor-{}", std::process::id()));
    if let Err(error) = std::fs::write(&probe, b"x") {
        return Finding::Wrong(
            format!(
                "{} is not writable ({error}): mount a volume there that uid {} may write",
                there.display(),
                rustix::process::getuid().as_raw()
            ),
            failure::of_io(&error),
        );
    }
    let _ = std::fs::remove_file(&probe);
    let free = rustix::fs::statvfs(there).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    match free {
        Ok(free) if free < FREE_MIN_BYTES => {
            Finding::Note(format!("{}: only {} MiB free", there.display(), free / (1024 * 1024)))
        }
        Ok(free) => Finding::Fine(format!(
            "{} writable, {} MiB free",
            there.display(),
            free / (1024 * 1024)
        )),
        Err(error) => {
            Finding::Note(format!("{} writable, free space unknown: {error}", there.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;

    #[test]
    fn each_fault_has_the_code_of_the_command_that_would_fail() {
        let board = Recognised::set(Board::by_id("orange-pi-zero").unwrap());
        let none = Chips::none();
        assert!(matches!(about_chips(&none), Finding::Wrong(_, Code::NoDevice)));
        let pin = |text: &str| about_pin("hall", &text.parse().unwrap(), &board, &none);
        assert!(matches!(pin("9"), Finding::Wrong(text, Code::Config) if text.contains("PG6")));
        assert!(matches!(pin("7"), Finding::Wrong(_, Code::NoDevice)));
        assert!(matches!(about_folder(Path::new("/proc/humidor")), Finding::Wrong(..)));
        assert!(matches!(about_folder(&std::env::temp_dir().join("new/er")), Finding::Fine(_)));
        assert!(matches!(about_clock(ClockState::Unsynced), Finding::Note(_)));
        assert_eq!(call_of_32_bit_programs(), Ok(()));
        assert!(matches!(about_filter(Ok(())), Finding::Fine(_)));
        assert!(
            matches!(about_filter(Err(Errno::PERM)), Finding::Wrong(text, Code::Permission) if text.contains("libseccomp 2.4.2"))
        );
        assert!(matches!(about_pages(16 * 1024), Finding::Note(_)));
    }
}
