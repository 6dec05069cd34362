//! The broker from start to end: the operator's log reads like this file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tracing::info;

use crate::accept::{ListenError, listen};
use crate::broker::access::{Access, AccessConfig, AccessError};
use crate::broker::alarm::rule::AlarmConfig;
use crate::broker::alarm::watch::{self, Alarms};
use crate::broker::commit::group_commit::{Live, Recorder, Writer};
use crate::broker::connection::{will, withdrawal};
use crate::broker::context::Services;
use crate::broker::counters::Counters;
use crate::broker::delivery::fan_out::FanOut;
use crate::broker::delivery::retained_messages::Retained;
use crate::broker::listener::{self, Handoff, Handoffs};
use crate::broker::net::admission::Admission;
use crate::broker::net::buffers::BUFFER_BYTES;
use crate::broker::net::limits::Limits;
use crate::broker::net::shares::Pool;
use crate::broker::net::tls::{Tls, TlsConfig};
use crate::broker::session::registry::Registry;
use crate::broker::status::local_client::LocalClient;
use crate::broker::status::sys;
use crate::clock;
use crate::mqtt::{Filter, Message};
use crate::shutdown::{self, Shutdown};
use crate::store::{LOG_FILE, OpenError, Queued, Retention, Store, StoredWill};
use crate::tls::TlsError;
use crate::wire::{BROKER_STATUS, Discovery, OFFLINE, ONLINE};

/// The settings of the broker's role.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Folder of the log.
    pub data: PathBuf,
    /// Address of the MQTT listener. Port 0 lets the system choose one.
    pub mqtt_listen: SocketAddr,
    /// Filters of foreign topics to log.
    pub logged: Vec<Filter>,
    /// Longest wait to batch readings into one disk write.
    pub commit_window: Duration,
    /// Retention of the log.
    pub retention: Retention,
    /// The alarms.
    pub alarms: Vec<AlarmConfig>,
    /// Discovery by Home Assistant; `None`: the broker publishes nothing for it.
    pub discovery: Option<Discovery>,
    /// Users and anonymous access.
    pub access: AccessConfig,
    /// The TLS listener, if there is one.
    pub tls: Option<TlsConfig>,
    /// Limits on clients.
    pub limits: Limits,
}

/// Why the broker did not start, or stopped without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The certificate or its key is missing or wrong.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The users, or the settings of access, are wrong.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The log's file is damaged.
    #[error("the log is damaged: {0}; at the next start it is moved aside and a new one begun")]
    Damaged(rusqlite::Error),
}

/// A broker that is listening.
pub struct Broker {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    path: PathBuf,
    services: Services,
    alarms: Alarms,
    handoff: Handoff,
    running: tokio::task::JoinHandle<Result<(), BrokerError>>,
}

impl Broker {
    /// Opens the log and the port and serves until `shutdown`.
    ///
    /// # Errors
    /// [`BrokerError`] when it cannot start. [`Broker::ended`] returns later errors.
    pub async fn start(config: BrokerConfig, shutdown: Shutdown) -> Result<Self, BrokerError> {
        // The ports first: a broker that cannot listen does not touch the log.
        let (listener, address) = listen("HUMIDOR_MQTT_LISTEN", config.mqtt_listen)?;
        let mut listeners = vec![(listener, None)];
        let tls_address = match config.tls {
            None => None,
            Some(tls) => {
                let (listener, address) = listen("HUMIDOR_MQTTS_LISTEN", tls.listen)?;
                listeners.push((listener, Some(Tls::start(tls, shutdown.clone()).await?)));
                Some(address)
            }
        };
        listener::allow_files(&config.limits);

        let reached: Vec<_> = [Some(address), tls_address].into_iter().flatten().collect();
        let access = config.access;
        let access = spawn_blocking(move || Access::open(access, &reached)).await;
        let access =
            access.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        access.watch(shutdown.clone())?;

        let path = config.data.join(LOG_FILE);
        let mut store = Store::open(&path)?;
        store.retain(config.retention);
        let left = store.alarms().map_err(BrokerError::Damaged)?;
        let sqlite = |source| OpenError::Sqlite { path: path.clone(), source };
        let (retained, sessions) = store.mqtt_state().map_err(sqlite)?;
        let wills = store.wills().map_err(sqlite)?;
        let queued = Queued::open(&path).map_err(sqlite)?;
        info!(
            database = %path.display(), retained = retained.len(), sessions = sessions.len(),
            wills = wills.len(), "log open"
        );
        let retained = Retained::new(retained);
        let registry = Registry::new(sessions, clock::unix_ms());

        let (ended, lost) = oneshot::channel();
        let fan_out = FanOut {
            subscriptions: registry.subscriptions.clone(),
            retained,
            traffic: Arc::default(),
        };
        let (recorder, writer) =
            Recorder::start(store, config.commit_window, fan_out.clone(), ended)
                .map_err(BrokerError::Thread)?;
        info!(%address, "listening for MQTT 3.1.1 and 5.0");
        if let Some(address) = tls_address {
            info!(%address, "listening for MQTT over TLS");
        }
        for filter in &config.logged {
            info!(filter = filter.as_str(), "logging foreign topics");
        }

        let services = Services {
            recorder: recorder.clone(),
            fan_out,
            registry,
            queued: Arc::new(Mutex::new(queued)),
            admission: Admission::new(config.limits),
            buffers: Pool::new(BUFFER_BYTES),
            access: access.clone(),
            logged: config.logged.into(),
        };
        publish_status(&services, ONLINE);
        // Alarms end after the connections, so that they see the last committed readings.
        let (end_alarms, alarms_end) = shutdown::channel();
        let discovery = config.discovery.as_ref();
        let (alarms, watching) =
            watch::start(config.alarms, &left, &services, discovery, alarms_end);
        let (handoff, handoffs) = listener::handoff();
        let ports = Ports { listeners, handoffs, wills };
        let serving = run(ports, services.clone(), writer, lost, shutdown, async move {
            end_alarms.throw();
            if let Some(watching) = watching {
                let _ = watching.await;
            }
        });
        let running = tokio::spawn(serving);
        Ok(Self { address, tls_address, path, services, alarms, handoff, running })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of its TLS port, with the real port.
    #[must_use]
    pub const fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Logins and permissions.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.services.access
    }

    /// The file of its log.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.path
    }

    /// A client inside the process. The broker does not end before it is dropped.
    #[must_use]
    pub fn local_client(&self) -> LocalClient {
        LocalClient::new(self.services.clone())
    }

    /// Hands over streams of MQTT clients that another listener has accepted.
    #[must_use]
    pub fn handoff(&self) -> Handoff {
        self.handoff.clone()
    }

    /// Counters of its commits.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(self.services.recorder.counters())
    }

    /// The states of its alarms.
    #[must_use]
    pub fn alarms(&self) -> Alarms {
        self.alarms.clone()
    }

    /// Committed records from now on.
    #[must_use]
    pub fn live(&self) -> broadcast::Receiver<Live> {
        self.services.recorder.live()
    }

    /// Waits until the broker has ended: after `shutdown`, when the last commit is done.
    ///
    /// # Errors
    /// [`BrokerError`] when it ended without `shutdown`.
    pub async fn ended(self) -> Result<(), BrokerError> {
        // The writer thread ends when the last handle to it is dropped, so ours is dropped first.
        drop(self.services);
        match self.running.await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// The sources of connections, and what the previous run's connections have left.
struct Ports {
    listeners: Vec<(TcpListener, Option<Tls>)>,
    handoffs: Handoffs,
    /// Wills of clients that were connected when the previous run died.
    wills: Vec<StoredWill>,
}

async fn run(
    ports: Ports,
    services: Services,
    writer: Writer,
    lost: oneshot::Receiver<()>,
    shutdown: Shutdown,
    end_alarms: impl Future<Output = ()>,
) -> Result<(), BrokerError> {
    // The listeners have their own switch: they also close when the store is lost.
    let (close, closing) = shutdown::channel();
    let mut requested = shutdown;
    let mut serving = JoinSet::new();
    // Before the first connection.
    withdrawal::judge_left(&services).await;
    will::publish_left(ports.wills, &services, &closing);
    for (listener, tls) in ports.listeners {
        serving.spawn(listener::serve(listener, tls, services.clone(), closing.clone()));
    }
    serving.spawn(listener::receive(ports.handoffs, services.clone(), closing.clone()));
    serving.spawn(withdrawal::run(services.clone(), closing.clone()));
    serving.spawn(sys::run(services.clone(), closing));

    tokio::select! {
        () = requested.requested() => {}
        // `Writer::join` returns the reason.
        _ = lost => {}
    }
    publish_status(&services, OFFLINE);
    close.throw();
    serving.join_all().await;
    // The writer thread ends with the last handle to it.
    drop(services);
    info!("connections closed");
    end_alarms.await;

    let written = spawn_blocking(move || writer.join()).await;
    match written {
        Ok(Ok(())) => info!("last commit done"),
        Ok(Err(cause)) => return Err(BrokerError::Damaged(cause)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
    Ok(())
}

/// Publishes the broker's own status, retained in memory only: the broker publishes it again at each start.
fn publish_status(services: &Services, status: &'static str) {
    services.fan_out.publish_own(Message::own(BROKER_STATUS, status));
}
