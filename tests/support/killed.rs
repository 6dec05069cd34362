//! A log's files as a killed process leaves them.

use std::path::Path;

use tempfile::TempDir;

/// Copies them to a folder of their own, but for the shared memory: it is rebuilt from the write-ahead log.
pub fn copy_as_killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}
