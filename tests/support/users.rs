//! Users of a broker, made by `humidor user`, and what CONNACK says to them.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet};

use super::{Client, humidor};

/// Runs `humidor user …` with `password` on its standard input.
pub fn user(data: &Path, arguments: &[&str], password: &str) -> Output {
    let mut command = humidor();
    command.arg("user").args(arguments).arg("--data").arg(data);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    match child.stdin.take().unwrap().write_all(password.as_bytes()) {
        // It may refuse its arguments before it reads.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.unwrap(),
    }
    child.wait_with_output().unwrap()
}

/// Adds a user whose password is its name and `-secret`.
pub fn add(data: &Path, name: &str, role: &str) {
    let output = user(data, &["add", name, "--role", role], &format!("{name}-secret\n"));
    assert!(output.status.success(), "{output:?}");
}

/// The CONNACK's code.
pub fn answer(address: SocketAddr, connect: &Connect) -> ConnectReturnCode {
    let mut client = Client::open(address);
    client.send(&Packet::Connect(connect.clone()));
    match client.receive() {
        Some(Packet::ConnAck(ack)) => ack.code,
        other => panic!("no CONNACK but {other:?}"),
    }
}
