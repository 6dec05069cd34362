//! `humidor upstream`: prepares and watches the PostgreSQL database that gets a copy of the log.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::anyhow;

use super::failure::Failure;
use super::{block_on, layers};
use crate::cli::UpstreamTask;
use crate::config;
use crate::exit::Code;
use crate::store::{ForwardReader, LOG_FILE, forward_again};
use crate::upstream;

/// A log that is behind for longer fails the status, in seconds.
const BEHIND_S: i64 = 60;

/// Runs a task.
pub fn run(task: &UpstreamTask) -> Result<(), Failure> {
    match task {
        UpstreamTask::Migrate(options) => {
            let target = config::target(layers(&options.settings.flags))?;
            block_on(migrate(target, options.grant.as_deref()))
        }
        UpstreamTask::Status(settings) => {
            let target = config::data_and_target(layers(&settings.flags))?;
            block_on(status(target))
        }
        UpstreamTask::Forward(options) => {
            let path = config::data(layers(&options.settings.flags))?.join(LOG_FILE);
            if !path.is_file() {
                let error = anyhow!("there is no log at {}", path.display());
                return Err(Failure::new(Code::NoDevice, error));
            }
            if !forward_again(&path, options.again, options.rename)? {
                let error = anyhow!(
                    "{} was never forwarded: a broker with HUMIDOR_UPSTREAM sends all of it at its first start",
                    path.display()
                );
                return Err(Failure::new(Code::Data, error));
            }
            writeln!(io::stdout(), "requested; `humidor upstream status` shows how far it is")?;
            Ok(())
        }
    }
}

async fn migrate(target: upstream::Target, grant: Option<&str>) -> Result<(), Failure> {
    let database = target.address.database.clone();
    let (before, after, server) = upstream::migrate(target, grant).await?;
    let mut out = io::stdout().lock();
    if before == after {
        writeln!(out, "the tables in {server}/{database} are of version {after} already")?;
    } else {
        writeln!(out, "the tables in {server}/{database} are of version {after} now")?;
    }
    if let Some(grant) = grant {
        writeln!(out, "`{grant}` may forward")?;
    }
    Ok(())
}

async fn status((data, target): (PathBuf, upstream::Target)) -> Result<(), Failure> {
    let (logs, server) = upstream::logs(target).await?;
    // The log of this machine, if there is one.
    let path = data.join(LOG_FILE);
    let own = if path.is_file() {
        let reader = ForwardReader::open(&path)?;
        reader.identity()?.map(|identity| (reader, identity))
    } else {
        None
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{server}: {} logs", logs.len())?;
    let mut behind_s = 0;
    for found in &logs {
        write!(
            out,
            "{} {}: {} forwarded, the last one {} s ago",
            found.machine, found.log, found.upto, found.moved_s
        )?;
        if found.refused > 0 {
            write!(out, ", {} refused", found.refused)?;
        }
        if found.filling {
            write!(out, ", stored readings are being sent")?;
        }
        if let Some((reader, _)) = own.as_ref().filter(|(_, own)| own.log == found.log) {
            let (_, last) = reader.bounds()?;
            let lag = last.saturating_sub(found.upto).max(0);
            if lag > 0 {
                behind_s = found.moved_s;
                write!(out, ", this broker's log, {lag} behind")?;
            } else {
                write!(out, ", this broker's log, up to date")?;
            }
        }
        writeln!(out)?;
    }
    match own {
        Some((_, own)) if logs.iter().all(|found| found.log != own.log) => {
            let error = anyhow!("PostgreSQL has nothing of this broker's log ({}) yet", own.log);
            Err(Failure::new(Code::Unavailable, error))
        }
        _ if behind_s > BEHIND_S => {
            let error = anyhow!(
                "PostgreSQL has taken nothing of this broker's log for {behind_s} s; `humidor health` and the broker's log say why"
            );
            Err(Failure::new(Code::Degraded, error))
        }
        _ => Ok(()),
    }
}
