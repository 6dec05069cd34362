//! The file with the clients that have logged in before. It is written behind the logins: what a kill takes with it is
//! noted again at the next login.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use crate::bounded_file::{self, ReadError};
use crate::broker::access::guesses::Guesses;
use crate::broker::access::known_clients::{FILE_MAX_BYTES, KnownClients};

/// Mode of the file.
const MODE: u32 = 0o600;
/// From a login of a new client to its note, so that those of a whole hall are written together.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// From one write to the next: there are clients that have a new id at each login.
const SAVE_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// The file, and whether it is going to be written.
#[derive(Debug, Clone)]
pub struct KnownFile {
    path: Option<Arc<Path>>,
    is_due: Arc<AtomicBool>,
}

impl KnownFile {
    /// Reads the file, if there is one.
    pub fn open(path: Option<PathBuf>) -> (Self, Option<KnownClients>) {
        let earlier = path.as_deref().and_then(|path| {
            let known = match bounded_file::read(path, FILE_MAX_BYTES as u64) {
                Ok(bytes) => {
                    KnownClients::read(&bytes).ok_or("it is none of the broker's".to_owned())
                }
                Err(ReadError::Io(error)) if error.kind() == ErrorKind::NotFound => return None,
                Err(error) => Err(error.to_string()),
            };
            known
                .inspect_err(|error| {
                    warn!(
                        file = %path.display(), error,
                        "cannot read which clients have logged in before; a new file is written"
                    );
                })
                .ok()
        });
        (Self { path: path.map(Into::into), is_due: Arc::default() }, earlier)
    }

    /// Writes the file now if there are new clients: at the broker's end.
    pub fn save(&self, guesses: &Mutex<Guesses>) {
        let Some(path) = &self.path else { return };
        let file = guesses.lock().unwrap_or_else(PoisonError::into_inner).known.save();
        if let Some(file) = file
            && let Err(error) = write(path, &file)
        {
            warn_of(path, &error);
        }
    }

    /// Writes the file after a while if there are new clients.
    pub fn save_later(&self, guesses: &Arc<Mutex<Guesses>>) {
        let Some(path) = &self.path else { return };
        let is_new = guesses.lock().unwrap_or_else(PoisonError::into_inner).known.is_unsaved();
        if !is_new || self.is_due.swap(true, Relaxed) {
            return;
        }
        let (path, guesses, is_due) =
            (Arc::clone(path), Arc::clone(guesses), Arc::clone(&self.is_due));
        tokio::spawn(async move {
            let mut after = SAVE_AFTER;
            loop {
                sleep(after).await;
                let (path, guesses) = (Arc::clone(&path), Arc::clone(&guesses));
                let saved = spawn_blocking(move || {
                    let file = guesses.lock().unwrap_or_else(PoisonError::into_inner).known.save();
                    file.is_some_and(|file| {
                        if let Err(error) = write(&path, &file) {
                            warn_of(&path, &error);
                        }
                        true
                    })
                });
                if !saved.await.unwrap_or(false) {
                    break;
                }
                after = SAVE_AGAIN_AFTER;
            }
            is_due.store(false, Relaxed);
        });
    }
}

fn warn_of(path: &Path, error: &std::io::Error) {
    warn!(
        file = %path.display(), %error,
        "cannot note which clients have logged in; after a restart others' wrong passwords may keep them out for a minute"
    );
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.to_owned().into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // One that a kill left may have another mode.
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    file.write_all(bytes)?;
    std::fs::rename(&beside, path)
}
