//! `humidor db backup`: a compact copy of the log under a new name, complete or not at all, and never over another file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::failure::Failure;
use super::log::{log_path, open};
use crate::config::Layers;
use crate::exit::Code;

/// Mode of the copy: its owner and its group.
const MODE: u32 = 0o640;
/// Random bytes in the name of the copy while it is written.
const NAME_BYTES: usize = 8;

/// Writes the copy.
pub fn backup(target: &Path, layers: Layers) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let log = open(&log_path(layers)?)?;
    if target.symlink_metadata().is_ok() {
        return Err(exists(target));
    }
    let partial = partial(target)?;
    let written = (|| -> Result<(), Failure> {
        // An empty file of ours: SQLite fills it and keeps its mode.
        OpenOptions::new().write(true).create_new(true).mode(MODE).open(&partial)?;
        log.copy_to(&partial)?;
        // SQLite does not sync this copy; a power cut after the command has reported success must not undo it.
        File::open(&partial)?.sync_all()?;
        take_name(&partial, target)?;
        Ok(File::open(folder(target))?.sync_all()?)
    })();
    let _ = std::fs::remove_file(&partial);
    written?;
    writeln!(out, "{}", target.display())?;
    Ok(())
}

fn exists(target: &Path) -> Failure {
    let error = anyhow!("{} exists already; a backup overwrites nothing", target.display());
    Failure::new(Code::Usage, error)
}

fn folder(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name beside the target that nobody can guess: in a folder that others write to, none of them can put a link there.
fn partial(target: &Path) -> Result<PathBuf, Failure> {
    let mut random = [0; NAME_BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| anyhow!("no random bytes: {error}"))
        .map_err(|error| Failure::new(Code::Internal, error))?;
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{:016x}.partial", u64::from_ne_bytes(random)));
    Ok(PathBuf::from(name))
}

/// Gives the copy its name. A file that has come there meanwhile stays, and the backup fails.
fn take_name(partial: &Path, target: &Path) -> Result<(), Failure> {
    match std::fs::hard_link(partial, target) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(target)),
        // A file system without links, of a memory stick, say: the name is taken first, and the copy put in its place.
        Err(_) => match OpenOptions::new().write(true).create_new(true).mode(MODE).open(target) {
            Ok(_) => {
                let renamed = std::fs::rename(partial, target);
                if renamed.is_err() {
                    let _ = std::fs::remove_file(target);
                }
                Ok(renamed?)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(target)),
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_came_meanwhile_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (partial, target) = (folder.path().join("p"), folder.path().join("t"));
        std::fs::write(&partial, "copy").unwrap();
        std::fs::write(&target, "theirs").unwrap();
        assert!(take_name(&partial, &target).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
        std::fs::remove_file(&target).unwrap();
        take_name(&partial, &target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"copy");
    }
}
