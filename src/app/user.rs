//! `humidor user`: edits the users file and keeps the comments and rules that were written by hand.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use toml_edit::{DocumentMut, Item, Table, value};

use super::failure::Failure;
use super::layers;
use super::own_address::own_address;
use crate::bounded_file;
use crate::broker::{Directory, UsersError, check_name, hash, new_id};
use crate::cli::{UserAdd, UserName, UserTask};
use crate::config;
use crate::exit::Code;
use crate::node::BrokerAddress;
use crate::reading::Id;
use crate::wire::is_reserved_id;

/// Largest file that is edited, in bytes; the broker takes no larger one.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// Longest line that is read as a password, in bytes; `hash` has its own limit.
const LINE_MAX_BYTES: u64 = 4096;
/// Port for MQTT in the line for a board.
const MQTT_PORT: u16 = 1883;
/// Mode of a new file: its owner, and its group, which may be the broker's.
const MODE: u32 = 0o640;
/// Beginning of a new file.
const PREFACE: &str = "\
# The broker's users. `humidor user` writes names and passwords, you write the rules; a running broker applies
# changes within seconds. The first rule that matches decides, in this order: those here, the user's, its role's.
#
# rules = [\"deny read test/nosubscribe\"]
#
# [user.plc]
# password = \"$argon2id$…\"
# role = \"none\"
# rules = [\"allow write plant/%u/#\", \"allow read plant/#\"]
";

/// Runs the task.
pub fn run(task: &UserTask) -> Result<(), Failure> {
    match task {
        UserTask::Add(add) => self::add(add),
        UserTask::Passwd(user) => passwd(user),
        UserTask::Remove(user) => remove(user),
        UserTask::List(settings) => list(&config::users_file(layers(&settings.flags))?),
    }
}

fn add(UserAdd { name, role, settings }: &UserAdd) -> Result<(), Failure> {
    let mut file = UsersFile::open(config::users_file(layers(&settings.flags))?)?;
    check_name(name).map_err(|error| Failure::new(Code::Usage, error))?;
    if file.user(name).is_some() {
        return Err(file.refuse(format!(
            "user {name} exists already; `humidor user passwd {name}` changes the password"
        )));
    }
    if is_reserved_id(name) {
        let error =
            anyhow!("`{name}` is reserved: its topics are the broker's own; choose another name");
        return Err(Failure::new(Code::Usage, error));
    }
    // A board's user has the board's id: with another name no board could use it.
    if role.as_str() == "node"
        && let Err(error) = name.parse::<Id>()
    {
        let error = anyhow!(
            "{error} A user of role node is one board, whose id is the user's name; for a person add --role reader, operator or admin, for all boards --role fleet"
        );
        return Err(Failure::new(Code::Usage, error));
    }
    let mut user = Table::new();
    user.insert("password", value(new_password(name)?));
    user.insert("role", value(role.as_str()));
    user.insert("id", value(new_id()));
    file.users()?.insert(name, Item::Table(user));
    file.write()?;
    say(&format!("added user {name} with role {role} to {}", file.path.display()))?;
    say(&next_step(name, role))
}

/// What the user may do, and where it is entered.
fn next_step(name: &str, role: &str) -> String {
    let host = own_address().map_or_else(|| "BROKER".to_owned(), |ip| ip.to_string());
    let broker = BrokerAddress::new(host.clone(), MQTT_PORT).of_user(name);
    let page = format!("log in on the page, http://{host}:8080/");
    match role {
        "node" => format!(
            "it may publish and take commands as the board `{name}` only; for boards with other ids use --role fleet. On the board:\n  HUMIDOR_NODE={name} HUMIDOR_BROKER={broker} HUMIDOR_PASSWORD_FILE=FILE humidor node"
        ),
        "fleet" => format!(
            "all boards may use it, each for the topics of its own HUMIDOR_NODE. On each board:\n  HUMIDOR_NODE=ID HUMIDOR_BROKER={broker} HUMIDOR_PASSWORD_FILE=FILE humidor node"
        ),
        "admin" => format!("it may do everything: {page}"),
        "operator" => format!("it may read everything and switch outputs: {page}"),
        "reader" => format!("it may read everything: {page}"),
        _ => "it may do nothing until the users file has rules for it".to_owned(),
    }
}

fn passwd(UserName { name, settings }: &UserName) -> Result<(), Failure> {
    let mut file = UsersFile::open(config::users_file(layers(&settings.flags))?)?;
    if file.user(name).is_none() {
        return Err(file.refuse(format!("there is no user {name}")));
    }
    let password = new_password(name)?;
    if let Some(user) = file.user(name) {
        user.insert("password", value(password));
    }
    file.write()?;
    say(&format!(
        "changed the password of {name}; a running broker closes connections with the old one"
    ))
}

fn remove(UserName { name, settings }: &UserName) -> Result<(), Failure> {
    let mut file = UsersFile::open(config::users_file(layers(&settings.flags))?)?;
    if file.users()?.remove(name).is_none() {
        return Err(file.refuse(format!("there is no user {name}")));
    }
    let last = file.users()?.is_empty();
    file.write()?;
    say(&format!("removed user {name}; a running broker closes its connections"))?;
    if last {
        say(
            "there is no user left: until there is one, nobody can connect, unless HUMIDOR_ANONYMOUS=yes",
        )?;
    }
    Ok(())
}

fn list(path: &Path) -> Result<(), Failure> {
    let directory = Directory::read(path)?;
    let mut out = io::stdout().lock();
    for (name, account) in &directory.accounts {
        writeln!(out, "{name:24} {:9} {} rules", account.role, account.rules.len())?;
    }
    Ok(())
}

fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// The hash of a password: typed twice without an echo, or one line of standard input.
fn new_password(name: &str) -> Result<String, Failure> {
    let password = if io::stdin().is_terminal() {
        let password = rpassword::prompt_password(format!("Password for {name}: "))?;
        if rpassword::prompt_password("Again: ")? != password {
            return Err(Failure::new(Code::Data, anyhow!("the two passwords differ")));
        }
        password
    } else {
        let mut line = String::new();
        io::stdin().lock().take(LINE_MAX_BYTES).read_line(&mut line)?;
        // As a board reads a password: neither a byte order mark nor the end of the line belongs to it.
        line.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']).to_owned()
    };
    hash(password.as_bytes()).map_err(|error| Failure::new(Code::Data, error))
}

/// The file with its comments.
struct UsersFile {
    path: PathBuf,
    document: DocumentMut,
    /// Mode, owner and group of the file that was there.
    metadata: Option<std::fs::Metadata>,
}

impl UsersFile {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let metadata = match path.metadata() {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let folder = path.parent().unwrap_or(&path).display();
                let error =
                    anyhow!("{folder} is a file, not a folder; set HUMIDOR_DATA to a folder");
                return Err(Failure::new(Code::Config, error));
            }
            Err(source) => return Err(UsersError::Io { path, source }.into()),
        };
        let text = match metadata {
            // The broker's reader comes first: a file that it refuses is not edited.
            Some(_) => {
                Directory::read(&path)?;
                bounded_file::read_text(&path, FILE_MAX_BYTES)
                    .map_err(|error| anyhow!("{}: {error}", path.display()))
                    .map_err(|error| Failure::new(Code::Config, error))?
            }
            None => PREFACE.to_owned(),
        };
        let document = text.parse::<DocumentMut>().map_err(|error| UsersError::Content {
            path: path.clone(),
            cause: error.to_string(),
        })?;
        Ok(Self { path, document, metadata })
    }

    fn users(&mut self) -> Result<&mut Table, Failure> {
        let mut empty = Table::new();
        // Only `[user.NAME]` is written, not `[user]`.
        empty.set_implicit(true);
        let users = self.document.entry("user").or_insert(Item::Table(empty));
        let path = &self.path;
        users.as_table_mut().ok_or_else(|| {
            let cause = "write users as [user.NAME] tables, one a user".to_owned();
            UsersError::Content { path: path.clone(), cause }.into()
        })
    }

    fn user(&mut self, name: &str) -> Option<&mut dyn toml_edit::TableLike> {
        self.document.get_mut("user")?.as_table_like_mut()?.get_mut(name)?.as_table_like_mut()
    }

    fn refuse(&self, what: String) -> Failure {
        let cause = what;
        Failure::new(Code::Data, UsersError::Content { path: self.path.clone(), cause })
    }

    /// Writes a new file and renames it over the old one: a broker that reads meanwhile sees one of both, and a power cut
    /// leaves one of both.
    fn write(&self) -> Result<(), Failure> {
        // A link stays a link.
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let beside = PathBuf::from(name);
        // The data folder of a broker that has not run yet.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let written = folder
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| self.write_to(&beside))
            .and_then(|()| std::fs::rename(&beside, &path));
        if let Err(source) = written {
            let _ = std::fs::remove_file(&beside);
            let folder = path.parent().unwrap_or(&path).to_owned();
            return Err(UsersError::Io { path: folder, source }.into());
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
        if let Some(old) = &self.metadata {
            file.set_permissions(PermissionsExt::from_mode(old.mode()))?;
            // Without root's rights the file keeps its new owner; the broker reports it if it cannot read the file.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.write_all(self.document.to_string().as_bytes())?;
        file.sync_all()
    }
}
