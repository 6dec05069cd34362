//! Where the users come from: the users file and the settings. It tells users that were removed from a file that is gone,
//! and notes in the data folder that there were users.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tracing::warn;

use crate::broker::access::acl::Role;
use crate::broker::access::config::{AccessConfig, AccessError};
use crate::broker::access::renewal::Renewed;
use crate::broker::access::users::{self, Account, Directory};

/// Mode of the note.
const MODE: u32 = 0o640;
/// Content of the note.
const NOTE: &str = "\
This broker has had users, so it does not start without them: a users file that is lost must open nothing.
Delete this file if it is to run without users again.
";

/// Why the users were not read again.
#[derive(Debug)]
pub enum NotRead {
    /// There is no file, and there never was one.
    Unchanged,
    /// The file is wrong, or gone.
    Wrong(AccessError),
}

/// The sources of users.
#[derive(Debug)]
pub struct Sources {
    file: Option<PathBuf>,
    /// Whether a setting names the file.
    named: bool,
    user: Option<(String, Arc<Account>)>,
    /// Where it is noted that there were users.
    note: Option<PathBuf>,
    /// Whether the file was ever read.
    was_read: AtomicBool,
    renewed: Renewed,
}

impl Sources {
    /// Hashes the password of the single user: not on an async thread.
    ///
    /// # Errors
    /// When it cannot be hashed.
    pub fn new(config: AccessConfig) -> Result<Self, AccessError> {
        let user = match config.user {
            Some((name, password)) => {
                let hash = users::hash(password.0.as_bytes())?;
                let account = Account {
                    hash,
                    role: Role::Admin,
                    rules: Vec::new(),
                    id: None,
                    renewed_from: None,
                };
                Some((name, Arc::new(account)))
            }
            None => None,
        };
        let AccessConfig { users_file: file, users_file_named: named, had_users: note, .. } =
            config;
        Ok(Self {
            file,
            named,
            user,
            note,
            was_read: AtomicBool::new(false),
            renewed: Renewed::default(),
        })
    }

    /// Whether a setting has this user.
    pub fn is_of_setting(&self, name: &str) -> bool {
        self.user.as_ref().is_some_and(|(user, _)| user == name)
    }

    /// The users file, which may not exist yet.
    pub fn file(&self) -> Option<PathBuf> {
        self.file.clone()
    }

    /// The users file, for a message.
    pub fn shown(&self) -> String {
        self.file
            .as_deref()
            .map_or_else(|| "HUMIDOR_USER".to_owned(), |file| file.display().to_string())
    }

    /// Reads the users at the start. A file in the data folder may be created later; a file that a setting names must
    /// exist.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn first(&self) -> Result<Directory, AccessError> {
        let there = self.file.as_deref().filter(|path| self.named || path.exists());
        if let Some(path) = there.filter(|path| users::is_world_readable(path)) {
            warn!(file = %path.display(), "every user of this machine can read the password hashes; run chmod 640");
        }
        self.read(there)
    }

    /// Reads the users again.
    ///
    /// # Errors
    /// [`NotRead`]: then the users stay as they were. A file that is gone or empty is no list without users.
    pub fn again(&self) -> Result<Directory, NotRead> {
        let there = self.file.as_deref();
        let content = there.and_then(|path| path.metadata().ok()).map_or(0, |file| file.len());
        match there {
            Some(path) if content > 0 => self.read(Some(path)).map_err(NotRead::Wrong),
            Some(path) if self.was_read.load(Relaxed) => {
                Err(NotRead::Wrong(AccessError::FileGone(path.to_owned())))
            }
            _ => Err(NotRead::Unchanged),
        }
    }

    fn read(&self, path: Option<&Path>) -> Result<Directory, AccessError> {
        let mut directory = match path {
            Some(path) => {
                let directory = Directory::read(path)?;
                self.was_read.store(true, Relaxed);
                directory
            }
            None => Directory::default(),
        };
        self.renewed.mark(&mut directory.accounts);
        if let Some((name, account)) = &self.user
            && directory.accounts.insert(name.clone(), Arc::clone(account)).is_some()
        {
            return Err(AccessError::Twice(name.clone()));
        }
        Ok(directory)
    }

    /// Replaces the hash of a user whose password was right, if it is cheap to guess at. Returns the work for a thread
    /// that may hash and write.
    pub fn renewal(
        &self,
        name: &str,
        account: &Arc<Account>,
        password: &[u8],
    ) -> Option<impl FnOnce(&Self) + Send + 'static> {
        let file = self.file.clone()?;
        let (name, account) = (name.to_owned(), Arc::clone(account));
        self.renewed.begins(&name, &account).then(|| {
            let password = password.to_vec();
            move |sources: &Self| sources.renewed.renew(&file, &name, &account, &password)
        })
    }

    /// Whether it is noted that there were users.
    pub fn had_users(&self) -> bool {
        self.note.as_deref().is_some_and(Path::exists)
    }

    /// Notes that there are users.
    pub fn note_users(&self) {
        let Some(note) = self.note.as_deref().filter(|note| !note.exists()) else { return };
        let folder = note.parent().unwrap_or(note);
        let written = std::fs::create_dir_all(folder).and_then(|()| write(note));
        if let Err(error) = written {
            warn!(
                file = %note.display(), %error,
                "cannot note that there are users; without this file a later start without the users file is not refused"
            );
        }
    }
}

fn write(note: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(note)?;
    file.write_all(NOTE.as_bytes())
}
