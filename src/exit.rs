//! Exit codes, in one place. They follow sysexits(3), so that a script can tell a wrong setting from
//! a missing sensor.

use std::fmt;
use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The command line is wrong.
    Usage = 64,
    /// A file's content is wrong: a frame, a database of a newer version.
    Data = 65,
    /// There is no such device or file.
    NoDevice = 66,
    /// Something needed is not there now: a port, a broker, an unhealthy process.
    Unavailable = 69,
    /// A part of the program died.
    Internal = 70,
    /// The disk or the line failed.
    Io = 74,
    /// Not allowed.
    Permission = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl Code {
    /// The code of a line that cannot be used.
    #[must_use]
    pub fn of_line(error: &crate::gpio::LineError) -> Self {
        use crate::gpio::LineError;
        match error {
            LineError::NoChips { .. } | LineError::NoChip { .. } => Self::NoDevice,
            LineError::NoLine { .. } | LineError::Unsuitable { .. } => Self::Config,
            LineError::Permission { .. } => Self::Permission,
            LineError::Busy { .. } => Self::Unavailable,
            LineError::Io { cause, .. } => match cause.kind() {
                std::io::ErrorKind::PermissionDenied => Self::Permission,
                std::io::ErrorKind::NotFound => Self::NoDevice,
                _ => Self::Io,
            },
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that knows its exit code.
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

    /// Whether it is only that the reader of our output has had enough, as `| head` does.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        let io = self.error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Its exit code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:#}` joins the causes: one line that says what, where and why.
        write!(f, "{:#}", self.error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Code::Permission,
            std::io::ErrorKind::NotFound => Code::NoDevice,
            _ => Code::Io,
        };
        Self::new(code, error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(Code::Io, error)
    }
}

impl From<crate::store::OpenError> for Failure {
    fn from(error: crate::store::OpenError) -> Self {
        use crate::store::OpenError;
        let code = match &error {
            error if error.is_permission() => Code::Permission,
            OpenError::InUse { .. } => Code::Unavailable,
            OpenError::Newer { .. } | OpenError::Foreign { .. } => Code::Data,
            OpenError::Io { .. } | OpenError::Sqlite { .. } => Code::Io,
        };
        Self::new(code, error)
    }
}

impl From<crate::broker::BrokerError> for Failure {
    fn from(error: crate::broker::BrokerError) -> Self {
        use crate::broker::BrokerError;
        let code = match error {
            BrokerError::Open(error) => return error.into(),
            BrokerError::Listen { ref source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Code::Permission
            }
            BrokerError::Listen { .. } => Code::Unavailable,
            BrokerError::Access(_) | BrokerError::Tls(_) => Code::Config,
            BrokerError::Thread(_) => Code::Internal,
            BrokerError::Damaged(_) => Code::Io,
        };
        Self::new(code, error)
    }
}

impl From<crate::node::NodeError> for Failure {
    fn from(error: crate::node::NodeError) -> Self {
        match error {
            crate::node::NodeError::Outbox(error) => error.into(),
            crate::node::NodeError::Lines(error) => error.into(),
            error @ crate::node::NodeError::Tls(_) => Self::new(Code::Config, error),
            error @ crate::node::NodeError::Thread(_) => Self::new(Code::Internal, error),
            error @ crate::node::NodeError::Damaged => Self::new(Code::Io, error),
        }
    }
}

impl From<crate::node::LinesError> for Failure {
    fn from(error: crate::node::LinesError) -> Self {
        use crate::node::LinesError;
        let code = match &error {
            LinesError::Pin(_) | LinesError::Twice { .. } => Code::Config,
            LinesError::Line { cause, .. } => Code::of_line(cause),
        };
        Self::new(code, error)
    }
}
