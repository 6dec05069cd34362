//! A log that can be killed at any moment and goes on with what was in its files.

use std::path::{Path, PathBuf};

use humidor::store::{Appended, LOG_FILE, Log, Record, Retention, Store};
use rusqlite::Connection;
use tempfile::TempDir;

/// A writer, and the folder that its log is in.
pub struct KillableLog {
    folder: TempDir,
    retention: Retention,
    /// None only while one gives way to the next: a log has one writer.
    store: Option<Store>,
}

impl KillableLog {
    pub fn new(retention: Retention) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Self { folder, retention, store: None };
        log.reopen();
        log
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join(LOG_FILE)
    }

    /// Ends the writer as a stop does, and starts it again.
    pub fn reopen(&mut self) {
        self.store = None;
        let mut store = Store::open(&self.path()).unwrap();
        store.retain(self.retention);
        self.store = Some(store);
    }

    /// Kills the writer: what is in the files is what there is.
    pub fn kill(&mut self) {
        let files = copy_as_killed(self.folder.path());
        self.store = None;
        self.folder = files;
        self.reopen();
    }

    pub fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    /// What it answers to other processes.
    pub fn read(&self) -> Log {
        Log::open(&self.path()).unwrap()
    }

    pub fn sql(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// The one number that `sql` gives.
    pub fn number(&self, sql: &str) -> i64 {
        self.sql().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    pub fn append(&mut self, records: &[Record]) -> Appended {
        self.store().append(&records.iter().collect::<Vec<_>>()).unwrap()
    }
}

/// Copies the files to a folder of their own, but for the shared memory: it is rebuilt from the write-ahead log.
fn copy_as_killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}
