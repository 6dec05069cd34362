//! The commands, one file a group: each composes the roles from its settings, and turns errors into exit codes.

mod backup;
mod config;
mod demo;
mod demo_history;
mod doctor;
mod failure;
mod forget;
mod gpio;
mod health;
mod log;
mod node_start;
mod own_address;
mod print;
mod read;
mod roles;
mod server;
mod sim;
mod supervisor;
mod upstream;
mod user;

use std::time::Duration;

pub use failure::Failure;

use crate::cli::{DbTask, GpioTask, Task};
use crate::config::{Layers, LogFormat, Logging};
use crate::exit::Code;

/// Longest wait at exit for calls that still block a thread.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// Runs a command.
///
/// # Errors
/// The error with its exit code.
pub fn run(task: Task) -> Result<(), Failure> {
    match task {
        Task::Demo(demo) => demo::run(demo.seconds, layers(&demo.settings.flags)),
        Task::Node(node) if node.forget => roles::forget(layers(&node.settings.flags)),
        Task::Node(node) => roles::node(layers(&node.settings.flags)),
        Task::Broker(broker) => roles::broker(broker.print, layers(&broker.settings.flags)),
        Task::Read(read) => read::run(&read),
        Task::Gpio(gpio) => {
            let settings = match &gpio.task {
                Some(GpioTask::List(settings) | GpioTask::Header(settings)) => settings,
                None => &gpio.settings,
            };
            gpio::run(gpio.task.as_ref(), layers(&settings.flags))
        }
        Task::Doctor(settings) => doctor::run(layers(&settings.flags)),
        Task::Tail(tail) => log::tail(&tail, layers(&tail.settings.flags)),
        Task::Export(export) => log::export(&export, layers(&export.settings.flags)),
        Task::Db(db) => match db.task {
            DbTask::Check(settings) => log::check(layers(&settings.flags)),
            DbTask::Stats(settings) => log::stats(layers(&settings.flags)),
            DbTask::Gaps(settings) => log::gaps(layers(&settings.flags)),
            DbTask::Backup(backup) => {
                backup::backup(&backup.target, layers(&backup.settings.flags))
            }
            DbTask::Forget(options) => forget::run(&options, layers(&options.settings.flags)),
        },
        Task::Sim(sim) => sim::run(&sim, layers(&sim.settings.flags)),
        Task::Upstream(upstream) => upstream::run(&upstream.task),
        Task::User(user) => user::run(&user.task),
        Task::Health(check) => health::run(check.alive, layers(&check.settings.flags)),
        Task::Config(settings) => config::run(&layers(&settings.flags)),
    }
}

fn layers(flags: &[(&'static str, String)]) -> Layers {
    Layers::new(flags, std::env::vars_os())
}

/// Starts the log of a role, and logs what may be a mistake in its settings.
fn start_role_log(layers: &Layers) {
    start_log(&layers.logging());
    for warning in layers.warnings() {
        tracing::warn!("{warning}");
    }
}

fn start_log(logging: &Logging) {
    use std::io::IsTerminal;
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = logging.filter.clone();
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false);
    // A second start, as in tests of this crate, keeps the first subscriber.
    let _ = match logging.format {
        LogFormat::Json => builder.json().finish().with(filter).try_init(),
        LogFormat::Human => builder.finish().with(filter).try_init(),
    };
}

/// Runs a role on a runtime of two workers: the boards have four cores, and the sampler needs one of them.
fn block_on<T>(role: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Internal, error))?;
    let outcome = runtime.block_on(role);
    // A call that still blocks a thread, such as a name look-up without an answer, must not delay the exit.
    runtime.shutdown_timeout(STRAGGLERS);
    outcome
}
