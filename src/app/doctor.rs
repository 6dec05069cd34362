//! `humidor doctor`: what this board lacks, each with its remedy.

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

/// Page size of every board we know but the Raspberry Pi 5, in bytes.
const PAGE_BYTES: usize = 4096;
/// Less free space than this on the data folder's disk, in bytes, is soon too little.
const FREE_MIN_BYTES: u64 = 100 * 1024 * 1024;

/// How a check went.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// As it should be.
    Fine(String),
    /// Works, but somebody should know.
    Note(String),
    /// Does not work; what to do, and the exit code of what would fail.
    Wrong(String, Code),
}

/// Prints every finding; the exit code is that of the first thing that does not work.
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
    let mut first = None;
    for (subject, finding) in findings {
        match finding {
            Finding::Fine(text) => println!("ok     {subject}: {text}"),
            Finding::Note(text) => println!("note   {subject}: {text}"),
            Finding::Wrong(text, code) => {
                println!("WRONG  {subject}: {text}");
                first = first.or(Some(code));
            }
        }
    }
    first.map_or(Ok(()), |code| Err(Failure::new(code, anyhow!("something is wrong, see above"))))
}

fn about_board(board: &Recognised) -> Finding {
    if board.board.is_some() {
        Finding::Fine(board.to_string())
    } else {
        Finding::Note(format!(
            "not recognised ({}); for pins by number or name set HUMIDOR_BOARD",
            board.reason
        ))
    }
}

fn about_chips(chips: &Chips) -> Finding {
    if let Some(denied) = chips.denied.first() {
        let text = format!("{} may not be opened: {}", denied.device.display(), denied.remedy());
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
        ClockState::Synced => Finding::Fine("set by a time source".to_owned()),
        ClockState::Unsynced => Finding::Note(
            "no time source sets it: readings are marked `unsynced` and re-stamped later; run chrony or systemd-timesyncd on the board, or set HUMIDOR_CLOCK=always where another way sets it".to_owned(),
        ),
    }
}

/// The calls with 64 bits of time that Linux 5.1 gave to 32-bit programs, by one of them that the vDSO never answers: a
/// sleep of nothing. For a 64-bit program it is the call of old.
fn call_of_32_bit_programs() -> Result<(), Errno> {
    match clock_nanosleep_relative(ClockId::Monotonic, &Timespec { tv_sec: 0, tv_nsec: 0 }) {
        NanosleepRelativeResult::Err(error) => Err(error),
        NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) => Ok(()),
    }
}

fn about_filter(answer: Result<(), Errno>) -> Finding {
    match answer {
        Ok(()) => Finding::Fine("the calls for time and sleep are let through".to_owned()),
        // A filter that has never heard of them says EPERM, after which the C library does not try the older ones.
        Err(error) => Finding::Wrong(
            format!(
                "a filter refuses a call for time and sleep ({error}): 32-bit programs need Docker 19.03.9 and libseccomp 2.4.2 on the board, or later; update both. Until then: docker run --security-opt seccomp=unconfined"
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
            "{text}: fine for humidor; some other programs for ARM need {PAGE_BYTES}"
        ))
    }
}

fn about_folder(folder: &Path) -> Finding {
    // The folder may not be there yet: the nearest one that is has to take it.
    let there = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".humidor-doctor-{}", std::process::id()));
    if let Err(error) = std::fs::write(&probe, b"x") {
        return Finding::Wrong(
            format!(
                "{} cannot be written ({error}): mount a volume there that uid {} may write",
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
    fn each_thing_that_is_wrong_has_the_code_of_what_would_fail() {
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
