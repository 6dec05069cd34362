//! Readers of the log for the pages: few, kept open, and never on an async thread.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::store::Log;
use crate::web::http_error::Problem;

/// Queries at once. Each has a thread and a page cache of its own, and a board has four cores.
const READERS: usize = 3;

/// The log, to read.
#[derive(Debug, Clone)]
pub struct Database {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Log>>>,
    places: Arc<Semaphore>,
}

impl Database {
    /// The log at `path`.
    pub fn new(path: PathBuf) -> Self {
        let places = Arc::new(Semaphore::new(READERS));
        Self { path: Arc::new(path), idle: Arc::default(), places }
    }

    /// A reader of its own, for what takes long.
    pub fn open(&self) -> rusqlite::Result<Log> {
        Log::open(&self.path)
    }

    /// Asks the log.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Log) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let stopping = || Problem::busy("the broker is stopping");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| stopping())?;
        let database = self.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let _place = place;
            let idle = || database.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = idle().pop();
            let log = match kept {
                Some(log) => log,
                None => database.open()?,
            };
            // A reader whose query failed may be the reason, and is not kept.
            let found = query(&log)?;
            idle().push(log);
            Ok::<_, rusqlite::Error>(found)
        });
        Ok(asked.await.map_err(|_| stopping())??)
    }
}
