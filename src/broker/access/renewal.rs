//! Renewal: the hash of a password that is cheap to guess at is replaced in the users file at the user's next right login,
//! by one with humidor's own costs. Once for each such hash, so that a file that cannot be written is tried once.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, anyhow};
use toml_edit::{DocumentMut, value};
use tracing::{info, warn};

use crate::bounded_file;
use crate::broker::access::users::{self, Account, FILE_MAX_BYTES, STANDARD_COST};

/// The hashes that were replaced in this run of the broker, or that could not be: by user, the old one and the new one.
#[derive(Debug, Default)]
pub struct Renewed(Mutex<HashMap<String, (String, Option<String>)>>);

impl Renewed {
    /// Whether the hash of this account is to be replaced. It is asked once for each hash: the next answer is no.
    pub fn begins(&self, name: &str, account: &Account) -> bool {
        let mut renewed = self.lock();
        let tried = renewed.get(name).is_some_and(|(old, _)| *old == account.hash);
        if tried || users::cost(&account.hash) >= STANDARD_COST {
            return false;
        }
        renewed.insert(name.to_owned(), (account.hash.clone(), None));
        true
    }

    /// Replaces the hash of `name` in the file. Hashes: not on an async thread.
    pub fn renew(&self, file: &Path, name: &str, account: &Account, password: &[u8]) {
        let renewed = (|| -> anyhow::Result<()> {
            let new = users::hash(password)?;
            // First, so that a broker that reads the file at once knows both.
            self.lock().insert(name.to_owned(), (account.hash.clone(), Some(new.clone())));
            replace(file, name, &account.hash, &new)
        })();
        match renewed {
            Ok(()) => {
                info!(user = name, "the password has a new hash, which is not cheap to guess at");
            }
            Err(error) => warn!(
                user = name,
                error = format!("{error:#}"),
                "the hash of this user is cheap to guess at and cannot be replaced; run `humidor user passwd {name}`"
            ),
        }
    }

    /// Marks accounts whose hash was replaced: they are those of before.
    pub fn mark(&self, accounts: &mut BTreeMap<String, Arc<Account>>) {
        for (name, (old, new)) in self.lock().iter() {
            if let Some(account) = accounts.get_mut(name)
                && Some(&account.hash) == new.as_ref()
            {
                Arc::make_mut(account).renewed_from = Some(old.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (String, Option<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a new file over the old one, as `humidor user` does. A file that was edited meanwhile stays as it is.
fn replace(file: &Path, name: &str, old: &str, new: &str) -> anyhow::Result<()> {
    let file = file.canonicalize()?;
    let text = bounded_file::read_text(&file, FILE_MAX_BYTES)?;
    let mut document: DocumentMut = text.parse()?;
    let password = document
        .get_mut("user")
        .and_then(|users| users.as_table_like_mut()?.get_mut(name)?.as_table_like_mut())
        .and_then(|user| user.get_mut("password"))
        .filter(|password| password.as_str() == Some(old))
        .ok_or_else(|| anyhow!("{} was changed meanwhile", file.display()))?;
    *password = value(new);
    let mut beside = file.clone().into_os_string();
    beside.push(".renewed");
    let beside = PathBuf::from(beside);
    let written = write_as(&file, &beside, &document.to_string());
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.with_context(|| format!("{} cannot be written", file.display()))
}

fn write_as(file: &Path, beside: &Path, text: &str) -> std::io::Result<()> {
    let old = file.metadata()?;
    let mut new =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(beside)?;
    new.set_permissions(PermissionsExt::from_mode(old.mode()))?;
    // Without root's rights the file keeps its new owner, which is the broker.
    let _ = fchown(&new, Some(old.uid()), Some(old.gid()));
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    std::fs::rename(beside, file)
}
