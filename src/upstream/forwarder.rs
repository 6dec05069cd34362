//! The forwarder: one task, one connection at a time. Each session asks the upstream database where it is and goes on from
//! there.
//!
//! Where no acknowledgement waits for it, it has a thread of its own that yields to the broker's: who publishes faster than
//! the processors can store and forward is acknowledged first, and the queue keeps what is forwarded later.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::nice;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::warn;

use super::batch::{Statements, look, take_over};
use super::config::UpstreamConfig;
use super::connect::Connector;
use super::copy::Copying;
use super::cursor::{Plan, plan};
use super::fault::{Fault, Kind};
use super::forwarding::Forwarding;
use super::pace::Pace;
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
/// Name of its thread.
const THREAD: &str = "forwarder";
/// How much nicer that thread is than the broker's. Beside threads that never rest it still gets a tenth of what one of
/// those gets.
const NICENESS: i32 = 10;
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
    pace: Pace,
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
            pace: Pace::new(&self.config),
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
    pub async fn run(self, shutdown: Shutdown) {
        if self.forwarding.is_awaited() {
            return self.until(shutdown).await;
        }
        let (give, given) = oneshot::channel::<(Self, Shutdown)>();
        let (ended, end) = oneshot::channel::<()>();
        let started = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
            let _ended = ended;
            if let Ok((forwarder, shutdown)) = given.blocking_recv() {
                forwarder.run_aside(shutdown);
            }
        });
        match started {
            Ok(thread) => {
                let _ = give.send((self, shutdown));
                let _ = end.await;
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            Err(cause) => {
                warn!(%cause, "no thread for forwarding: publishers share theirs with it");
                self.until(shutdown).await;
            }
        }
    }

    /// Forwards on this thread. Those that read the log for it are started by this one, and as nice.
    fn run_aside(self, shutdown: Shutdown) {
        // Of Linux's threads each has its own. Being nicer needs no privilege.
        if let Err(cause) = nice(NICENESS) {
            warn!(%cause, "forwarding has the priority of publishing");
        }
        match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                runtime.block_on(self.until(shutdown));
                // A look-up of a host's name that still waits must not delay the end.
                runtime.shutdown_background();
            }
            Err(cause) => warn!(%cause, "not forwarding until the next start"),
        }
    }

    async fn until(mut self, mut shutdown: Shutdown) {
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
        transfer.run(reader, cursor, &mut self.copying, &mut self.pace).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown;
    use crate::upstream::config::{Acknowledge, Target};

    /// Niceness of the threads of this process that have the forwarder's name.
    fn nicenesses() -> Vec<String> {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        threads
            .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).ok())
            .filter_map(|stat| {
                // 2: the name; 19: the niceness (proc_pid_stat(5)).
                let (head, rest) = stat.split_once(") ")?;
                let niceness = rest.split(' ').nth(16)?;
                head.ends_with(&format!("({THREAD}")).then(|| niceness.to_owned())
            })
            .collect()
    }

    fn forwarder(acknowledge: Acknowledge, folder: &Path) -> Forwarder {
        let target = Target {
            address: "postgres://humidor@127.0.0.1:1/humidor".parse().unwrap(),
            password: None,
            tls: false,
            ca: None,
        };
        let config = UpstreamConfig { target, acknowledge, backlog_bytes: 1 << 20 };
        let upstream = Upstream::new(config).unwrap();
        upstream.of_log(&folder.join("log"), Arc::default(), Timeline::resume(None)).0
    }

    async fn until_is(condition: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_mins(1);
        while !condition() {
            assert!(Instant::now() < end, "niceness {:?}", nicenesses());
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn it_yields_to_publishers_unless_they_wait_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let own: i32 =
            own.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().parse().unwrap();

        let (trigger, until) = shutdown::channel();
        let running = tokio::spawn(forwarder(Acknowledge::Stored, folder.path()).run(until));
        let nicer = (own + NICENESS).min(19).to_string();
        until_is(|| nicenesses() == [nicer.clone()]).await;
        trigger.throw();
        running.await.unwrap();
        assert_eq!(nicenesses(), [""; 0], "its thread has ended");

        let awaited = forwarder(Acknowledge::Upstream, folder.path());
        let forwarding = Arc::clone(&awaited.forwarding);
        let (trigger, until) = shutdown::channel();
        let running = tokio::spawn(awaited.run(until));
        until_is(|| forwarding.status().error.is_some()).await;
        assert_eq!(nicenesses(), [""; 0], "it runs where its publishers wait");
        trigger.throw();
        running.await.unwrap();
    }
}
