//! humidor and the brokers it is measured beside, each as a process of its own. They are started for their turn and
//! ended after it, so that none of them works in the turn of another.

#![allow(dead_code, unused_imports)] // every bench uses its part

mod flashmq;
mod mosquitto;
mod stock;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub use stock::serve_if_asked;

use crate::load::Target;
use crate::support::{Process, broker, wait_until};

/// A broker that can be started.
#[derive(Debug)]
pub struct Broker {
    /// With its version, where it has one.
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Humidor,
    Mosquitto(PathBuf),
    FlashMq(PathBuf),
    Stock,
}

/// A broker that runs, until this is dropped.
pub struct Running {
    pub target: Target,
    process: Owned,
}

enum Owned {
    Humidor(Process),
    Other(Child, Option<TempDir>),
}

impl Broker {
    /// This project's.
    pub fn humidor() -> Self {
        Self { name: "humidor".to_owned(), kind: Kind::Humidor }
    }

    /// humidor, Debian's mosquitto (`docker/setup.sh peer`), rumqttd's stock broker, and those that the environment names:
    /// `LOAD_PEER_MOSQUITTO` a mosquitto of another version, `LOAD_PEER_FLASHMQ` a `FlashMQ`.
    ///
    /// # Panics
    /// When one that the environment names does not run.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::humidor()];
        let debian = ["mosquitto", "/usr/sbin/mosquitto"].map(PathBuf::from);
        all.extend(debian.into_iter().find_map(mosquitto::find));
        all.push(Self { name: "rumqttd stock".to_owned(), kind: Kind::Stock });
        let named = |variable| std::env::var_os(variable).map(PathBuf::from);
        for (path, find) in [
            (named("LOAD_PEER_MOSQUITTO"), mosquitto::find as fn(PathBuf) -> Option<Self>),
            (named("LOAD_PEER_FLASHMQ"), flashmq::find),
        ] {
            let Some(path) = path else { continue };
            let shown = path.display().to_string();
            all.push(find(path).unwrap_or_else(|| panic!("{shown} does not run")));
        }
        all
    }

    pub const fn is_humidor(&self) -> bool {
        matches!(self.kind, Kind::Humidor)
    }

    /// Starts it and waits until it listens. humidor's log is in `data`; no other broker keeps anything.
    pub fn start(&self, data: &Path) -> Running {
        match &self.kind {
            Kind::Humidor => Running::humidor(data, &[]),
            Kind::Mosquitto(program) => mosquitto::start(program),
            Kind::FlashMq(program) => flashmq::start(program),
            Kind::Stock => stock::start(),
        }
    }
}

impl Running {
    /// humidor with further arguments.
    pub fn humidor(data: &Path, more: &[&str]) -> Self {
        let (process, address) = broker(data, "127.0.0.1:0", more);
        let target = Target { address, pid: process.id() };
        Self { target, process: Owned::Humidor(process) }
    }

    /// Starts a program with a configuration file of its own, which `text` makes for a free port.
    fn configured(program: &Path, option: &str, text: impl Fn(u16) -> String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        drop(listener);
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("broker.conf");
        std::fs::write(&file, text(address.port())).expect("a file can be written");
        let mut command = Command::new(program);
        command.arg(option).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the program runs");
        let running = Self::other(child, Some(folder), address);
        wait_until("the broker listens", || TcpStream::connect(address).is_ok());
        running
    }

    fn other(child: Child, folder: Option<TempDir>, address: SocketAddr) -> Self {
        let target = Target { address, pid: child.id() };
        Self { target, process: Owned::Other(child, folder) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A Process ends itself.
        if let Owned::Other(child, _) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The first line that a program says about itself which begins with `start`.
fn version(program: &Path, option: &str, start: &str) -> Option<String> {
    let said = Command::new(program).arg(option).output().ok()?;
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().find(|line| line.starts_with(start)).map(str::to_owned)
}
