//! `humidor doctor`: checks this board, and names a remedy for each fault.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use rustix::io::Errno;
use rustix::thread::{ClockId, NanosleepRelativeResult, Timespec, clock_nanosleep_relative};
use tokio::time::timeout;

use super::failure::{self, Failure};
use super::{node_start, read, start_log};
use crate::board::Recognised;
use crate::clock::{ClockTrust, Stamper};
use crate::config::{self, Doctor, Layers, Problem};
use crate::exit::Code;
use crate::gpio::Pin;
use crate::gpio::chips::{self, Chips};
use crate::health::{self, Answer, State};
use crate::node::{Backend, LOGIN_TIMEOUT, Lines, LoginTrial, SETTLE};
use crate::reading::{ClockState, IdError};

/// Page size in bytes of every known board but the Raspberry Pi 5.
const PAGE_BYTES: usize = 4096;
/// Free space in bytes on the data folder's disk that is soon too little.
const FREE_MIN_BYTES: u64 = 100 * 1024 * 1024;
/// After this long without an answer to a login, the wait is told.
const SAID_TO_WAIT: Duration = Duration::from_secs(3);

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

/// Prints every finding, and what to do next; the first fault sets the exit code.
pub fn run(layers: Layers) -> Result<(), Failure> {
    start_log(&layers.logging().quiet());
    let settings = config::doctor(layers);
    let runs = settings
        .node
        .as_ref()
        .and_then(|node| health::ask(&health::name("node", node.as_str())).ok());
    let mut report = Report { out: io::stdout().lock(), first: None };
    for Problem(text) in &settings.problems.0 {
        report.add("settings", Finding::Wrong(text.clone(), Code::Config))?;
    }
    for text in &settings.warnings {
        report.add("settings", Finding::Note(text.clone()))?;
    }
    if let Some(board) = &settings.board {
        report.add("board", about_board(board))?;
    }
    let simulated = matches!(settings.backend, Some(Backend::Sim { .. }));
    if simulated {
        let text = "simulated (HUMIDOR_GPIO=sim): no chip is needed".to_owned();
        report.add("gpio", Finding::Fine(text))?;
    } else {
        let chips = Chips::scan(Path::new(chips::DEVICES));
        report.add("gpio", about_chips(&chips))?;
        for (name, pin) in settings.uses.iter().filter(|_| !chips.open.is_empty()) {
            if let Some(board) = &settings.board {
                report.add("pin", about_pin(name, pin, board, &chips))?;
            }
        }
    }
    report.add("clock", about_clock(Stamper::start(ClockTrust::Kernel).now().clock))?;
    report.add("seccomp", about_filter(call_of_32_bit_programs()))?;
    report.add("pages", about_pages(rustix::param::page_size()))?;
    if let Some(data) = &settings.data {
        report.add("data", about_folder(data))?;
    }
    // What a node that runs has open cannot be tried beside it.
    if let Some(node) = &runs {
        report.add("node", about_node(node))?;
    } else {
        if report.first.is_none() {
            about_sensors(&settings, &mut report)?;
        }
        for login in &settings.logins {
            let finding = about_broker(login, &mut report)?;
            report.add("broker", finding)?;
        }
    }
    let next = next_step(&settings, runs.as_ref(), report.first.as_ref());
    let first = report.first.take();
    writeln!(report.out, "next:  {next}")?;
    drop(report);
    match first {
        Some((_, code)) => Err(Failure::new(code, anyhow!("a check failed, see above"))),
        None => Ok(()),
    }
}

/// The lines of the report, and the subject and code of the first fault.
struct Report<'a> {
    out: io::StdoutLock<'a>,
    first: Option<(&'static str, Code)>,
}

impl Report<'_> {
    fn add(&mut self, subject: &'static str, finding: Finding) -> io::Result<()> {
        match finding {
            Finding::Fine(text) => writeln!(self.out, "ok     {subject}: {text}"),
            Finding::Note(text) => writeln!(self.out, "note   {subject}: {text}"),
            Finding::Wrong(text, code) => {
                self.first = self.first.or(Some((subject, code)));
                writeln!(self.out, "WRONG  {subject}: {text}")
            }
        }
    }
}

/// The one thing to do now.
fn next_step(
    settings: &Doctor,
    runs: Option<&Answer>,
    first: Option<&(&'static str, Code)>,
) -> String {
    if let Some((subject, _)) = first {
        return format!("mend the first WRONG line above ({subject}), then run this command again");
    }
    if settings.uses.is_empty() {
        return "say what is connected, for example HUMIDOR_SENSORS=hall=dht22@7 (`humidor gpio header` draws the pins), and run this command again".to_owned();
    }
    match (settings.logins.as_slice(), runs) {
        ([], _) => "name the broker, for example HUMIDOR_BROKER=mqtt://192.168.1.20, and run this command again".to_owned(),
        (_, Some(_)) => "nothing: the node runs, and `humidor health` shows how it is".to_owned(),
        (_, None) => node_start::how_to(Path::new("/")),
    }
}

fn about_node(node: &Answer) -> Finding {
    let text = format!("runs, {}: {}", node.state.as_str(), node.detail);
    match node.state {
        State::Healthy | State::Starting => Finding::Fine(text),
        State::Degraded => Finding::Wrong(text, Code::Degraded),
        State::Unhealthy => Finding::Wrong(text, Code::Unavailable),
    }
}

/// Takes a reading of each sensor.
fn about_sensors(settings: &Doctor, report: &mut Report<'_>) -> Result<(), Failure> {
    let (Some(board), Some(backend), false) =
        (&settings.board, settings.backend, settings.sensors.is_empty())
    else {
        return Ok(());
    };
    let node = "doctor".parse().map_err(|error: IdError| Failure::new(Code::Internal, error))?;
    let sensors = match Lines::new(&node, board, backend).open(&settings.sensors, &[], &[]) {
        Ok(lines) => lines.sensors,
        Err(error) => {
            let failure = Failure::from(error);
            report.add("sensor", Finding::Wrong(failure.to_string(), failure.code()))?;
            return Ok(());
        }
    };
    std::thread::sleep(SETTLE);
    for sensor in sensors {
        let name = sensor.name.clone();
        let finding = match read::once(sensor) {
            Ok(measured) => Finding::Fine(format!("{name} reads {measured}")),
            Err(failure) => Finding::Wrong(
                format!(
                    "{name}: {failure}; check its wiring: VCC, ground, data, and 4.7 to 10 kΩ between data and VCC"
                ),
                failure.code(),
            ),
        };
        report.add("sensor", finding)?;
    }
    Ok(())
}

/// Logs in at the broker, and says so where that takes long.
fn about_broker(login: &LoginTrial, report: &mut Report<'_>) -> Result<Finding, Failure> {
    let mut outcome = Ok(());
    super::block_on(async {
        let trial = login.run();
        tokio::pin!(trial);
        outcome = if let Ok(outcome) = timeout(SAID_TO_WAIT, &mut trial).await {
            outcome
        } else {
            writeln!(
                report.out,
                "wait   broker: {} has not answered the login yet: a small or busy one takes its time to check a password; for {} s at most",
                login.broker,
                LOGIN_TIMEOUT.as_secs()
            )?;
            trial.await
        };
        Ok(())
    })?;
    Ok(match outcome {
        Ok(()) => Finding::Fine(format!("{} admits this board as `{}`", login.broker, login.node)),
        Err(reason) => Finding::Wrong(format!("{}: {reason}", login.broker), Code::Unavailable),
    })
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
    if folder.exists() && !folder.is_dir() {
        let text = format!("{} is a file, not a folder: set HUMIDOR_DATA", folder.display());
        return Finding::Wrong(text, Code::Io);
    }
    // Below a folder that may not be entered, nothing says what exists.
    if let Err(error) = folder.try_exists()
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        let uid = rustix::process::getuid().as_raw();
        let text = format!(
            "{} cannot be reached ({error}): uid {uid} needs the permission to enter (x) on every folder above it",
            folder.display()
        );
        return Finding::Wrong(text, Code::Permission);
    }
    // The folder may not exist yet: then the nearest existing one above it has to be writable.
    let above = folder.ancestors().find(|path| path.exists());
    let there = above.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".humidor-doctor-{}", std::process::id()));
    if let Err(error) = std::fs::write(&probe, b"x") {
        let uid = rustix::process::getuid().as_raw();
        let text = if there == folder {
            format!(
                "{} is not writable ({error}): mount a volume there that uid {uid} may write",
                folder.display()
            )
        } else {
            format!(
                "{} does not exist and cannot be made in {} ({error}): make it, for uid {uid}, or mount a volume there",
                folder.display(),
                there.display()
            )
        };
        return Finding::Wrong(text, failure::of_io(&error));
    }
    let _ = std::fs::remove_file(&probe);
    let what = if there == folder {
        format!("{} writable", folder.display())
    } else {
        format!("{} does not exist yet and can be made in {}", folder.display(), there.display())
    };
    let free = rustix::fs::statvfs(there).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    match free {
        Ok(free) if free < FREE_MIN_BYTES => {
            Finding::Note(format!("{what}, only {} MiB free", free / (1024 * 1024)))
        }
        Ok(free) => Finding::Fine(format!("{what}, {} MiB free", free / (1024 * 1024))),
        Err(error) => Finding::Note(format!("{what}, free space unknown: {error}")),
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
        let new = about_folder(&std::env::temp_dir().join("new/er"));
        assert!(matches!(new, Finding::Fine(text) if text.contains("er does not exist yet")));
        assert!(matches!(about_folder(Path::new("/proc/version")), Finding::Wrong(..)));
        assert!(matches!(about_clock(ClockState::Unsynced), Finding::Note(_)));
        assert_eq!(call_of_32_bit_programs(), Ok(()));
        assert!(matches!(about_filter(Ok(())), Finding::Fine(_)));
        assert!(
            matches!(about_filter(Err(Errno::PERM)), Finding::Wrong(text, Code::Permission) if text.contains("libseccomp 2.4.2"))
        );
        assert!(matches!(about_pages(16 * 1024), Finding::Note(_)));
    }
}
