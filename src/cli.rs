//! The command line, and nothing else: what is typed becomes an [`Invocation`].

use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{SETTINGS, Scope, interval, time};
use crate::reading::Id;

/// The version, with the revision of the source where the build tells it: docker/build.sh does. No build
/// script asks git, so that the same source gives the same bytes with or without a repository.
fn version() -> String {
    match option_env!("HUMIDOR_REVISION") {
        Some(revision) => format!("{} ({revision})", env!("CARGO_PKG_VERSION")),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// DHT11/DHT22 readings from small ARM boards, over MQTT, into a log that keeps what it acknowledged.
#[derive(Debug, Parser)]
#[command(name = "humidor", version = version(), max_term_width = 100)]
pub struct Invocation {
    /// What to do.
    #[command(subcommand)]
    pub command: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Broker and three simulated boards in one process; nothing to configure
    Demo(Demo),
    /// The board's role: read sensors, keep the readings, deliver them
    Node(NodeCommand),
    /// The broker's role: take readings, store them, acknowledge, pass on
    Broker(Broker),
    /// One reading now, or decode recorded pulse trains
    Read(Read),
    /// The lines of this machine and the header of this board
    Gpio(Gpio),
    /// Check this board; exit code of the first thing that does not work
    Doctor(Settings<Doctor>),
    /// Print the latest readings, and new ones as they are stored
    Tail(Tail),
    /// Write readings as CSV or JSON lines
    Export(Export),
    /// Look after the log
    Db(Db),
    /// Fill a log as if simulated boards had reported for a long time
    Sim(Sim),
    /// Who may connect to the broker; a running one takes it over by itself
    User(User),
    /// Ask the broker or node on this machine how it is; for container health checks
    Health(Settings<Health>),
    /// Show the effective configuration, where each value comes from, and every mistake
    Config(Settings<All>),
}

/// `humidor demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// End after this many seconds instead of at Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DemoScope>,
}

/// `humidor node`
#[derive(Debug, Args)]
pub struct NodeCommand {
    /// Instead of running: delete what this node left on the broker, its place in Home Assistant too
    #[arg(long)]
    pub forget: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<Node>,
}

/// `humidor broker`
#[derive(Debug, Args)]
pub struct Broker {
    /// Print every stored reading to standard output
    #[arg(long)]
    pub print: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<BrokerScope>,
}

/// How output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadFormat {
    /// For a person
    Text,
    /// One JSON object a line
    Json,
}

/// `humidor read`
#[derive(Debug, Args)]
pub struct Read {
    /// The sensor, as model@pin (dht22@7) or by its name in --sensors; all of --sensors if not given
    #[arg(value_name = "SENSOR", conflicts_with = "from")]
    pub sensor: Option<String>,
    /// Decode recordings instead. JSON file with pulse widths: {"model": "DHT22", "first": "low",
    /// "us": [80, 80, 50, …]}, or an array of these; - for standard input
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    pub format: ReadFormat,
    /// Show the pulse widths and the 40 bits too
    #[arg(long)]
    pub raw: bool,
    /// Readings of each sensor
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "from",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub count: u32,
    /// Tries for one reading
    #[arg(long, value_name = "N", default_value = "5", conflicts_with = "from",
          value_parser = clap::value_parser!(u32).range(1..=20))]
    pub tries: u32,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<Lines>,
}

/// `humidor gpio`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Gpio {
    /// What to show; the header of a board that is known, else the lines.
    #[command(subcommand)]
    pub task: Option<GpioTask>,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<Lines>,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub enum GpioTask {
    /// Every chip and line with its user
    List(Settings<Lines>),
    /// The board's header, drawn; ! marks what is better left alone
    Header(Settings<Lines>),
}

/// `humidor tail`
#[derive(Debug, Args)]
pub struct Tail {
    /// How many of the latest readings to begin with
    #[arg(short = 'n', long, value_name = "N", default_value = "10")]
    pub lines: usize,
    /// End after the latest readings instead of waiting for new ones
    #[arg(long)]
    pub no_follow: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// Form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Comma-separated, with a header
    Csv,
    /// One JSON object a line
    Jsonl,
}

/// `humidor export`
#[derive(Debug, Args)]
pub struct Export {
    /// Form of the output
    #[arg(long, value_enum, default_value = "csv")]
    pub format: ExportFormat,
    /// From this time on: 2026-11-22, 2026-11-22T08:00Z or Unix ms
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<i64>,
    /// Until before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<i64>,
    /// Only this node
    #[arg(long, value_name = "ID")]
    pub node: Option<Id>,
    /// Only sensors of this name
    #[arg(long, value_name = "ID")]
    pub sensor: Option<Id>,
    /// The numbers of foreign publishers instead of readings
    #[arg(long, conflicts_with_all = ["node", "sensor"])]
    pub samples: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// `humidor db`
#[derive(Debug, Args)]
pub struct Db {
    /// What to do with the log.
    #[command(subcommand)]
    pub task: DbTask,
}

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub enum DbTask {
    /// Full integrity check; exit 65 when it fails
    Check(Settings<DataScope>),
    /// Rows, sizes, time range, refusals by cause
    Stats(Settings<DataScope>),
    /// Numbers that a node counted but that never arrived; exit 65 when there are any
    Gaps(Settings<DataScope>),
    /// Write a compact copy, while the broker runs
    Backup(Backup),
}

/// `humidor db backup`
#[derive(Debug, Args)]
pub struct Backup {
    /// File to write; must not exist
    #[arg(value_name = "FILE")]
    pub target: PathBuf,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// `humidor sim`
#[derive(Debug, Args)]
pub struct Sim {
    /// Days up to now
    #[arg(long, value_name = "N", default_value = "365",
          value_parser = clap::value_parser!(u32).range(1..=3_660))]
    pub days: u32,
    /// Boards, each with one sensor
    #[arg(long, value_name = "N", default_value = "10",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    pub nodes: usize,
    /// Between two readings of a board, from 1s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = interval)]
    pub interval: Duration,
    /// Put the simulated boards beside what is in an existing log
    #[arg(long)]
    pub add: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// `humidor user`
#[derive(Debug, Args)]
pub struct User {
    /// What to do.
    #[command(subcommand)]
    pub task: UserTask,
}

/// What to do with the users.
#[derive(Debug, Subcommand)]
pub enum UserTask {
    /// Add a user; the password is asked for, or read from standard input
    Add(UserAdd),
    /// Give a user another password
    Passwd(UserName),
    /// Remove a user; its connections end
    Remove(UserName),
    /// Names, roles and how many rules each has
    List(Settings<UsersScope>),
}

/// `humidor user add`
#[derive(Debug, Args)]
pub struct UserAdd {
    /// Name: of a board, its node id
    #[arg(value_name = "NAME")]
    pub name: String,
    /// admin: everything. operator: read everything, command outputs. reader: read everything. node: one board,
    /// named like its node id. fleet: one user for all boards. none: only the rules in the file
    #[arg(long, value_name = "ROLE", default_value = "node",
          value_parser = clap::builder::PossibleValuesParser::new(crate::broker::ROLES.map(|(name, _)| name)))]
    pub role: String,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<UsersScope>,
}

/// A user.
#[derive(Debug, Args)]
pub struct UserName {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<UsersScope>,
}

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
    /// Of every command.
    General: All;
    /// Of commands on the log.
    DataScope: All Data Log;
    /// Of the demo, whose boards need no settings.
    DemoScope: All Data Broker Log Roles;
    /// Of the broker.
    BrokerScope: All Data Broker Log Users Access Login Roles;
    /// Of commands on the users.
    UsersScope: All Data Users;
    /// Of the node.
    Node: All Data Node Login Roles Lines;
    /// Of commands on the lines.
    Lines: All Lines;
    /// Of the check of a board.
    Doctor: All Data Lines;
    /// Of the health check, which only needs to find the process.
    Health: All Broker Node Roles Lines;
    /// All.
    All: All Data Broker Log Users Access Login Node Roles Lines;
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        super::Invocation::command().debug_assert();
    }
}
