//! The binary: parses the command line, runs the command, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use humidor::app;
use humidor::cli::Invocation;
use humidor::exit::Code;

fn main() -> ExitCode {
    exit_on_panic();
    let invocation = match Invocation::try_parse() {
        Ok(invocation) => invocation,
        Err(error) => {
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

/// A panic in any thread ends the process: a server without one of its threads looks alive and serves no client, and the
/// supervisor cannot notice.
fn exit_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(i32::from(Code::Internal as u8));
    }));
}
