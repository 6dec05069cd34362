//! A process's own word on how it is, on an abstract Unix socket: reachable inside its container by
//! the same binary, from nowhere else, without a port, a file or curl.

use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tracing::warn;

use crate::shutdown::Shutdown;

/// How long an answer may take; compose's default health check gives 30 s in all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer, in bytes.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// What a process says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// `broker` or `node`.
    pub role: String,
    /// Whether it does its work.
    pub healthy: bool,
    /// Why not, or how much it did.
    pub detail: String,
}

/// Whom to ask. The name is unique on a machine: a node's id, a broker's MQTT port.
#[must_use]
pub fn name(role: &str, which: &str) -> String {
    format!("humidor-{role}-{which}")
}

/// Answers under `name` until `shutdown`. A name that is taken costs the health check, not the work.
pub async fn serve(name: String, answer: impl Fn() -> Answer, mut shutdown: Shutdown) {
    let listener = match listen(&name) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(name, %error, "no health check: its name is taken or refused");
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

/// Asks the process under `name`.
///
/// # Errors
/// When there is none, or it does not answer in time.
pub fn ask(name: &str) -> io::Result<Answer> {
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut text = Vec::new();
    stream.by_ref().take(ANSWER_MAX_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
