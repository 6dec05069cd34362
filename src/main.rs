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
const SYNONYMS: [(&[&str], &[&str]); 10] = [
    (&["serve", "server", "mqtt", "hub", "web", "page", "ui", "dashboard"], &["broker"]),
    (&["run", "start", "up"], &["node", "broker", "demo"]),
    (&["board", "agent", "client", "sensor", "sensors"], &["node"]),
    (&["status", "ping", "alive"], &["health"]),
    (&["check", "test", "diagnose", "setup"], &["doctor"]),
    (&["log", "logs", "follow", "watch", "monitor", "subscribe"], &["tail"]),
    (&["settings", "configuration", "env"], &["config"]),
    (&["pins", "pin", "header", "pinout"], &["gpio"]),
    (&["csv", "dump", "json"], &["export"]),
    (&["database"], &["db"]),
];
/// The same for commands below another one, which clap does not look for.
const DEEPER: [(&[&str], &str); 9] = [
    (&["verify", "repair"], "db check"),
    (&["backup", "save", "restore"], "db backup"),
    (&["stats", "size", "usage"], "db stats"),
    (&["gaps", "gap", "holes", "missing"], "db gaps"),
    (&["forget", "remove", "rm", "delete", "retire"], "db forget"),
    (&["add", "adduser", "add-user", "useradd", "login"], "user add"),
    (&["passwd", "password"], "user passwd"),
    (&["list"], "user list"),
    (&["version"], "--version"),
];

/// Commands below another one.
const BELOW: [(&str, &[&str], &str); 4] = [
    ("user", &["del", "delete", "erase"], "remove"),
    ("user", &["password", "change", "edit"], "passwd"),
    ("db", &["remove", "rm", "del", "delete", "retire"], "forget"),
    ("gpio", &["pins", "pinout", "board"], "header"),
];
/// Flags of other programs by command, and those here that may be meant.
const FLAGS: [(&[&str], &[&str], &[&str]); 3] = [
    (&["broker", "demo"], &["--port", "--listen", "--bind"], &["--mqtt-listen", "--http-listen"]),
    (&["node", "doctor"], &["--pin", "--pins", "--model"], &["--sensors"]),
    (&["export"], &["--since", "--start", "--after"], &["--from"]),
];

/// The error with the command that is meant in place of those that are only spelt somewhat alike: a synonym, else the
/// nearest word of clap's.
fn with_synonym(mut error: clap::Error) -> clap::Error {
    let first = std::env::args().nth(1).unwrap_or_default().to_lowercase();
    let owned = |meant: &[&str]| meant.iter().map(|&word| word.to_owned()).collect();
    if let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
        && let Some((.., meant)) = FLAGS.iter().find(|(commands, flags, _)| {
            commands.contains(&first.as_str()) && flags.contains(&flag.as_str())
        })
    {
        error.insert(ContextKind::SuggestedArg, ContextValue::Strings(owned(meant)));
        return error;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    let word = word.to_lowercase();
    let is_first = first == word;
    let below = BELOW.iter().find(|(command, words, _)| {
        *command == first && !is_first && words.contains(&word.as_str())
    });
    let synonym = SYNONYMS.iter().find(|(words, _)| words.contains(&word.as_str()));
    let deeper = DEEPER.iter().find(|(words, _)| words.contains(&word.as_str()));
    let near = error.get(ContextKind::SuggestedSubcommand);
    let meant: Vec<String> = match (synonym, deeper, near) {
        _ if below.is_some() => below.map(|(.., meant)| (*meant).to_owned()).into_iter().collect(),
        (Some((_, meant)), ..) if is_first => owned(meant),
        (_, Some((_, meant)), _) if is_first => vec![(*meant).to_owned()],
        (.., Some(ContextValue::Strings(near))) => {
            let distance = |near: &String| strsim::damerau_levenshtein(&word, near);
            let least = near.iter().map(distance).min();
            near.iter().filter(|near| Some(distance(near)) == least).cloned().collect()
        }
        _ => return error,
    };
    error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(meant));
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
