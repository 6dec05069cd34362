//! The settings of each command, as flags of its command line.

use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{SETTINGS, Scope};

/// A set of settings that a command takes.
pub trait Group {
    /// Their scopes.
    const SCOPES: &'static [Scope];
}

macro_rules! group {
    ($($(#[$doc:meta])* $name:ident: $($scope:ident)+;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}
        impl Group for $name {
            const SCOPES: &'static [Scope] = &[$(Scope::$scope),+];
        }
    )*};
}

group! {
    /// Of commands on the log.
    DataScope: All Data Log;
    /// Of the demo, whose boards need no settings.
    DemoScope: All Data Broker Log Roles;
    /// Of the broker.
    BrokerScope: All Data Broker Log Upstream Users Access Login Roles;
    /// Of commands on the log that ask the upstream database, too.
    GapsScope: All Data Log Upstream;
    /// Of commands on the upstream database.
    UpstreamScope: All Data Upstream;
    /// Of commands on the users.
    UsersScope: All Data Users;
    /// Of the node.
    Node: All Data Node Login Roles Lines;
    /// Of commands on the lines.
    Lines: All Lines;
    /// Of the check of a board.
    Doctor: All Data Node Login Roles Lines;
    /// Of the health check, which only needs to find the process.
    Health: All Broker Node Roles Lines;
    /// All.
    All: All Data Broker Log Upstream Users Access Login Node Roles Lines;
}

/// The flags of a group of settings, as typed. They come from the table of settings, so that a flag, its
/// variable and its TOML key cannot drift apart.
#[derive(Debug, Clone)]
pub struct Settings<G> {
    /// Key and value of each flag that was given.
    pub flags: Vec<(&'static str, String)>,
    group: PhantomData<G>,
}

impl<G: Group> FromArgMatches for Settings<G> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = of_group::<G>()
            .filter_map(|setting| {
                Some((setting.key, matches.get_one::<String>(setting.key)?.clone()))
            })
            .collect();
        Ok(Self { flags, group: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<G: Group> Args for Settings<G> {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Settings").args(of_group::<G>().map(|setting| {
            let default = setting.default.filter(|default| !default.is_empty());
            let default =
                default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
            Arg::new(setting.key).long(setting.flag()).value_name(setting.form).help(format!(
                "{} [env: {}]{default}",
                setting.help,
                setting.variable()
            ))
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn of_group<G: Group>() -> impl Iterator<Item = &'static crate::config::Setting> {
    SETTINGS.iter().filter(|setting| G::SCOPES.contains(&setting.scope))
}
