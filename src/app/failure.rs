//! How a command fails: an error with its exit code. The one place that decides which error of which part of the program
//! gets which code.

use std::fmt;
use std::io;

use crate::accept::ListenError;
use crate::broker::{BrokerError, UsersError};
use crate::config::Problems;
use crate::exit::Code;
use crate::gpio::LineError;
use crate::node::{LinesError, NodeError};
use crate::store::{OpenError, is_damage};
use crate::upstream::{Fault, Kind};

/// An error with its exit code.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    error: anyhow::Error,
}

impl Failure {
    /// Attaches a code to an error.
    pub fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    /// Whether the reader of standard output closed the pipe, as `| head` does. This is no error.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        let io = self.error.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Its exit code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line that says what, where and why. Many errors say their cause themselves.
        let mut line = String::new();
        for cause in self.error.chain() {
            let cause = cause.to_string();
            if line.is_empty() {
                line = cause;
            } else if !line.contains(&cause) {
                line = line + ": " + &cause;
            }
        }
        f.write_str(&line)
    }
}

/// The code of an error of the operating system.
pub(super) fn of_io(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Code::Permission,
        io::ErrorKind::NotFound => Code::NoDevice,
        _ => Code::Io,
    }
}

/// The code of a line that cannot be used.
pub(super) fn of_line(error: &LineError) -> Code {
    match error {
        LineError::NoChips { .. } | LineError::NoChip { .. } => Code::NoDevice,
        LineError::NoLine { .. } | LineError::Unsuitable { .. } => Code::Config,
        LineError::Permission { .. } => Code::Permission,
        LineError::Busy { .. } => Code::Unavailable,
        LineError::Io { cause, .. } => of_io(cause),
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(Code::Config, problems)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(of_io(&error), error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            return Self::new(
                Code::Data,
                anyhow::anyhow!("the log is damaged ({error}); `humidor db check` says where"),
            );
        }
        Self::new(Code::Io, error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            error if error.is_permission() => Code::Permission,
            OpenError::InUse { .. } => Code::Unavailable,
            OpenError::Newer { .. } | OpenError::Foreign { .. } => Code::Data,
            OpenError::Io { .. } | OpenError::Sqlite { .. } => Code::Io,
        };
        Self::new(code, error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let code = match fault.kind {
            Kind::Permission => Code::Permission,
            Kind::Settings => Code::Config,
            Kind::Schema | Kind::Row | Kind::Copy | Kind::Contested | Kind::Diverged => Code::Data,
            Kind::Log => Code::Io,
            Kind::Unavailable | Kind::Requested => Code::Unavailable,
        };
        Self::new(code, fault)
    }
}

impl From<UsersError> for Failure {
    fn from(error: UsersError) -> Self {
        let code = match &error {
            UsersError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Code::Permission
            }
            _ => Code::Config,
        };
        Self::new(code, error)
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        let code = match error {
            BrokerError::Open(error) => return error.into(),
            BrokerError::Listen(ListenError { ref source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Code::Permission
            }
            BrokerError::Listen(_) | BrokerError::Stopped => Code::Unavailable,
            BrokerError::Access(_) | BrokerError::Tls(_) | BrokerError::Upstream(_) => Code::Config,
            BrokerError::Thread(_) => Code::Internal,
            BrokerError::Damaged(_) | BrokerError::Disk { .. } => Code::Io,
        };
        Self::new(code, error)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Outbox(error) => error.into(),
            NodeError::Lines(error) => error.into(),
            error @ NodeError::Tls(_) => Self::new(Code::Config, error),
            error @ NodeError::Thread(_) => Self::new(Code::Internal, error),
            error @ NodeError::Damaged => Self::new(Code::Io, error),
        }
    }
}

impl From<LinesError> for Failure {
    fn from(error: LinesError) -> Self {
        let code = match &error {
            LinesError::Pin(_) | LinesError::Twice { .. } => Code::Config,
            LinesError::Line { cause, .. } => of_line(cause),
        };
        Self::new(code, error)
    }
}

impl From<LineError> for Failure {
    fn from(error: LineError) -> Self {
        Self::new(of_line(&error), error)
    }
}
