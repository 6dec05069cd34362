//! The forwarder: one task, one connection at a time. Each session asks the upstream database where it is and goes on from
//! there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::batch::{Lease, Statements, look, send, take_over};
use super::config::UpstreamConfig;
use super::connect::{Connector, Session};
use super::cursor::{Cursor, Fill, Plan, Queue, plan};
use super::fault::{Fault, Kind};
use super::forwarding::Forwarding;
use super::schema;
use crate::shutdown::Shutdown;
use crate::store::{
    ForwardPage, ForwardProgress, ForwardReader, LogIdentity, Operation, StoredPlace,
};
use crate::timeline::Timeline;
use crate::tls::TlsError;

/// Operations of one transaction.
const BATCH_OPERATIONS: usize = 1_000;
/// How often an idle session looks for requests, and for a connection that has ended.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
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
            if fault.kind == Kind::Requested {
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
        let work = Work { forwarding: &self.forwarding, session, statements, lease, identity };
        work.run(reader, cursor).await
    }
}

/// What a session has.
struct Work<'a> {
    forwarding: &'a Forwarding,
    session: Session,
    statements: Statements,
    lease: Lease,
    identity: LogIdentity,
}

/// A session ends with a fault only.
enum Never {}

impl Work<'_> {
    async fn run(&self, mut reader: ForwardReader, mut cursor: Cursor) -> Result<Never, Fault> {
        loop {
            let upto = cursor.upto;
            let (back, (queue, since)) = with(reader, move |reader| queue_at(reader, upto)).await?;
            reader = back;
            match plan(&cursor, queue, &self.identity) {
                Plan::Continue => {}
                Plan::Diverged => return Err(diverged(&self.lease.log, &cursor, queue)),
                Plan::Fill { place, fill } => {
                    self.forwarding.connected(&self.session.server);
                    info!(
                        server = self.session.server,
                        from = cursor.upto,
                        queue_begins = queue.before,
                        "sending stored readings to PostgreSQL, which lacks them or was asked to take them again"
                    );
                    self.forwarding.fills(true);
                    (reader, cursor) = self.fill(reader, cursor, place, fill).await?;
                    self.forwarding.fills(false);
                    info!("stored readings are sent");
                    continue;
                }
            }
            self.forwarding.waits_since(since);
            self.forwarding.connected(&self.session.server);
            self.forwarding.forwarded(cursor.upto);
            info!(
                server = self.session.server,
                log = self.lease.log,
                forwarded = cursor.upto,
                waiting = queue.last - cursor.upto,
                "forwarding to PostgreSQL"
            );
            (reader, cursor) = self.follow(reader, cursor).await?;
        }
    }

    /// Sends stored readings from `place` on. Returns the cursor behind them.
    async fn fill(
        &self,
        mut reader: ForwardReader,
        mut cursor: Cursor,
        mut place: StoredPlace,
        mut fill: Fill,
    ) -> Result<(ForwardReader, Cursor), Fault> {
        loop {
            let from_ms = fill.from_ms;
            let (back, page) =
                with(reader, move |reader| reader.stored(place, from_ms, BATCH_OPERATIONS)).await?;
            reader = back;
            let done = page.next.is_none();
            let mut next = cursor;
            if let Some(behind) = page.next {
                place = behind;
                if let StoredPlace::Placed(run, seq) = behind {
                    fill.sent = (run, seq);
                    next.fill = Some(fill);
                }
            } else {
                let mark = if fill.to > cursor.upto { 0 } else { cursor.mark };
                let upto = fill.to.max(cursor.upto);
                next = Cursor { upto, mark, again: fill.again, fill: None };
            }
            if !page.operations.is_empty() || done {
                let operations: Vec<(i64, Operation)> =
                    page.operations.into_iter().map(|operation| (0, operation)).collect();
                self.send(&operations, &cursor, &next).await?;
                cursor = next;
            }
            if done {
                return Ok((reader, cursor));
            }
        }
    }

    /// Sends the queue, and what comes to it. Returns when something else is to be done first.
    async fn follow(
        &self,
        mut reader: ForwardReader,
        mut cursor: Cursor,
    ) -> Result<(ForwardReader, Cursor), Fault> {
        let mut page: Option<ForwardPage> = None;
        loop {
            let Some(sending) = page.take() else {
                let upto = cursor.upto;
                if self.forwarding.queued() <= upto {
                    self.forwarding.waits_since(None);
                    let _ = timeout(LOOK_INTERVAL, self.forwarding.woken()).await;
                    if self.session.is_closed() {
                        return Err(Fault::new(Kind::Unavailable, "the connection has ended"));
                    }
                }
                let (back, (identity, found)) = with(reader, move |reader| {
                    Ok((reader.identity()?, reader.page(upto, BATCH_OPERATIONS)?))
                })
                .await?;
                reader = back;
                if identity.as_ref() != Some(&self.identity) {
                    return Err(Fault::new(Kind::Requested, "stored readings are requested"));
                }
                page = found;
                continue;
            };
            // Its rows before have left a full queue.
            if sending.after != cursor.upto {
                return Ok((reader, cursor));
            }
            self.forwarding.waits_since(Some(sending.at));
            let next = Cursor { upto: sending.position, mark: sending.mark, ..cursor };
            // The next page is read meanwhile.
            let (sent, read) = tokio::join!(
                self.send(&sending.operations, &cursor, &next),
                with(reader, move |reader| reader.page(next.upto, BATCH_OPERATIONS)),
            );
            sent?;
            cursor = next;
            self.forwarding.forwarded(cursor.upto);
            (reader, page) = read?;
        }
    }

    async fn send(
        &self,
        operations: &[(i64, Operation)],
        from: &Cursor,
        to: &Cursor,
    ) -> Result<(), Fault> {
        let refused =
            send(&self.session, &self.statements, &self.lease, operations, (from, to)).await?;
        self.forwarding.refused(refused);
        Ok(())
    }
}

/// The queue, and when the operation behind `upto` was queued.
fn queue_at(reader: &ForwardReader, upto: i64) -> rusqlite::Result<(Queue, Option<i64>)> {
    let (before, last) = reader.bounds()?;
    let mark_at_cursor = reader.mark(upto)?;
    Ok((Queue { before, last, mark_at_cursor }, reader.queued_at(upto)?))
}

fn diverged(log: &str, cursor: &Cursor, queue: Queue) -> Fault {
    Fault::new(
        Kind::Diverged,
        format!(
            "PostgreSQL has entries of this log ({log}) up to {} that are not in it (its own end with {}): it is an older copy, or another humidor forwards under its name. If no other one does: `humidor upstream forward --again all --rename`",
            cursor.upto, queue.last
        ),
    )
}

/// Reads the log off the runtime's workers. The reader comes back with what it has read.
async fn with<T: Send + 'static>(
    reader: ForwardReader,
    read: impl FnOnce(&ForwardReader) -> rusqlite::Result<T> + Send + 'static,
) -> Result<(ForwardReader, T), Fault> {
    blocking(move || read(&reader).map(|found| (reader, found))).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    match spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Fault::new(Kind::Log, error.to_string())),
    }
}
