//! Files that are read again while the broker runs: on SIGHUP, and when they have changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What tells one content of a file from the next: who replaces a file by renaming changes the inode.
type Stamp = (u64, u64, i64, i64);

/// Some files, as they were when last looked at.
#[derive(Debug)]
pub struct Watched {
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
    hangup: Signal,
}

impl Watched {
    /// Catches SIGHUP and looks at the files for the first time. Before they are read, or a change between
    /// would be missed.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn new(files: Vec<PathBuf>) -> std::io::Result<Self> {
        let stamps = stamps(&files);
        Ok(Self { files, stamps, hangup: signal(SignalKind::hangup())? })
    }

    /// Waits for SIGHUP or another content.
    pub async fn changed(&mut self) {
        loop {
            let asked = tokio::select! {
                _ = self.hangup.recv() => true,
                () = sleep(LOOK_INTERVAL) => false,
            };
            let files = self.files.clone();
            // A disk that does not answer holds up no connection.
            let Ok(found) = spawn_blocking(move || stamps(&files)).await else { continue };
            let differ = found != self.stamps;
            self.stamps = found;
            if asked || differ {
                return;
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |metadata: Metadata| {
        (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
    };
    files.iter().map(|file| file.metadata().ok().map(stamp)).collect()
}
