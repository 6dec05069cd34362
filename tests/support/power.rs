//! Processes under a preloaded library that keeps, in a second folder, only what was fsynced, and lets fsyncs fail
//! (`power.c`).

#![allow(dead_code)] // every test binary uses its part

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Builds the library that is preloaded.
pub fn library() -> PathBuf {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "power-{}-{:?}.so",
        std::process::id(),
        std::thread::current().id()
    ));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/power.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("cc runs, which links every Rust program here");
    assert!(built.success());
    library
}

/// The folders of one run: what the process sees, and what a disk would have.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["live", "disk"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    /// What the process sees.
    pub fn live(&self) -> PathBuf {
        self.folder.path().join("live")
    }

    /// What is left after a power cut.
    pub fn after_a_cut(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// The file that orders failures.
    fn fails(&self) -> PathBuf {
        self.folder.path().join("fails")
    }

    /// Preloads the library into `command`.
    pub fn preload(&self, library: &Path, command: &mut Command) {
        command
            .env("LD_PRELOAD", library)
            .env("POWER_LIVE", self.live())
            .env("POWER_DISK", self.after_a_cut())
            .env("POWER_FAILS", self.fails());
    }

    /// Orders failures: "EIO 1 -wal" fails one fsync of the write-ahead log.
    pub fn fail(&self, order: &str) {
        order_failures(&self.fails(), order);
    }

    /// No fsync fails any more.
    pub fn recover(&self) {
        let _ = std::fs::remove_file(self.fails());
    }
}

/// Writes an order in one step, so that no half of it is read.
pub fn order_failures(file: &Path, order: &str) {
    let part = file.with_extension("part");
    std::fs::write(&part, order).unwrap();
    std::fs::rename(part, file).unwrap();
}
