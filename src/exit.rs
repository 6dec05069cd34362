//! The exit codes. They follow sysexits(3), so that a script can tell a wrong setting from a missing sensor.

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
    /// It works, and somebody should look at it: a node whose readings do not leave.
    Degraded = 75,
    /// Not allowed.
    Permission = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}
