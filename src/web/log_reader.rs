//! Read access to the log for HTTP requests: each query on a blocking thread, in the turn of its answer. So there are no
//! more readers than answers that were begun.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::Log;
use crate::web::http_error::HttpError;
use crate::web::turns::Turn;

/// A pool of readers of the log. Clones share it.
#[derive(Debug, Clone)]
pub struct LogReader {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Log>>>,
}

impl LogReader {
    /// Reads the log at `path`; the first query opens the file.
    pub fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path), idle: Arc::default() }
    }

    /// Opens a reader outside the pool, for a long read such as an export. Blocks.
    ///
    /// # Errors
    /// When `SQLite` cannot open the file.
    pub fn open(&self) -> rusqlite::Result<Log> {
        Log::open(&self.path)
    }

    /// Runs `query` on a blocking thread, as long as its turn goes on.
    ///
    /// # Errors
    /// 503 when the query fails, or while the broker stops.
    pub async fn read<T: Send + 'static>(
        &self,
        turn: &Turn,
        query: impl FnOnce(&Log) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, HttpError> {
        let stopping = || HttpError::unavailable("the broker is stopping");
        let (pool, turn) = (self.clone(), turn.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let idle = || pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let reused = idle().pop();
            let mut log = match reused {
                Some(log) => log,
                None => pool.open()?,
            };
            log.go_on_while(move || turn.goes_on())?;
            // After a failed query the reader is dropped: the reader itself may be the cause.
            let found = query(&log)?;
            log.go_on()?;
            idle().push(log);
            Ok::<_, rusqlite::Error>(found)
        });
        Ok(answer.await.map_err(|_| stopping())??)
    }
}
