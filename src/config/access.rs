//! Who may connect to the broker, from the settings.

use std::path::{Path, PathBuf};

use super::layers::{Layers, Problems};
use super::roles::{data_folder, one_of};
use crate::broker::{AccessConfig, Anonymous, Password, USERS_FILE, check_name};

/// The users file as set, or the one in the data folder.
///
/// # Errors
/// Every mistake.
pub fn users_file(mut layers: Layers) -> Result<PathBuf, Problems> {
    let file = data_folder(&mut layers).map(|data| file(&mut layers, &data).0);
    layers.finish(file)
}

fn file(layers: &mut Layers, data: &Path) -> (PathBuf, bool) {
    match layers.take("users_file", |text| Ok::<_, String>(PathBuf::from(text))) {
        Some(file) => (file, true),
        None => (data.join(USERS_FILE), false),
    }
}

pub(super) fn access(layers: &mut Layers, data: &Path) -> Option<AccessConfig> {
    let (users_file, users_file_named) = file(layers, data);
    let name = layers.take("user", |text| check_name(text).map(|()| text.to_owned()));
    let user = match (name, layers.get("password")) {
        (Some(name), Some((password, _))) => Some((name, Password(password))),
        (Some(_), None) => {
            layers.problem(
                "HUMIDOR_USER is set and has no password: set HUMIDOR_PASSWORD_FILE".to_owned(),
            );
            None
        }
        // On a machine that plays both roles the password may be the node's.
        (None, _) => None,
    };
    let anonymous = layers.need("anonymous", |text| match text {
        "auto" => Ok(Anonymous::Auto),
        "yes" => Ok(Anonymous::Yes),
        "no" => Ok(Anonymous::No),
        other => Err(one_of(other, &["auto", "yes", "no"])),
    });
    Some(AccessConfig {
        users_file: Some(users_file),
        users_file_named,
        user,
        anonymous: anonymous?,
    })
}
