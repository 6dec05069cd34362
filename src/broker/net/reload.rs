//! Files that are read again while the broker runs: on SIGHUP, and when they have changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Interval between two checks of the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Inode, size and time of change: they tell one content of a file from the next. A rename changes the inode.
type Stamp = (u64, u64, i64, i64);

/// Files, with their stamps at the last check.
#[derive(Debug)]
pub struct Watched {
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
    hangup: Signal,
}

impl Watched {
    /// Catches SIGHUP and checks the files for the first time. Call it before the files are read: a change in
    /// between would be missed.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn new(files: Vec<PathBuf>) -> std::io::Result<Self> {
        let stamps = stamps(&files);
        Ok(Self { files, stamps, hangup: signal(SignalKind::hangup())? })
    }

    /// Waits for SIGHUP or a change of a file.
    pub async fn changed(&mut self) {
        loop {
            let asked = tokio::select! {
                _ = self.hangup.recv() => true,
                () = sleep(LOOK_INTERVAL) => false,
            };
            let files = self.files.clone();
            // A disk that does not answer must delay no connection.
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
