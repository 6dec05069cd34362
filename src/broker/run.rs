//! The broker from start to end: the operator's log reads like this file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{error, info};

use crate::broker::access::{Access, AccessConfig, AccessError};
use crate::broker::alarm::rule::AlarmConfig;
use crate::broker::alarm::watch::{self, Alarms};
use crate::broker::commit::writer::{Live, Recorder, Writer};
use crate::broker::connection::run::Services;
use crate::broker::counters::Counters;
use crate::broker::delivery::replay::Keeper;
use crate::broker::delivery::retained::Retained;
use crate::broker::delivery::router::{Router, RouterDied};
use crate::broker::listener::{self, Arrivals};
use crate::broker::net::admission::Lobby;
use crate::broker::net::limits::Limits;
use crate::broker::net::tls::{Tls, TlsConfig};
use crate::broker::session::registry::Sessions;
use crate::broker::status::local_client::Insider;
use crate::broker::status::sys;
use crate::broker::traffic::Traffic;
use crate::clock;
use crate::mqtt::{Filter, Message};
use crate::shutdown::{self, Shutdown};
use crate::store::{LOG_FILE, OpenError, Queued, Retention, Store};
use crate::tls::TlsError;
use crate::web::{self, Sources, WebConfig};
use crate::wire::{BROKER_STATUS, Discovery, OFFLINE, ONLINE};

/// What the broker role needs to know.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Folder of the log.
    pub data: PathBuf,
    /// Where MQTT clients connect. Port 0 lets the system choose.
    pub mqtt_listen: SocketAddr,
    /// Where HTTP clients connect, if anywhere. Port 0 lets the system choose.
    pub http_listen: Option<SocketAddr>,
    /// Who may look and switch there.
    pub web: WebConfig,
    /// Filters of foreign topics to log.
    pub logged: Vec<Filter>,
    /// How long a commit waits for company.
    pub commit_window: Duration,
    /// What the log may keep.
    pub retention: Retention,
    /// What is watched for.
    pub alarms: Vec<AlarmConfig>,
    /// Where Home Assistant looks; `None` tells it nothing.
    pub discovery: Option<Discovery>,
    /// Who may connect.
    pub access: AccessConfig,
    /// Where TLS is spoken, if anywhere.
    pub tls: Option<TlsConfig>,
    /// What one client may take from the others.
    pub limits: Limits,
}

/// Why the broker did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The certificate or its key is missing or wrong.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Who may connect cannot be told.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; is another broker running? Choose another address with {setting}"
    )]
    Listen {
        /// The variable that chooses another.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// rumqttd's router ended.
    #[error("{0}: stopping, so that a restart brings it back; readings wait on their boards")]
    Router(#[from] RouterDied),
    /// The log's file is damaged.
    #[error("the log is damaged: {0}; at the next start it is moved aside and a new one begun")]
    Damaged(rusqlite::Error),
}

/// A broker that is listening.
pub struct Broker {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    access: Access,
    http_address: Option<SocketAddr>,
    recorder: Recorder,
    alarms: Alarms,
    running: tokio::task::JoinHandle<Result<(), BrokerError>>,
}

impl Broker {
    /// Opens the log and the port and serves until `shutdown`.
    ///
    /// # Errors
    /// [`BrokerError`] when it cannot start; what happens later, [`Broker::ended`] tells.
    pub async fn start(config: BrokerConfig, shutdown: Shutdown) -> Result<Self, BrokerError> {
        // The ports first: a broker that cannot have them leaves the log alone.
        let (listener, address) = listen("HUMIDOR_MQTT_LISTEN", config.mqtt_listen).await?;
        let http = match config.http_listen {
            Some(address) => Some(listen("HUMIDOR_HTTP_LISTEN", address).await?),
            None => None,
        };

        let mut entrances = vec![(listener, None)];
        let tls_address = match config.tls {
            None => None,
            Some(tls) => {
                let (listener, address) = listen("HUMIDOR_MQTTS_LISTEN", tls.listen).await?;
                entrances.push((listener, Some(Tls::start(tls, shutdown.clone())?)));
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
        let queued = Queued::open(&path).map_err(sqlite)?;
        info!(
            database = %path.display(), retained = retained.len(), sessions = sessions.len(),
            "log open"
        );
        let retained = Retained::new(retained);
        let sessions = Sessions::new(sessions, clock::unix_ms());

        let (ended, lost) = oneshot::channel();
        let keeper = Keeper { routes: sessions.routes.clone(), retained: retained.clone() };
        let (recorder, writer) = Recorder::start(store, config.commit_window, keeper, ended)
            .map_err(BrokerError::Thread)?;
        let (router, died) = Router::start().await?;
        info!(%address, "listening for MQTT 3.1.1 and 5.0");
        if let Some(address) = tls_address {
            info!(%address, "listening for MQTT over TLS");
        }
        for filter in &config.logged {
            info!(filter = filter.as_str(), "logging foreign topics");
        }

        let services = Services {
            recorder: recorder.clone(),
            router: router.clone(),
            lobby: Lobby::new(config.limits),
            access: access.clone(),
            sessions,
            retained,
            queued: Arc::new(Mutex::new(queued)),
            traffic: Arc::new(Traffic::default()),
            logged: config.logged.into(),
        };
        say(&services, ONLINE).await?;
        // Alarms end with the connections: what these have committed they still see.
        let (end_alarms, alarms_end) = shutdown::channel();
        let discovery = config.discovery.as_ref();
        let (alarms, watching) =
            watch::start(config.alarms, left, &services, discovery, alarms_end).await?;
        let http_address = http.as_ref().map(|(_, address)| *address);
        let pages = http.map(|(listener, address)| {
            info!(guests = config.web.guests.as_str(), %address, "listening for HTTP, and for MQTT over WebSocket");
            let (side_door, arrivals) = listener::side_door();
            let sources = Sources {
                database: path,
                counters: Arc::clone(recorder.counters()),
                live: recorder.live(),
                insider: Insider::new(services.clone()),
                access: access.clone(),
                alarms: alarms.clone(),
                side_door,
            };
            Pages { listener, config: config.web, sources, arrivals }
        });
        let ports = Ports { entrances, pages };
        let serving = run(ports, services, writer, died, lost, shutdown, async move {
            end_alarms.throw();
            if let Some(watching) = watching {
                let _ = watching.await;
            }
        });
        let running = tokio::spawn(serving);
        Ok(Self { address, tls_address, access, http_address, recorder, alarms, running })
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

    /// Who may do what.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// The address of its pages, with the real port.
    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// What it recorded so far.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(self.recorder.counters())
    }

    /// How its alarms are.
    #[must_use]
    pub fn alarms(&self) -> Alarms {
        self.alarms.clone()
    }

    /// Committed records from now on.
    #[must_use]
    pub fn live(&self) -> broadcast::Receiver<Live> {
        self.recorder.live()
    }

    /// Waits until the broker has ended: after `shutdown`, when the last commit is done.
    ///
    /// # Errors
    /// Why it ended before it was asked to.
    pub async fn ended(self) -> Result<(), BrokerError> {
        // The writer thread ends when the last handle to it is gone, so ours must go first.
        drop(self.recorder);
        match self.running.await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

async fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let refused = |source| BrokerError::Listen { setting, address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// What is served over HTTP, and where.
struct Pages {
    listener: TcpListener,
    config: WebConfig,
    sources: Sources,
    arrivals: Arrivals,
}

/// Where the broker listens.
struct Ports {
    entrances: Vec<(TcpListener, Option<Tls>)>,
    pages: Option<Pages>,
}

async fn run(
    ports: Ports,
    services: Services,
    writer: Writer,
    died: impl Future<Output = RouterDied>,
    lost: oneshot::Receiver<()>,
    shutdown: Shutdown,
    end_alarms: impl Future<Output = ()>,
) -> Result<(), BrokerError> {
    let speaking = services.clone();
    // The door has its own switch: it also closes when the store or the router is lost.
    let (close, closing) = shutdown::channel();
    let mut requested = shutdown;
    let mut doors = JoinSet::new();
    for (listener, tls) in ports.entrances {
        doors.spawn(listener::serve(listener, tls, services.clone(), closing.clone()));
    }
    let pages = ports.pages.map(|Pages { listener, config, sources, arrivals }| {
        doors.spawn(listener::receive(arrivals, services.clone(), closing.clone()));
        (listener, config, sources)
    });
    let sys = tokio::spawn(sys::run(services, closing.clone()));
    let web = tokio::spawn(async move {
        if let Some((listener, config, sources)) = pages {
            web::serve(listener, web::router(&config, sources, closing.clone()), closing).await;
        }
    });

    let failure = tokio::select! {
        () = requested.requested() => None,
        died = died => Some(BrokerError::from(died)),
        _ = lost => None,
    };
    if let Some(failure) = &failure {
        error!(%failure);
    } else {
        let _ = say(&speaking, OFFLINE).await;
    }
    close.throw();
    let _ = tokio::join!(doors.join_all(), sys, web);
    // The writer thread ends with the last handle to it.
    drop(speaking);
    info!("connections closed");
    end_alarms.await;

    let written = spawn_blocking(move || writer.join()).await;
    match written {
        Ok(Ok(())) => info!("last commit done"),
        Ok(Err(cause)) => return Err(BrokerError::Damaged(cause)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
    failure.map_or(Ok(()), Err)
}

/// Says the broker's own status, retained in memory: it is said anew at each start.
async fn say(services: &Services, word: &'static str) -> Result<(), RouterDied> {
    let status = Message::own(BROKER_STATUS, word);
    services.retained.set(Arc::new(status.clone()));
    services.router.publish(&[status]).await
}
