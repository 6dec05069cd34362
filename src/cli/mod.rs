//! The command line: it becomes an [`Invocation`], and nothing is done yet.

mod settings;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::settings::{
    All, BrokerScope, DataScope, DemoScope, Doctor, GapsScope, Group, Health, Lines, Node,
    Settings, UpstreamScope, UsersScope,
};
use crate::config::{interval, time};
use crate::export_format::ExportFormat;
use crate::reading::Id;

/// The version, with the revision of the source if the build passes it, as docker/build.sh does. No build script asks
/// git: the same source gives the same bytes with or without a repository.
fn version() -> String {
    match option_env!("HUMIDOR_REVISION") {
        Some(revision) => format!("{} ({revision})", env!("CARGO_PKG_VERSION")),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// DHT11 and DHT22 readings from small ARM boards, over MQTT, into an SQLite log. The broker acknowledges a reading only
/// after it is stored.
#[derive(Debug, Parser)]
#[command(name = "humidor", version = version(), max_term_width = 100)]
pub struct Invocation {
    /// The command.
    #[command(subcommand)]
    pub command: Task,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Run a broker and three simulated boards in one process; needs no settings
    Demo(Demo),
    /// Run the board's role: read sensors, keep the readings, deliver them to the broker
    Node(NodeCommand),
    /// Run the broker's role: receive readings, store them, acknowledge them, forward them
    Broker(Broker),
    /// Read sensors now, or decode recorded pulse trains
    Read(Read),
    /// Show the GPIO lines of this machine and the header of this board
    Gpio(Gpio),
    /// Check this board: pins, clock, data folder, a reading of each sensor, the login at the broker. Names a remedy for
    /// each fault and what to do next; the first fault sets the exit code
    Doctor(Settings<Doctor>),
    /// Print the latest readings, then new ones as they are stored
    Tail(Tail),
    /// Write readings as CSV or JSON lines
    Export(Export),
    /// Check, measure and back up the log, and remove retired boards from it
    Db(Db),
    /// Fill a log with simulated readings of a long time
    Sim(Sim),
    /// Prepare and watch the PostgreSQL database that gets a copy of the log
    Upstream(UpstreamCommand),
    /// Manage the broker's users; a running broker applies changes within seconds
    User(User),
    /// Check the broker or node that runs on this machine; for container health checks
    Health(HealthCheck),
    /// Show every setting with its value and origin, and report every mistake
    Config(Settings<All>),
}

/// `humidor demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop after this many seconds instead of at Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DemoScope>,
}

/// `humidor node`
#[derive(Debug, Args)]
pub struct NodeCommand {
    /// Do not run: delete this node's retained messages on the broker and its device in Home Assistant
    #[arg(long)]
    pub forget: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<Node>,
}

/// `humidor health`
#[derive(Debug, Args)]
pub struct HealthCheck {
    /// Exit with 0, not 75, while a node is degraded: for checks that restart a container, which would not help it
    #[arg(long)]
    pub alive: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<Health>,
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

/// Format of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadFormat {
    /// Aligned text
    Text,
    /// One JSON object per line
    Json,
}

/// `humidor read`
#[derive(Debug, Args)]
pub struct Read {
    /// Sensor as model@pin (dht22@7), or a name in --sensors [default: all of --sensors]
    #[arg(value_name = "SENSOR", conflicts_with = "from")]
    pub sensor: Option<String>,
    /// Decode recordings instead of reading sensors. The file is JSON with pulse widths in µs, {"model": "DHT22",
    /// "first": "low", "us": [80, 80, 50, …]}, or an array of these; - is standard input
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    pub format: ReadFormat,
    /// Also show the pulse widths and the 40 bits
    #[arg(long)]
    pub raw: bool,
    /// Number of readings from each sensor
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "from",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub count: u32,
    /// Maximum number of tries for one reading
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
    /// What to show: the header of a known board, else the lines.
    #[command(subcommand)]
    pub task: Option<GpioTask>,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<Lines>,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub enum GpioTask {
    /// List every chip and line with its consumer
    List(Settings<Lines>),
    /// Draw the board's header; ! marks lines that the board needs for itself
    Header(Settings<Lines>),
}

/// `humidor tail`
#[derive(Debug, Args)]
pub struct Tail {
    /// Number of latest readings to print first
    #[arg(short = 'n', long, value_name = "N", default_value = "10")]
    pub lines: usize,
    /// Exit after the latest readings instead of waiting for new ones
    #[arg(long)]
    pub no_follow: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// `humidor export`
#[derive(Debug, Args)]
pub struct Export {
    /// Output format
    #[arg(long, value_enum, default_value = "csv")]
    pub format: ExportFormat,
    /// Start time, inclusive: 2026-11-22, 2026-11-22T08:00Z or Unix ms
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<i64>,
    /// End time, exclusive
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<i64>,
    /// Only readings of this node
    #[arg(long, value_name = "ID")]
    pub node: Option<Id>,
    /// Only readings of sensors with this name
    #[arg(long, value_name = "ID")]
    pub sensor: Option<Id>,
    /// Export the numbers of other publishers instead of readings
    #[arg(long, conflicts_with_all = ["node", "sensor"])]
    pub samples: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// `humidor db`
#[derive(Debug, Args)]
pub struct Db {
    /// The task.
    #[command(subcommand)]
    pub task: DbTask,
}

/// Tasks on the log.
#[derive(Debug, Subcommand)]
pub enum DbTask {
    /// Check the whole file; exit code 65 if it is damaged
    Check(Settings<DataScope>),
    /// Show row counts, sizes, time range, and refused messages by cause
    Stats(Settings<DataScope>),
    /// List readings that a node took and the log does not have, nor PostgreSQL with --upstream, where a board's readings
    /// through other brokers are; exit code 65 if there are any
    Gaps(Settings<GapsScope>),
    /// Write a compact copy of the log; the broker may run meanwhile
    Backup(Backup),
    /// Delete all data of a retired board: readings, retained messages, sessions; the broker may run meanwhile
    Forget(Forget),
}

/// `humidor db forget`
#[derive(Debug, Args)]
pub struct Forget {
    /// The board's node id
    #[arg(value_name = "NODE")]
    pub node: Id,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// `humidor db backup`
#[derive(Debug, Args)]
pub struct Backup {
    /// File to write; it must not exist
    #[arg(value_name = "FILE")]
    pub target: PathBuf,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// `humidor sim`
#[derive(Debug, Args)]
pub struct Sim {
    /// Number of days up to now
    #[arg(long, value_name = "N", default_value = "365",
          value_parser = clap::value_parser!(u32).range(1..=3_660))]
    pub days: u32,
    /// Number of boards, each with one sensor
    #[arg(long, value_name = "N", default_value = "10",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    pub nodes: usize,
    /// Time between two readings of a board, from 1s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = interval)]
    pub interval: Duration,
    /// Add the simulated boards to an existing log
    #[arg(long)]
    pub add: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<DataScope>,
}

/// `humidor upstream`
#[derive(Debug, Args)]
pub struct UpstreamCommand {
    /// The task.
    #[command(subcommand)]
    pub task: UpstreamTask,
}

/// Tasks on the upstream database.
#[derive(Debug, Subcommand)]
pub enum UpstreamTask {
    /// Make the tables in schema humidor, or bring them up to date; needs a user that may do so
    Migrate(Migrate),
    /// Show how far each broker's log is; exit code 75 while this broker's is behind by more than a minute
    Status(Settings<UpstreamScope>),
    /// Have stored readings sent again; the broker may run meanwhile
    Forward(Again),
}

/// `humidor upstream migrate`
#[derive(Debug, Args)]
pub struct Migrate {
    /// User that gets the rights a broker needs, and no more
    #[arg(long, value_name = "USER")]
    pub grant: Option<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<UpstreamScope>,
}

/// `humidor upstream forward`
#[derive(Debug, Args)]
pub struct Again {
    /// Start time of the readings, or all: 2026-11-22, 2026-11-22T08:00Z or Unix ms
    #[arg(long, value_name = "FROM", value_parser = from)]
    pub again: i64,
    /// Under a new name, for a log that is a copy of another one or was restored from a backup
    #[arg(long)]
    pub rename: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<UpstreamScope>,
}

/// A time, or `all` for the earliest one.
fn from(text: &str) -> Result<i64, String> {
    if text == "all" { Ok(i64::MIN) } else { time(text) }
}

/// `humidor user`
#[derive(Debug, Args)]
pub struct User {
    /// The task.
    #[command(subcommand)]
    pub task: UserTask,
}

/// Tasks on the users.
#[derive(Debug, Subcommand)]
pub enum UserTask {
    /// Add a user. The command prompts for the password, or reads it from standard input
    Add(UserAdd),
    /// Change the password of a user
    Passwd(UserName),
    /// Remove a user and close its connections
    Remove(UserName),
    /// List the users with their roles and numbers of rules
    List(Settings<UsersScope>),
}

/// `humidor user add`
#[derive(Debug, Args)]
pub struct UserAdd {
    /// User name; for a board its node id
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Rights. admin: everything. operator: read everything and switch outputs. reader: read everything. node: the
    /// topics of one board, whose node id is the user name. fleet: one user for all boards, each with the topics of its
    /// node id. none: only the rules in the users file
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
    /// User name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Settings.
    #[command(flatten)]
    pub settings: Settings<UsersScope>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        super::Invocation::command().debug_assert();
    }
}
