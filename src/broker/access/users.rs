//! The users file: names, password hashes, roles and rules, read as TOML and checked whole.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::Deserialize;

use crate::bounded_file::{self, ReadError};
use crate::broker::access::acl::{CompiledAcl, Role, Rule, RuleError, UnfitName};

/// Its name in the data folder, where no setting names another.
pub const USERS_FILE: &str = "users.toml";
/// Name of the file in the data folder that notes that there were users.
pub const HAD_USERS_FILE: &str = "had-users";
/// Name of the file in the data folder with the clients that have logged in.
pub const KNOWN_CLIENTS_FILE: &str = "known-clients";
/// Largest users file, in bytes: more than a thousand users with rules.
pub const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// Longest user name, in bytes.
const NAME_MAX_BYTES: usize = 64;
/// Longest id of a user, in bytes.
const ID_MAX_BYTES: usize = 32;
/// Longest password, in bytes.
pub const PASSWORD_MAX_BYTES: usize = 1024;
/// argon2id with 7 MiB, five passes, one lane: the entry of OWASP's password storage cheat sheet with the
/// least memory.
const PARAMS: (u32, u32, u32) = (7 * 1024, 5, 1);
/// The cost of a hash with [`PARAMS`], see [`cost`].
pub const STANDARD_COST: u64 = 7 * 1024 * 5;
/// Most that a hash made elsewhere may cost to check: 64 MiB, ten passes. A board has 512 MB for everything.
const PARAMS_MAX: (u32, u32) = (64 * 1024, 10);

/// Why the users file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error("{}: {source}; {}", .path.display(), remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Its content is no list of users.
    #[error("{}: {cause}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The mistake and its place.
        cause: String,
    },
}

/// What to do about a file that cannot be read or written.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "run this as the user of the broker, or as root",
        io::ErrorKind::NotFound => {
            "HUMIDOR_USERS_FILE names the users file, `humidor user add NAME` makes one"
        }
        _ => "HUMIDOR_USERS_FILE names the users file",
    }
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// A PHC string, argon2id.
    pub hash: String,
    /// The role, whose rules follow the user's own.
    pub role: Role,
    /// Its own rules.
    pub rules: Vec<Rule>,
    /// Tells the person from others who had the name before; `None` for a user that was written by hand, or before there
    /// were ids.
    pub id: Option<String>,
    /// The hash that the broker has replaced by this one in its present run.
    pub renewed_from: Option<String>,
}

impl Account {
    /// Whether nothing has changed since `earlier` but that the same password has a new hash.
    #[must_use]
    pub fn is_still(&self, earlier: &Self) -> bool {
        let same_password =
            self.hash == earlier.hash || self.renewed_from.as_ref() == Some(&earlier.hash);
        let rest = |account: &Self| (account.role, account.rules.clone(), account.id.clone());
        same_password && rest(self) == rest(earlier)
    }
}

/// All users, and the rules for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// By name.
    pub accounts: BTreeMap<String, Arc<Account>>,
    /// The cost of the costliest hash, at least [`STANDARD_COST`].
    pub costliest: u64,
    /// Rules before each user's own. They also apply to clients without a login.
    pub rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    user: BTreeMap<String, RawAccount>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccount {
    password: String,
    #[serde(default)]
    role: Role,
    #[serde(default)]
    rules: Vec<String>,
    id: Option<String>,
}

impl Default for Directory {
    fn default() -> Self {
        Self { accounts: BTreeMap::new(), costliest: STANDARD_COST, rules: Vec::new() }
    }
}

impl Directory {
    /// The users whose hashes are cheaper to guess at than humidor's own.
    pub fn weak(&self) -> Vec<&str> {
        let weak = self.accounts.iter().filter(|(_, account)| cost(&account.hash) < STANDARD_COST);
        weak.map(|(name, _)| name.as_str()).collect()
    }

    /// The rules of a user at a client id: those for all, its own, and its role's.
    ///
    /// # Errors
    /// [`UnfitName`].
    pub fn acl(
        &self,
        name: &str,
        account: &Account,
        client_id: &str,
    ) -> Result<CompiledAcl, UnfitName> {
        let rules = [self.rules.as_slice(), account.rules.as_slice()];
        CompiledAcl::new(&rules, account.role, Some(name), client_id)
    }

    /// Reads a users file.
    ///
    /// # Errors
    /// [`UsersError`], with the line or the user that is wrong.
    pub fn read(path: &Path) -> Result<Self, UsersError> {
        let content = |cause| UsersError::Content { path: path.to_owned(), cause };
        match bounded_file::read_text(path, FILE_MAX_BYTES) {
            Ok(text) => Self::parse(&text).map_err(content),
            Err(ReadError::Io(source)) => Err(UsersError::Io { path: path.to_owned(), source }),
            Err(other) => Err(content(other.to_string())),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| error.to_string())?;
        let rules = |of: &str, rules: Vec<String>| {
            let parsed: Result<Vec<Rule>, RuleError> =
                rules.iter().map(|rule| rule.parse()).collect();
            parsed.map_err(|error| format!("{of}: {error}"))
        };
        let mut accounts = BTreeMap::new();
        for (name, raw) in raw.user {
            check_name(&name).map_err(|error| error.to_string())?;
            check_hash(&raw.password).map_err(|cause| format!("user {name}: {cause}"))?;
            let rules = rules(&format!("user {name}"), raw.rules)?;
            check_id(raw.id.as_deref()).map_err(|cause| format!("user {name}: {cause}"))?;
            let account = Account {
                hash: raw.password,
                role: raw.role,
                rules,
                id: raw.id,
                renewed_from: None,
            };
            accounts.insert(name, Arc::new(account));
        }
        let costs = accounts.values().map(|account: &Arc<Account>| cost(&account.hash));
        let costliest = costs.max().unwrap_or(0).max(STANDARD_COST);
        Ok(Self { accounts, costliest, rules: rules("rules", raw.rules)? })
    }
}

/// An id becomes part of the names of sessions.
fn check_id(id: Option<&str>) -> Result<(), String> {
    let fits = |id: &str| {
        (1..=ID_MAX_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    match id {
        Some(id) if !fits(id) => Err(format!("`id` has 1 to {ID_MAX_BYTES} of a-z A-Z 0-9")),
        _ => Ok(()),
    }
}

/// A new id for [`Account::id`].
#[must_use]
pub fn new_id() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// Whether every user of the machine may read a file. The users file holds hashes, which allow guesses.
#[must_use]
pub fn is_world_readable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// A text is not a user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no user name: 1 to {NAME_MAX_BYTES} of a-z A-Z 0-9 . _ -")]
pub struct NameError(String);

/// Checks a user's name. It becomes part of topic filters, so it has no character with a meaning there.
///
/// # Errors
/// When it is not 1 to 64 of `a-z A-Z 0-9 . _ -`.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let fits = (1..=NAME_MAX_BYTES).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    if fits { Ok(()) } else { Err(NameError(name.to_owned())) }
}

fn check_hash(hash: &str) -> Result<(), String> {
    let how = "run `humidor user passwd NAME`";
    let parsed = PasswordHash::new(hash)
        .map_err(|error| format!("`password` is no argon2id hash ({error}); {how}"))?;
    if parsed.algorithm.as_str() != "argon2id" || parsed.hash.is_none() {
        return Err(format!("`password` is no argon2id hash; {how}"));
    }
    let params = Params::try_from(&parsed)
        .map_err(|error| format!("the hash in `password` cannot be checked ({error}); {how}"))?;
    if params.m_cost() > PARAMS_MAX.0 || params.t_cost() > PARAMS_MAX.1 {
        return Err(format!(
            "the hash in `password` takes {} KiB and {} passes to check, the limit is {} and {}; {how}",
            params.m_cost(),
            params.t_cost(),
            PARAMS_MAX.0,
            PARAMS_MAX.1
        ));
    }
    Ok(())
}

/// Why a password cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Empty, or longer than [`PASSWORD_MAX_BYTES`].
    #[error("a password has 1 to {PASSWORD_MAX_BYTES} bytes")]
    Length,
    /// The system gives no random bytes, or no memory.
    #[error("the password cannot be hashed: {0}")]
    Hash(#[from] argon2::password_hash::Error),
}

/// The argon2id hash of a password with a salt of its own, as a PHC string. Costs 7 MiB and 40 ms on an
/// x86-64 PC, several times that on a small ARM core: not on an async thread.
///
/// # Errors
/// [`HashError`].
pub fn hash(password: &[u8]) -> Result<String, HashError> {
    if !(1..=PASSWORD_MAX_BYTES).contains(&password.len()) {
        return Err(HashError::Length);
    }
    let (memory, passes, lanes) = PARAMS;
    let params =
        Params::new(memory, passes, lanes, None).map_err(argon2::password_hash::Error::from)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = argon2.hash_password(password)?;
    Ok(hash.to_string())
}

/// What a check of `hash` costs: its memory in KiB times its passes; 0 for a text that is no hash.
#[must_use]
pub fn cost(hash: &str) -> u64 {
    let params = PasswordHash::new(hash).ok().and_then(|hash| Params::try_from(&hash).ok());
    params.map_or(0, |params| u64::from(params.m_cost()) * u64::from(params.t_cost()))
}

/// Whether `password` is the one of `hash`. As costly as [`hash`].
#[must_use]
pub fn matches(hash: &str, password: &[u8]) -> bool {
    // The costs are those in the hash.
    Argon2::default().verify_password(password, hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash that costs nothing: 8 KiB, one pass, of "secret".
    fn cheap() -> String {
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash: PasswordHash = argon2.hash_password_with_salt(b"secret", b"saltsalt").unwrap();
        hash.to_string()
    }

    #[test]
    fn a_hash_is_of_its_password_only() {
        let (one, other) = (hash(b"secret").unwrap(), hash(b"secret").unwrap());
        assert_ne!(one, other, "a salt each");
        assert!(one.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"));
        assert_eq!(cost(&one), STANDARD_COST);
        assert!(matches(&one, b"secret") && !matches(&one, b"Secret") && !matches(&one, b""));
        assert!(hash(b"").is_err() && hash(&[b'x'; PASSWORD_MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn a_users_file_is_read_whole_or_refused_with_its_mistake() {
        let hash = cheap();
        let good = format!(
            "rules = ['deny read test/nosubscribe']\n[user.press]\npassword = '{hash}'\nrole = 'node'\n\
             [user.\"plc.1\"]\npassword = '{hash}'\nrules = ['allow write plant/plc/#']\n"
        );
        let directory = Directory::parse(&good).unwrap();
        assert_eq!(directory.accounts.len(), 2);
        assert_eq!(directory.accounts["press"].role, Role::Node);
        assert_eq!(directory.accounts["plc.1"].rules.len(), 1);
        assert_eq!(
            (directory.weak(), directory.costliest),
            (vec!["plc.1", "press"], STANDARD_COST)
        );
        let costly = hash.replace("m=8,", "m=1048576,");
        for (wrong, said) in [
            (format!("[user.a]\npassword = '{hash}'\nrole = 'king'"), "unknown variant `king`"),
            (format!("[user.\"a b\"]\npassword = '{hash}'"), "`a b` is no user name"),
            (format!("[user.\"a/#\"]\npassword = '{hash}'"), "is no user name"),
            ("[user.a]\npassword = 'secret'".to_owned(), "humidor user passwd"),
            ("[user.a]\nrole = 'node'".to_owned(), "missing field `password`"),
            (format!("[user.a]\npassword = '{costly}'"), "1048576 KiB"),
            ("rules = ['deny test']".to_owned(), "is no rule"),
            ("role = 'node'".to_owned(), "unknown field `role`"),
        ] {
            let error = Directory::parse(&wrong).unwrap_err();
            assert!(error.contains(said), "{said} in {error}");
        }
    }
}
