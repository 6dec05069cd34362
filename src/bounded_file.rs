//! The one reader of small files that a user names: settings, secrets, users, certificates. It reads regular files up to
//! a bound: a wrong path must neither block the start nor fill the memory.

use std::fs::{FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Why a file was not read. The message does not name the file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A read could wait for ever or never end.
    #[error("this is a {0}; a regular file is needed")]
    NotRegular(&'static str),
    /// Larger than the bound.
    #[error("the file is larger than {max_bytes} bytes")]
    TooLarge {
        /// The bound in bytes.
        max_bytes: u64,
    },
    /// Bytes that are no text.
    #[error("the file is not UTF-8 text")]
    NotText,
}

/// The content of the regular file at `path` (or behind a link there), if it has at most `max_bytes`.
///
/// # Errors
/// [`ReadError`], but never [`ReadError::NotText`].
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
    // The type first: to open some devices has effects, such as a watchdog's.
    check(path.metadata()?.file_type())?;
    // The path may mean another file by now. Without O_NONBLOCK the open of a FIFO waits for a writer.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check(file.metadata()?.file_type())?;
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    // The size in the metadata is 0 in /proc, and may grow meanwhile: what was read counts.
    if bytes.len() as u64 > max_bytes { Err(ReadError::TooLarge { max_bytes }) } else { Ok(bytes) }
}

/// As [`read`], for text in UTF-8.
///
/// # Errors
/// [`ReadError`].
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String, ReadError> {
    String::from_utf8(read(path, max_bytes)?).map_err(|_| ReadError::NotText)
}

fn check(kind: FileType) -> Result<(), ReadError> {
    let name = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "folder",
        kind if kind.is_fifo() => "pipe (FIFO)",
        kind if kind.is_socket() => "socket",
        kind if kind.is_char_device() => "character device",
        kind if kind.is_block_device() => "block device",
        _ => "special file",
    };
    Err(ReadError::NotRegular(name))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// Far more than any of these reads takes; only a read that waits reaches it.
    const DEADLINE: Duration = Duration::from_secs(10);
    const MAX_BYTES: u64 = 16;

    fn read_in_time(path: &Path) -> Result<Vec<u8>, ReadError> {
        let (sender, receiver) = mpsc::channel();
        let path = path.to_owned();
        std::thread::spawn(move || sender.send(read(&path, MAX_BYTES)));
        receiver.recv_timeout(DEADLINE).expect("the read waits for ever")
    }

    #[test]
    fn a_regular_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (bytes, fits) in [(0, true), (16, true), (17, false), (4096, false)] {
            std::fs::write(&path, vec![b'x'; bytes]).unwrap();
            match read_in_time(&path) {
                Ok(read) => assert!(fits && read.len() == bytes, "{bytes}"),
                Err(error) => {
                    assert!(!fits, "{bytes}: {error}");
                    assert!(error.to_string().contains("larger than 16 bytes"), "{error}");
                }
            }
        }
        // Ten gigabytes, of which the disk holds nothing.
        File::create(&path).unwrap().set_len(10_000_000_000).unwrap();
        assert!(matches!(read_in_time(&path), Err(ReadError::TooLarge { .. })));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("file", &link).unwrap();
        std::fs::write(&path, "linked").unwrap();
        assert_eq!(read_in_time(&link).unwrap(), b"linked");
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read_text(&path, MAX_BYTES), Err(ReadError::NotText)));
        let missing = read_in_time(&folder.path().join("none"));
        assert!(
            matches!(missing, Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, kind) in [
            (fifo.as_path(), "pipe (FIFO)"),
            (Path::new("/dev/zero"), "character device"),
            (folder.path(), "folder"),
            (&socket, "socket"),
        ] {
            let error = read_in_time(path).unwrap_err();
            assert!(matches!(error, ReadError::NotRegular(found) if found == kind), "{error}");
        }
    }
}
