//! A service manager is told when a role is ready, alive and stopping (`sd_notify(3)`): only then may it replace what ran before.

mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use support::{Process, humidor};
use tempfile::TempDir;

/// A service manager's socket.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        Self { folder, socket }
    }

    /// `humidor` with these arguments under this manager, which waits for a sign of life twice a second.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = humidor();
        command
            .args(arguments)
            .arg("--data")
            .arg(self.folder.path())
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("WATCHDOG_USEC", "500000")
            .env_remove("WATCHDOG_PID");
        command
    }

    /// The next message that is no sign of life.
    fn next(&self) -> String {
        loop {
            let text = self.next_of_all();
            if text != "WATCHDOG=1" {
                return text;
            }
        }
    }

    fn next_of_all(&self) -> String {
        let mut buffer = [0; 256];
        let count = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..count]).trim().to_owned()
    }
}

#[test]
fn a_node_is_ready_before_its_broker_answers_and_a_broker_when_its_log_is_open() {
    let node = ["node", "--node", "n", "--gpio", "sim", "--sensors", "hall=dht22@7"];
    // Nobody listens on port 1.
    let node = [node.as_slice(), &["--broker", "mqtt://127.0.0.1:1"]].concat();
    let listen = ["--mqtt-listen", "127.0.0.1:0", "--http-listen", "off"];
    let broker = [["broker"].as_slice(), &listen].concat();
    for arguments in [node, broker] {
        let manager = Manager::new();
        let process = Process::start(manager.command(&arguments));
        assert_eq!(manager.next(), "READY=1", "{}", arguments[0]);
        for _ in 0..3 {
            assert_eq!(manager.next_of_all(), "WATCHDOG=1");
        }
        assert_eq!(process.terminate(), Some(0));
        assert_eq!(manager.next(), "STOPPING=1");
    }
}

#[test]
fn an_abstract_socket_is_told_and_a_manager_that_does_not_read_holds_up_nothing() {
    let name = format!("humidor-test-{:016x}", fastrand::u64(..));
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let manager = Manager::new();
    let mut command =
        manager.command(&["broker", "--mqtt-listen", "127.0.0.1:0", "--http-listen", "off"]);
    command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "20000");
    let process = Process::start(command);
    process.said("listening for MQTT");
    // Its queue is full when a message more does not fit.
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    support::wait_until("the queue is full", || other.send_to_addr(b"x", &address).is_err());
    assert_eq!(process.terminate(), Some(0));
    let mut buffer = [0; 256];
    let count = socket.recv(&mut buffer).unwrap();
    assert!([&b"READY=1"[..], b"WATCHDOG=1", b"x"].contains(&&buffer[..count]));
}

#[test]
fn a_role_that_cannot_start_is_never_ready() {
    let manager = Manager::new();
    let process =
        Process::start(manager.command(&["node", "--node", "n", "--sensors", "a=dht22@7"]));
    assert_eq!(process.end().0, Some(78));
    manager.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 256];
    let told = manager.socket.recv(&mut buffer).map(|count| buffer[..count].to_vec());
    assert!(told.is_err(), "{told:?}");
}
