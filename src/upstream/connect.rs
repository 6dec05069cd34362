//! Connects to the server that can be written, and drives the connection.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, SimpleQueryMessage};

use super::config::Target;
use super::fault::{Fault, Kind};
use super::tls::{Encrypted, Handshake, client_config};
use crate::tls::TlsError;

/// Longest time of a server's name, connection, login and first answer. A stopped server's kernel still takes connections.
const LOGIN_LIMIT: Duration = Duration::from_secs(4);
/// Longest wait for one answer. Past it, what was asked may be done or not.
pub(super) const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of one server's name that are tried.
const ADDRESSES_MAX: usize = 4;
/// The server ends sessions that a dead client has left, and waits for no lock of one for long. It is never to cancel a
/// commit that waits for a standby, which would then be reported as done, and its warning about that must come.
const OPTIONS: &str = "-c idle_in_transaction_session_timeout=30s -c lock_timeout=5s -c statement_timeout=0 \
    -c client_min_messages=warning -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3";

/// Reaches the upstream database. It remembers the server that could be written.
#[derive(Debug)]
pub struct Connector {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
    /// The server to try first.
    first: usize,
}

/// What the driver of a connection has heard beside the answers.
#[derive(Debug, Default)]
struct Heard {
    warned: AtomicBool,
    warning: Mutex<String>,
    /// Why the connection ended.
    end: Mutex<Option<Fault>>,
}

/// A connection to the server that can be written. It ends when this is dropped.
pub struct Session {
    /// Asks.
    pub client: Client,
    /// The server, with its port.
    pub server: String,
    heard: Arc<Heard>,
    driver: AbortHandle,
}

impl Drop for Session {
    // A future that is dropped would leave its query running on an open connection.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connector {
    /// Reads the authorities.
    ///
    /// # Errors
    /// When their file cannot be used.
    pub fn new(target: Target) -> Result<Self, TlsError> {
        let tls = if target.tls { Some(client_config(target.ca.as_deref())?) } else { None };
        Ok(Self { target, tls, first: 0 })
    }

    /// The database.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Connects to the first server that can be written, each within a time limit.
    ///
    /// # Errors
    /// What is wrong with each of the servers.
    pub async fn connect(&mut self) -> Result<Session, Fault> {
        let hosts = &self.target.address.hosts;
        let mut faults: Vec<Fault> = Vec::new();
        for n in 0..hosts.len() {
            let n = (self.first + n) % hosts.len();
            let (host, port) = &hosts[n];
            let server = format!("{host}:{port}");
            let fault = match timeout(LOGIN_LIMIT, self.log_in(host, *port)).await {
                Ok(Ok(session)) => {
                    self.first = n;
                    return Ok(session);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::slow("connect and log in", LOGIN_LIMIT),
            };
            faults.push(Fault { text: format!("{server}: {}", fault.text), ..fault });
        }
        // What an operator can mend is told before what may pass.
        let kind = faults.iter().map(|fault| fault.kind).find(|kind| *kind != Kind::Unavailable);
        let texts: Vec<String> = faults.into_iter().map(|fault| fault.text).collect();
        Err(Fault::new(kind.unwrap_or(Kind::Unavailable), texts.join("; ")))
    }

    async fn log_in(&self, host: &str, port: u16) -> Result<Session, Fault> {
        let stream = reach(host, port).await?;
        let mut config = Config::new();
        config
            .user(&self.target.address.user)
            .dbname(&self.target.address.database)
            .application_name("humidor")
            .options(OPTIONS)
            .ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if let Some(password) = &self.target.password {
            config.password(&password.0);
        }
        let handshake = Handshake { config: self.tls.clone(), host: host.to_owned() };
        let (client, connection) = config.connect_raw(stream, handshake).await?;
        let heard = Arc::<Heard>::default();
        let driver = tokio::spawn(drive(connection, Arc::clone(&heard))).abort_handle();
        let server = format!("{host}:{port}");
        let session = Session { client, server, heard, driver };
        // `off` and `local` would be told as done before a standby, or even the disk, has it.
        let settings = session
            .values(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
                    CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
                         THEN set_config('synchronous_commit', 'on', false) END",
            )
            .await?;
        if settings.first().and_then(|row| row.first()).is_none_or(|value| value != "f") {
            return Err(Fault::new(Kind::Unavailable, "cannot be written (a standby)"));
        }
        Ok(session)
    }
}

/// Connects to the first address of a server that answers.
async fn reach(host: &str, port: u16) -> Result<TcpStream, Fault> {
    let unreachable = |error: std::io::Error| Fault::new(Kind::Unavailable, error.to_string());
    let mut last = None;
    for address in lookup_host((host, port)).await.map_err(unreachable)?.take(ADDRESSES_MAX) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let keepalive = TcpKeepalive::new()
                    .with_time(Duration::from_secs(10))
                    .with_interval(Duration::from_secs(5))
                    .with_retries(3);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| Fault::new(Kind::Unavailable, "the name has no address"), unreachable))
}

/// Drives a connection to its end. A warning is noted before the answer that comes behind it is handed on.
async fn drive(mut connection: Connection<TcpStream, Encrypted>, heard: Arc<Heard>) {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) if notice.code().code().starts_with("01") => {
                let mut warning = heard.warning.lock().unwrap_or_else(PoisonError::into_inner);
                notice.message().clone_into(&mut warning);
                heard.warned.store(true, Ordering::Release);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                *heard.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
                return;
            }
            None => return,
        }
    }
}

impl Session {
    /// The rows of a query as text; null is left out.
    ///
    /// # Errors
    /// What the server says, or that it does not answer.
    pub async fn values(&self, query: &str) -> Result<Vec<Vec<String>>, Fault> {
        let answers = self.exchange("query", self.client.simple_query(query)).await?;
        let rows = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|n| row.get(n).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Waits for an answer, for a bounded time.
    ///
    /// # Errors
    /// What the server says, or that it does not answer.
    pub async fn exchange<T>(
        &self,
        what: &str,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        match timeout(EXCHANGE_LIMIT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.cause(error)),
            Err(_) => Err(Fault::slow(what, EXCHANGE_LIMIT)),
        }
    }

    /// Why an exchange failed: of a connection that has ended the driver knows it.
    pub fn cause(&self, error: tokio_postgres::Error) -> Fault {
        let end = if error.is_closed() {
            self.heard.end.lock().unwrap_or_else(PoisonError::into_inner).take()
        } else {
            None
        };
        end.unwrap_or_else(|| error.into())
    }

    /// Commits, once every answer before has been judged. A commit that waits for a standby and is cancelled is reported
    /// as done, with nothing but a warning; so any warning counts as not committed.
    ///
    /// # Errors
    /// When the commit is not sure: the connection is to be given up.
    pub async fn commit(&self) -> Result<(), Fault> {
        self.heard.warned.store(false, Ordering::Release);
        self.exchange("COMMIT", self.client.batch_execute("COMMIT")).await?;
        if self.heard.warned.load(Ordering::Acquire) {
            let warning = self.heard.warning.lock().unwrap_or_else(PoisonError::into_inner);
            return Err(Fault::new(
                Kind::Unavailable,
                format!("PostgreSQL warned at COMMIT, which counts as not committed: {warning}"),
            ));
        }
        Ok(())
    }

    /// Resolves when the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
