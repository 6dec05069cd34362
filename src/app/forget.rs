//! `humidor db forget`: deletes all data of a retired board, by the broker that runs on the log or, when none does, itself.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;

use super::failure::Failure;
use super::log;
use crate::cli::Forget;
use crate::clock;
use crate::config::{self, Layers};
use crate::exit::Code;
use crate::mqtt::{Filter, Message};
use crate::reading::Id;
use crate::store::{Change, ForgetRequest, LOG_FILE, OpenError, Store};
use crate::wire::{CLIENT_ID_PREFIX, Discovery, NodeTopics, ONLINE, node_device_id};

/// Interval of looks whether the broker has done it.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Interval of lines while it takes long.
const SAY_INTERVAL: Duration = Duration::from_secs(10);
/// Longest answer to the question, in bytes.
const ANSWER_MAX_BYTES: u64 = 256;

/// Forgets the node.
pub fn run(options: &Forget, layers: Layers) -> Result<(), Failure> {
    let (folder, discovery) = config::data_and_discovery(layers)?;
    let path = folder.join(LOG_FILE);
    let node = &options.node;
    let log = log::open(&path)?;
    let status = log.retained(&NodeTopics::new(node.clone()).status())?;
    let filters = filters(node, discovery.as_ref());
    if !log.has_node(node)? && !log.is_any_retained(&filters)? {
        let error = anyhow!("{} has nothing of a node `{node}`", path.display());
        return Err(Failure::new(Code::NoDevice, error));
    }
    drop(log);
    if !options.yes {
        confirm(node)?;
    }
    let mut out = io::stdout().lock();
    match Store::open(&path) {
        Ok(store) => {
            forget(store, node, &filters)?;
            writeln!(out, "deleted all data of `{node}`; no broker is running here")?;
        }
        Err(OpenError::InUse { .. }) => {
            if status.as_deref() == Some(ONLINE.as_bytes()) {
                let error = anyhow!("`{node}` is online; stop it first, or it comes back at once");
                return Err(Failure::new(Code::Unavailable, error));
            }
            request(&path, node)?;
            writeln!(out, "deleted all data of `{node}`")?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn confirm(node: &Id) -> Result<(), Failure> {
    let refused = |text: &str| Err(Failure::new(Code::Usage, anyhow!("{text}")));
    if !io::stdin().is_terminal() {
        return refused("this deletes data for good; add --yes");
    }
    let mut err = io::stderr().lock();
    write!(
        err,
        "delete all readings, retained messages and sessions of `{node}` for good? [y/N] "
    )?;
    err.flush()?;
    let mut answer = String::new();
    io::Read::take(io::stdin().lock(), ANSWER_MAX_BYTES).read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => refused("nothing is deleted"),
    }
}

/// Has the broker that runs on the log do it, and waits.
fn request(path: &Path, node: &Id) -> Result<(), Failure> {
    let request = ForgetRequest::make(path, node.clone())?;
    let mut said = Instant::now();
    while !request.is_done()? {
        if said.elapsed() >= SAY_INTERVAL {
            said = Instant::now();
            let mut err = io::stderr().lock();
            writeln!(err, "the broker is still deleting; it goes on when this command is stopped")?;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// The topics of a node's retained messages, those of its device for Home Assistant among them.
fn filters(node: &Id, discovery: Option<&Discovery>) -> Vec<Filter> {
    let device = discovery.map(|discovery| discovery.device(&node_device_id(node)));
    let filters = [Some(NodeTopics::new(node.clone()).everything()), device];
    filters.into_iter().flatten().filter_map(|filter| filter.parse().ok()).collect()
}

fn forget(mut store: Store, node: &Id, filters: &[Filter]) -> Result<(), Failure> {
    let (retained, sessions) = store.mqtt_state()?;
    let client_id = format!("{CLIENT_ID_PREFIX}{node}");
    let retained = retained
        .into_iter()
        .filter(|message| filters.iter().any(|filter| filter.matches(&message.topic)))
        .map(|message| {
            Change::Retain(Arc::new(Message::own(message.topic.to_string(), Bytes::new())))
        });
    let sessions = sessions
        .into_iter()
        .filter(|stored| {
            let session = &*stored.client_id;
            session.split('\u{1}').nth(1).unwrap_or(session) == client_id
        })
        .map(|stored| Change::End { session: stored.session });
    let changes: Vec<Change> = [Change::Forget { node: node.clone() }]
        .into_iter()
        .chain(retained)
        .chain(sessions)
        .chain([Change::Cleared { node: node.clone() }])
        .collect();
    store.commit(&[], &changes.iter().collect::<Vec<_>>())?;
    while store.is_forgetting(node)? {
        store.maintain(clock::unix_ms())?;
    }
    // What was put off is on the disk before the command says that it is done.
    Ok(store.commit(&[], &[&Change::Cleared { node: node.clone() }]).map(drop)?)
}
