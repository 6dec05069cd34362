//! The binary: parses the command line, runs the command, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use humidor::app;
use humidor::cli::Invocation;
use humidor::exit::Code;

fn main() -> ExitCode {
    exit_on_panic();
    let invocation = match Invocation::try_parse() {
        Ok(invocation) => invocation,
        Err(error) => {
            let error = with_synonym(error);
            let _ = error.print();
            // `--help` and `--version` come as errors too, for standard output.
            return if error.use_stderr() { Code::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    match app::run(invocation.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("humidor: {failure}");
            failure.code().into()
        }
    }
}

/// Words that people try, and the commands that they mean.
const SYNONYMS: [(&[&str], &[&str]); 11] = [
    (&["serve", "server", "mqtt", "hub"], &["broker"]),
    (&["run", "start", "up"], &["node", "broker", "demo"]),
    (&["board", "agent", "client", "sensor", "sensors"], &["node"]),
    (&["status", "ping", "alive"], &["health"]),
    (&["check", "test", "diagnose", "setup"], &["doctor"]),
    (&["log", "logs", "follow", "watch"], &["tail"]),
    (&["backup", "stats", "gaps", "database"], &["db"]),
    (&["settings", "configuration", "env"], &["config"]),
    (&["passwd", "adduser", "useradd", "login"], &["user"]),
    (&["pins", "pin", "header", "pinout"], &["gpio"]),
    (&["csv", "dump", "json"], &["export"]),
];

/// The error with the command that a synonym means in place of one that is only spelt alike.
fn with_synonym(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    let word = word.to_lowercase();
    let meant = SYNONYMS.iter().find(|(words, _)| words.contains(&word.as_str()));
    if let Some((_, meant)) = meant {
        let meant = meant.iter().map(|&command| command.to_owned()).collect();
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(meant));
    }
    error
}

/// A panic in any thread ends the process: a server without one of its threads looks alive and serves no client, and the
/// supervisor cannot notice.
fn exit_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(i32::from(Code::Internal as u8));
    }));
}
