//! Read access to the log for HTTP requests: a bounded number of open readers, each on a blocking thread.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::store::Log;
use crate::web::http_error::HttpError;

/// Queries at once. Each has a thread and a page cache of its own, and a board has four cores.
const QUERIES_MAX: usize = 3;

/// A pool of readers of the log. Clones share it.
#[derive(Debug, Clone)]
pub struct LogReader {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Log>>>,
    permits: Arc<Semaphore>,
}

impl LogReader {
    /// Reads the log at `path`; the first query opens the file.
    pub fn new(path: PathBuf) -> Self {
        let permits = Arc::new(Semaphore::new(QUERIES_MAX));
        Self { path: Arc::new(path), idle: Arc::default(), permits }
    }

    /// Opens a reader outside the pool, for a long read such as an export. Blocks.
    ///
    /// # Errors
    /// When `SQLite` cannot open the file.
    pub fn open(&self) -> rusqlite::Result<Log> {
        Log::open(&self.path)
    }

    /// Runs `query` on a blocking thread, after at most [`QUERIES_MAX`] others.
    ///
    /// # Errors
    /// 503 when the query fails, or while the broker stops.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Log) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, HttpError> {
        let stopping = || HttpError::unavailable("the broker is stopping");
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| stopping())?;
        let pool = self.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = || pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let reused = idle().pop();
            let log = match reused {
                Some(log) => log,
                None => pool.open()?,
            };
            // After a failed query the reader is dropped: the reader itself may be the cause.
            let found = query(&log)?;
            idle().push(log);
            Ok::<_, rusqlite::Error>(found)
        });
        Ok(answer.await.map_err(|_| stopping())??)
    }
}
