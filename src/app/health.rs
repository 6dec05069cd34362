//! `humidor health`: checks the roles that this configuration would run.

use std::io::{self, Write};

use super::failure::Failure;
use crate::config::{self, Layers};
use crate::exit::Code;
use crate::health::{self, Answer, State};

/// Checks each role; exit 69 when none answers or one is not healthy, else 75 when one is degraded. With `alive` a
/// degraded role is no failure: restarting it would not help.
pub fn run(alive: bool, layers: Layers) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let answers: Vec<Answer> =
        names(&config::health(layers)).iter().filter_map(|name| ask(name)).collect();
    if answers.is_empty() {
        return Err(Failure::new(
            Code::Unavailable,
            anyhow::anyhow!(
                "no broker and no node answers on this machine; check that one runs, with the same HUMIDOR_NODE and HUMIDOR_MQTT_LISTEN"
            ),
        ));
    }
    for answer in &answers {
        writeln!(out, "{}: {}: {}", answer.role, answer.state.as_str(), answer.detail)?;
    }
    let worst = answers.iter().map(|answer| answer.state).max().unwrap_or(State::Unhealthy);
    let code = match worst {
        State::Healthy | State::Starting => return Ok(()),
        State::Degraded if alive => return Ok(()),
        State::Degraded => Code::Degraded,
        State::Unhealthy => Code::Unavailable,
    };
    Err(Failure::new(code, anyhow::anyhow!("{}", worst.as_str())))
}

/// `None` when no such role runs here. A role that runs and does not answer is not healthy.
fn ask(name: &str) -> Option<Answer> {
    match health::ask(name) {
        Ok(answer) => Some(answer),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => None,
        Err(error) => Some(Answer {
            role: name.to_owned(),
            state: State::Unhealthy,
            detail: format!("no answer: {error}"),
        }),
    }
}

fn names(roles: &config::Health) -> Vec<String> {
    let node = roles.node.as_ref().map(|node| health::name("node", node.as_str()));
    let broker = roles.mqtt_port.map(|port| health::name("broker", &port.to_string()));
    node.into_iter().chain(broker).collect()
}
