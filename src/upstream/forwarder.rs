//! The forwarder: one task, one connection at a time. Each session asks the upstream database where it is and goes on from
//! there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::warn;

use super::batch::{Statements, look, take_over};
use super::config::UpstreamConfig;
use super::connect::Connector;
use super::copy::Copying;
use super::cursor::{Plan, plan};
use super::fault::{Fault, Kind};
use super::forwarding::Forwarding;
use super::schema;
use super::transfer::{Never, Transfer, blocking, diverged, queue_at, with};
use crate::shutdown::Shutdown;
use crate::store::{ForwardProgress, ForwardReader};
use crate::timeline::Timeline;
use crate::tls::TlsError;

/// First and longest wait before the next session, where the fault may pass.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The same where an operator has to mend something.
const RETRY_FAULTY: Duration = Duration::from_secs(15);
/// Interval of log lines about a fault that lasts.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(10);
/// Name of a machine that does not tell its own.
const NAMELESS: &str = "humidor";

/// A forwarder whose certificates have been read.
#[derive(Debug)]
pub struct Upstream {
    connector: Connector,
    config: UpstreamConfig,
}

/// A forwarder with its log.
#[derive(Debug)]
pub struct Forwarder {
    connector: Connector,
    path: PathBuf,
    name: String,
    forwarding: Arc<Forwarding>,
    copying: Copying,
}

impl Upstream {
    /// Reads the authorities.
    ///
    /// # Errors
    /// When their file cannot be used.
    pub fn new(config: UpstreamConfig) -> Result<Self, TlsError> {
        Ok(Self { connector: Connector::new(config.target.clone())?, config })
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// Takes the log at `path`, whose queue has `progress`.
    #[must_use]
    pub fn of_log(
        self,
        path: &Path,
        progress: Arc<ForwardProgress>,
        timeline: Timeline,
    ) -> (Forwarder, Arc<Forwarding>) {
        let forwarding = Forwarding::new(progress, self.config.acknowledge, timeline);
        let forwarding = Arc::new(forwarding);
        let forwarder = Forwarder {
            connector: self.connector,
            path: path.to_owned(),
            name: host_name(),
            forwarding: Arc::clone(&forwarding),
            copying: Copying::default(),
        };
        (forwarder, forwarding)
    }
}

/// The machine's name, for people who read the table of logs.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { NAMELESS.to_owned() } else { name.to_owned() }
}

impl Forwarder {
    /// Forwards until `shutdown`. A batch that is under way is given up: the next start asks how it ended.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        tokio::select! {
            () = self.forward() => {}
            () = shutdown.requested() => {}
        }
    }

    async fn forward(&mut self) {
        let mut wait = RETRY.0;
        let mut told: Option<Instant> = None;
        loop {
            let before = self.forwarding.committed().borrow().to_owned();
            let fault = match self.session().await {
                Ok(never) => match never {},
                Err(fault) => fault,
            };
            if matches!(fault.kind, Kind::Requested | Kind::Copy) {
                continue;
            }
            if *self.forwarding.committed().borrow() > before {
                wait = RETRY.0;
            }
            let passes = fault.kind == Kind::Unavailable;
            let is_new = self.forwarding.failed(fault.clone());
            // While servers come and go the text changes often.
            let tells = is_new && (!passes || wait == RETRY.0);
            if tells || told.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                told = Some(Instant::now());
                warn!(
                    database = %self.connector.target().address, cause = %fault,
                    "not forwarding: readings wait in the log"
                );
            }
            // Several brokers do not come at once to a server that has just begun to answer.
            let jitter = 0.75 + fastrand::f64() / 2.0;
            sleep(if passes { wait } else { RETRY_FAULTY }.mul_f64(jitter)).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    /// One session, until it fails.
    async fn session(&mut self) -> Result<Never, Fault> {
        let path = self.path.clone();
        let reader = blocking(move || ForwardReader::open(&path)).await?;
        let (mut reader, identity) = with(reader, ForwardReader::identity).await?;
        let identity = identity
            .ok_or_else(|| Fault::new(Kind::Log, "the log has no name to be forwarded under"))?;
        // While there is no server, what comes waits: for how long is told. In the first session nobody knows what is there.
        let upto = *self.forwarding.committed().borrow();
        if upto > 0 {
            let (back, since) = with(reader, move |reader| reader.queued_at(upto)).await?;
            reader = back;
            self.forwarding.waits_since(since);
        }
        let session = self.connector.connect().await?;
        schema::check(&session).await?;
        let statements = Statements::prepare(&session).await?;
        // A copy takes nothing over from the log that goes on, not for a moment.
        if let Some(cursor) = look(&session, &identity.log).await? {
            let (back, (queue, _)) =
                with(reader, move |reader| queue_at(reader, cursor.upto)).await?;
            reader = back;
            if plan(&cursor, queue, &identity) == Plan::Diverged {
                return Err(diverged(&identity.log, &cursor, queue));
            }
        }
        let (lease, cursor) = take_over(&session, &identity.log, &self.name).await?;
        let transfer =
            Transfer { forwarding: &self.forwarding, session, statements, lease, identity };
        transfer.run(reader, cursor, &mut self.copying).await
    }
}
