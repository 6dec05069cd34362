//! rumqttd's stock broker. It has no program of its own, so the bench runs itself as one.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use super::Running;
use crate::support::stock::stock_broker;

/// Tells the bench to be the stock broker.
const ASKED: &str = "LOAD_IS_STOCK_BROKER";

pub(super) fn start() -> Running {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .env(ASKED, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its output is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it says its address");
    let address = line.trim().parse().expect("an address");
    Running::other(child, None, address)
}

/// Serves as the stock broker until the bench that asked for it ends; returns at once in a bench of which that is not
/// asked.
pub fn serve_if_asked() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    println!("{}", stock_broker());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}
