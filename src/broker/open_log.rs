//! Opens the log: the caller can go away meanwhile, and a disk without room or a file that is locked is asked again.

use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::error;

use crate::broker::commit::persist::{END_THE_LOCK, MAKE_ROOM};
use crate::broker::counters::{Counters, Stage};
use crate::broker::error::BrokerError;
use crate::store::{Check, OpenError, Stop, Store, is_damage, suspect};

/// From one attempt to the next.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Stops what it is the owner of when it is dropped.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Opens the log at `path`. Room on the disk, and the end of another program's lock, are waited for. Cancelled, it stops a
/// check at once.
///
/// # Errors
/// [`OpenError`], but for a disk without room and a lock.
pub async fn open_log(
    path: &Path,
    counters: &Counters,
) -> Result<(Store, Option<Check>), OpenError> {
    let mut complained = false;
    loop {
        let stop = StopOnDrop(Stop::default());
        let (file, stopping) = (path.to_owned(), stop.0.clone());
        let opened = spawn_blocking(move || Store::open_soon(&file, &stopping)).await;
        match opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Err(cause) if cause.is_full() || cause.is_locked() => {
                let remedy = if cause.is_full() { MAKE_ROOM } else { END_THE_LOCK };
                if !std::mem::replace(&mut complained, true) {
                    error!(%cause, "cannot open the log: {remedy}; the broker waits for it");
                }
                counters.set_blocked(Some(cause.to_string()));
                sleep(RETRY_INTERVAL).await;
            }
            Err(cause) => {
                if let OpenError::Sqlite { source, .. } = &cause
                    && is_damage(source)
                {
                    suspect(path);
                }
                return Err(cause);
            }
            Ok(opened) => {
                if complained {
                    counters.set_blocked(None);
                }
                let stage = if opened.1.is_some() { Stage::Checking } else { Stage::Checked };
                counters.set_stage(stage);
                return Ok(opened);
            }
        }
    }
}

/// Checks the rest of the log; without `check`, never returns. Cancelled, it stops the check at once.
///
/// # Errors
/// The damage, or why the file at `path` cannot be read.
pub async fn check_log(
    check: Option<Check>,
    path: &Path,
    counters: &Counters,
) -> Result<(), BrokerError> {
    let Some(check) = check else { return std::future::pending().await };
    let stop = StopOnDrop(Stop::default());
    let stopping = stop.0.clone();
    let checked = spawn_blocking(move || check.run(&stopping)).await;
    let checked = checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    checked.map_err(|cause| BrokerError::of_store(path, cause))?;
    counters.set_stage(Stage::Checked);
    Ok(())
}
