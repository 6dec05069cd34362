//! Processes under a preloaded library that gives them a clock of their own (`clock.c`).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use humidor::clock::unix_ms;
use tempfile::TempDir;

/// A clock that the test puts where it likes. It goes on from there.
pub struct Clock {
    folder: TempDir,
    file: File,
}

impl Clock {
    /// At `at_ms`, Unix ms; nobody has set it.
    pub fn new(at_ms: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open =
            OpenOptions::new().write(true).create_new(true).open(folder.path().join("clock"));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(library(folder.path()))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/clock.c"))
            .arg("-ldl")
            .status()
            .expect("cc runs, which links every Rust program here");
        assert!(built.success());
        let clock = Self { folder, file: open.unwrap() };
        clock.step(at_ms, false);
        clock
    }

    /// Puts it to `at_ms`. The kernel says whether a time source disciplines it. The file is mapped, so it is written in place.
    pub fn step(&self, at_ms: i64, is_set: bool) {
        let by_ms = at_ms - unix_ms();
        let bytes = [by_ms.to_ne_bytes(), i64::from(is_set).to_ne_bytes()].concat();
        self.file.write_all_at(&bytes, 0).unwrap();
    }

    /// Gives it to the process of `command`.
    pub fn preload(&self, command: &mut Command) {
        let folder = self.folder.path();
        command.env("LD_PRELOAD", library(folder)).env("CLOCK_FILE", folder.join("clock"));
    }
}

fn library(folder: &Path) -> PathBuf {
    folder.join("clock.so")
}
