//! The health of a running role, on an abstract Unix socket: the same binary reads it inside the container. It needs no
//! port, no file and no curl, and nothing outside the container reaches it.

use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tracing::warn;

use crate::shutdown::Shutdown;

/// Longest wait for an answer; compose's default health check has 30 s in all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer, in bytes.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It works.
    Healthy,
    /// It starts; a restart would only make it start again.
    Starting,
    /// It works, and somebody should look at it. A restart does not help.
    Degraded,
    /// It does not work.
    Unhealthy,
}

impl State {
    /// The word for the operator.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Starting => "starting",
            Self::Degraded => "degraded",
            Self::Unhealthy => "not healthy",
        }
    }
}

/// The health of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// `broker` or `node`.
    pub role: String,
    /// How it is.
    pub state: State,
    /// The cause if it is not healthy, and its counters.
    pub detail: String,
}

/// The socket's name of a role. `which` makes it unique on a machine: a node's id, a broker's MQTT port.
#[must_use]
pub fn name(role: &str, which: &str) -> String {
    format!("humidor-{role}-{which}")
}

/// Answers under `name` until `shutdown`. If the name is in use, the process runs on without a health check.
pub async fn serve(name: String, answer: impl Fn() -> Answer, mut shutdown: Shutdown) {
    let listener = match listen(&name) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(name, %error, "no health check: its socket cannot be opened");
            return;
        }
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((mut asking, _)) = accepted
                    && let Ok(text) = serde_json::to_vec(&answer())
                {
                    let _ = asking.write_all(&text).await;
                }
            }
            () = shutdown.requested() => return,
        }
    }
}

fn listen(name: &str) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Asks the process under `name` for its health.
///
/// # Errors
/// When there is no such process, or it does not answer in time.
pub fn ask(name: &str) -> io::Result<Answer> {
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut text = Vec::new();
    stream.by_ref().take(ANSWER_MAX_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
