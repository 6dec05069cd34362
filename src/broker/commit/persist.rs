//! One commit, tried until the disk has it: what the operator is told meanwhile, and when it is given up.

use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use rusqlite::ErrorCode;
use tracing::{error, info, warn};

use crate::broker::counters::Counters;
use crate::store::{Appended, Change, Record, Store, is_disk_error, is_lock};

/// What ends a lock of another program.
pub(in crate::broker) const END_THE_LOCK: &str = "another process holds the lock of this file (`fuser` names it): end its transaction, or the process";
/// What ends the want of room.
pub(in crate::broker) const MAKE_ROOM: &str = "make room on the data volume";
/// First and longest wait before a failed commit is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Interval of log lines about a store that still fails.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);
/// How long a disk may fail every commit. A card that comes back after that has a file system that does not.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// Commits, however long it takes. A damaged file ends the attempts, and a disk that fails all of them for
/// [`DISK_PATIENCE`]. So does `leaving`, when no connection is left to acknowledge: then the result is `None`, and the
/// publishers send again.
pub(super) fn commit(
    store: &mut Store,
    records: &[&Record],
    changes: &[&Change],
    counters: &Counters,
    leaving: impl Fn() -> bool,
) -> rusqlite::Result<Option<Appended>> {
    let mut waits = backon::ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .without_max_times()
        .build();
    let mut complained: Option<(Instant, &str)> = None;
    let mut failing: Option<Instant> = None;
    loop {
        let cause = match store.commit(records, changes) {
            Ok(appended) => {
                if let Some(cause) = store.take_checkpoint_error() {
                    warn!(%cause, "the disk failed; the next commit writes the log to it anew");
                    counters.disk_failed(cause.to_string());
                }
                if complained.is_some() {
                    // What took long is over.
                    counters.set_working(true);
                    counters.set_blocked(None);
                    info!("the store commits again; publishers are acknowledged again");
                }
                return Ok(Some(appended));
            }
            Err(cause) => cause,
        };
        if !Store::may_pass(&cause) {
            damaged(&cause, counters);
            return Err(cause);
        }
        if is_disk_error(&cause) {
            counters.disk_failed(cause.to_string());
            if failing.get_or_insert_with(Instant::now).elapsed() >= DISK_PATIENCE {
                counters.set_blocked(Some(format!("disk error: {cause}")));
                return Err(cause);
            }
        } else {
            failing = None;
        }
        if leaving() {
            error!(%cause, given_up = records.len(), "stopping without this commit; it was not acknowledged");
            return Ok(None);
        }
        let (kind, remedy) = advice(store, &cause);
        let is_due =
            |(at, said): (Instant, &str)| said != kind || at.elapsed() >= COMPLAINT_INTERVAL;
        if complained.is_none_or(is_due) {
            complained = Some((Instant::now(), kind));
            counters.set_blocked(Some(format!("{kind}: {cause}")));
            error!(
                %cause, database = %store.path().display(), waiting = records.len(),
                "cannot commit: nothing is acknowledged until it works; {remedy}"
            );
        }
        std::thread::sleep(waits.next().unwrap_or(RETRY.1));
    }
}

/// The kind of a failure, and what the operator can do.
fn advice(store: &Store, cause: &rusqlite::Error) -> (&'static str, &'static str) {
    if store.awaits_check() {
        ("the log is being checked", "the check of the log ends by itself")
    } else if is_lock(cause) {
        ("another process holds the lock of the log", END_THE_LOCK)
    } else if is_disk_error(cause) {
        (
            "disk error",
            "the disk failed (`dmesg` says more): copy the data folder away, and replace the card or disk",
        )
    } else if cause.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        ("no room on the disk", MAKE_ROOM)
    } else {
        ("the log cannot be written", "the data folder has to be writable, and to have room")
    }
}

pub(super) fn damaged(cause: &rusqlite::Error, counters: &Counters) {
    error!(%cause, "the log is damaged; stopping so that a restart moves it aside");
    counters.set_blocked(Some(cause.to_string()));
}
