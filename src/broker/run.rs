//! The broker from start to end: the operator's log reads like this file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{error, info};

use crate::accept::listen;
use crate::broker::access::Access;
use crate::broker::alarm::start::watch;
use crate::broker::alarm::state::Alarms;
use crate::broker::commit::group_commit::{Recorder, Writer};
use crate::broker::commit::live::Live;
use crate::broker::commit::logged_topics::LoggedTopics;
use crate::broker::commit::onward::{self, Onward};
use crate::broker::commit::series_quota::SeriesQuota;
use crate::broker::config::BrokerConfig;
use crate::broker::connection::{will, withdrawal};
use crate::broker::context::Services;
use crate::broker::counters::Counters;
use crate::broker::delivery::fan_out::FanOut;
use crate::broker::delivery::retained_messages::Retained;
use crate::broker::error::BrokerError;
use crate::broker::forget;
use crate::broker::listener::{self, Handoff, Handoffs};
use crate::broker::net::admission::Admission;
use crate::broker::net::buffers::BUFFER_BYTES;
use crate::broker::net::shares::Pool;
use crate::broker::net::tls::Tls;
use crate::broker::net::turns::Turns;
use crate::broker::open_log::{check_log, open_log};
use crate::broker::session::registry::Registry;
use crate::broker::status::local_client::LocalClient;
use crate::broker::status::sys;
use crate::mqtt::Message;
use crate::shutdown::{self, Shutdown};
use crate::store::{Check, LOG_FILE, OpenError, Queued, StoredWill};
use crate::timeline::Timeline;
use crate::upstream::{Forwarder, Upstream};
use crate::wire::{BROKER_STATUS, Discovery, OFFLINE, ONLINE};

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

/// A broker that has its ports, and not yet its log. Clients that connect wait.
pub struct Listening {
    config: BrokerConfig,
    listeners: Vec<(TcpListener, Option<Tls>)>,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    access: Access,
    upstream: Option<Upstream>,
    counters: Arc<Counters>,
    shutdown: Shutdown,
}

impl Listening {
    /// The address it listens on, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counters of its commits, with the stage of its start.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Opens the log and serves. `shutdown` ends the opening at once.
    ///
    /// # Errors
    /// As [`Broker::start`], and [`BrokerError::Stopped`].
    pub async fn open(self) -> Result<Broker, BrokerError> {
        let Self { config, listeners, address, tls_address, access, upstream, counters, shutdown } =
            self;
        let path = config.data.join(LOG_FILE);
        let mut stopping = shutdown.clone();
        let (mut store, check) = tokio::select! {
            opened = open_log(&path, &counters) => opened?,
            () = stopping.requested() => return Err(BrokerError::Stopped),
        };
        store.retain(config.retention);
        let damaged = |source| match BrokerError::of_store(&path, source) {
            BrokerError::Disk { path, source } => OpenError::Sqlite { path, source }.into(),
            damaged => damaged,
        };
        let mut left = store.alarms().map_err(damaged)?;
        let (retained, sessions) = store.mqtt_state().map_err(damaged)?;
        let wills = store.wills().map_err(damaged)?;
        let series = SeriesQuota::new(&store.series().map_err(damaged)?, config.limits.series);
        let queued = Queued::open(&path).map_err(damaged)?;
        info!(
            database = %path.display(), retained = retained.len(), sessions = sessions.len(),
            wills = wills.len(), "log open"
        );
        if check.is_some() {
            info!(database = %path.display(), "checking the log while it is in use");
        }
        let retained = Retained::new(retained, &config.retention);
        let timeline = Timeline::resume(store.timeline());
        let now = timeline.clock().timeline;
        if !store.timeline().is_some_and(|saved| now.continues(saved)) {
            // Another start of the kernel: nobody will know the times that were not sure.
            for row in &mut left {
                row.correction_ms = None;
            }
        }
        let registry = Registry::new(sessions, timeline.now_ms(), &config.retention);

        let target = upstream.as_ref().map(|upstream| upstream.config().target.clone());
        let forwarder = upstream
            .map(|upstream| onward::open(upstream, &mut store, &timeline, &counters))
            .transpose()
            .map_err(damaged)?;
        let (ended, lost) = oneshot::channel();
        let fan_out = FanOut {
            subscriptions: registry.subscriptions.clone(),
            retained,
            traffic: Arc::default(),
            timeline,
        };
        let (recorder, writer) = Recorder::start(
            store,
            config.commit_window,
            fan_out.clone(),
            counters,
            series.clone(),
            forwarder.as_ref().map(|(_, onward)| onward.clone()),
            ended,
        )
        .map_err(BrokerError::Thread)?;
        info!(%address, "listening for MQTT 3.1.1 and 5.0");
        if let Some(address) = tls_address {
            info!(%address, "listening for MQTT over TLS");
        }

        let services = Services {
            recorder: recorder.clone(),
            fan_out,
            registry,
            contested: Arc::default(),
            queued: Arc::new(Mutex::new(queued)),
            admission: Admission::new(config.limits),
            buffers: Pool::new(BUFFER_BYTES),
            turns: Turns::default(),
            access: access.clone(),
            logged: Arc::new(LoggedTopics::new(config.logged, config.discovery.clone())),
            series,
            forgetting: Arc::default(),
        };
        publish_status(&services, ONLINE);
        // Alarms end after the connections, so that they see the last committed readings.
        let (end_alarms, end) = shutdown::channel();
        let discovery = config.discovery.as_ref();
        let (alarms, watching) = watch(config.alarms, &left, &services, discovery, target, end);
        let (handoff, handoffs) = listener::handoff();
        let ports = Ports { listeners, handoffs, wills, forwarder };
        let log = OpenLog { path: path.clone(), check, writer, lost };
        let forgetting = config.discovery.clone();
        let serving = run(ports, services.clone(), forgetting, log, shutdown, async move {
            end_alarms.throw();
            if let Some(watching) = watching {
                let _ = watching.await;
            }
        });
        let running = tokio::spawn(serving);
        Ok(Broker { address, tls_address, path, services, alarms, handoff, running })
    }
}

impl Broker {
    /// Opens the port and the log and serves until `shutdown`.
    ///
    /// # Errors
    /// [`BrokerError`] when it cannot start. [`Broker::ended`] returns later errors.
    pub async fn start(config: BrokerConfig, shutdown: Shutdown) -> Result<Self, BrokerError> {
        Self::listen(config, shutdown).await?.open().await
    }

    /// Opens the port, reads the users, and leaves the log alone.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn listen(
        mut config: BrokerConfig,
        shutdown: Shutdown,
    ) -> Result<Listening, BrokerError> {
        // The ports first: a broker that cannot listen does not touch the log.
        let (listener, address) = listen("HUMIDOR_MQTT_LISTEN", config.mqtt_listen)?;
        let upstream = config.upstream.take().map(Upstream::new).transpose();
        let upstream = upstream.map_err(BrokerError::Upstream)?;
        let mut listeners = vec![(listener, None)];
        let tls_address = match config.tls.take() {
            None => None,
            Some(tls) => {
                let (listener, address) = listen("HUMIDOR_MQTTS_LISTEN", tls.listen)?;
                listeners.push((listener, Some(Tls::start(tls, shutdown.clone()).await?)));
                Some(address)
            }
        };
        listener::allow_files(&config.limits);

        let reached: Vec<_> = [Some(address), tls_address].into_iter().flatten().collect();
        let access = config.access.clone();
        let access = spawn_blocking(move || Access::open(access, &reached)).await;
        let access =
            access.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        access.watch(shutdown.clone())?;
        let counters = Arc::default();
        Ok(Listening {
            config,
            listeners,
            address,
            tls_address,
            access,
            upstream,
            counters,
            shutdown,
        })
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
    /// What goes on to the upstream database.
    forwarder: Option<(Forwarder, Onward)>,
}

/// The log at work.
struct OpenLog {
    path: PathBuf,
    check: Option<Check>,
    writer: Writer,
    /// Resolves when the writer has given up.
    lost: oneshot::Receiver<()>,
}

async fn run(
    ports: Ports,
    services: Services,
    discovery: Option<Discovery>,
    log: OpenLog,
    shutdown: Shutdown,
    end_alarms: impl Future<Output = ()>,
) -> Result<(), BrokerError> {
    // The listeners have their own switch: they also close when the store is lost.
    let (close, closing) = shutdown::channel();
    let mut requested = shutdown;
    let mut serving = JoinSet::new();
    // Before the first connection.
    let withdrawn = withdrawal::judge_left(&services);
    will::publish_left(ports.wills, &services, &closing);
    for (listener, tls) in ports.listeners {
        serving.spawn(listener::serve(listener, tls, services.clone(), closing.clone()));
    }
    serving.spawn(listener::receive(ports.handoffs, services.clone(), closing.clone()));
    serving.spawn(withdrawal::run(services.clone(), withdrawn, closing.clone()));
    serving.spawn(forget::run(services.clone(), discovery, closing.clone()));
    let onward = ports.forwarder.map(|(forwarder, onward)| {
        serving.spawn(forwarder.run(closing.clone()));
        let counters = Arc::clone(services.recorder.counters());
        serving.spawn(onward.clone().run(counters, closing.clone()));
        onward
    });
    serving.spawn(sys::run(services.clone(), closing));

    let OpenLog { path, check, writer, mut lost } = log;
    let counters = Arc::clone(services.recorder.counters());
    let unsound = {
        let checking = check_log(check, &path, &counters);
        tokio::pin!(checking);
        let mut checked = false;
        loop {
            tokio::select! {
                () = requested.requested() => break None,
                // `Writer::join` returns the reason.
                _ = &mut lost => break None,
                verdict = &mut checking, if !checked => match verdict {
                    Ok(()) => checked = true,
                    Err(error) => break Some(error),
                },
            }
        }
    };
    if let Some(error) = &unsound {
        error!(%error, "the check of the log failed; stopping");
        writer.halt();
    }
    publish_status(&services, OFFLINE);
    if let Some(onward) = onward {
        onward.close();
    }
    close.throw();
    serving.join_all().await;
    let access = services.access.clone();
    let saved = spawn_blocking(move || access.save_known_clients()).await;
    saved.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    // The writer thread ends with the last handle to it.
    drop(services);
    info!("connections closed");
    end_alarms.await;

    let written = spawn_blocking(move || writer.join()).await;
    match written {
        Ok(Ok(())) => info!("last commit done"),
        Ok(Err(cause)) => return Err(BrokerError::of_store(&path, cause)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
    unsound.map_or(Ok(()), Err)
}

/// Publishes the broker's own status, retained in memory only: the broker publishes it again at each start.
fn publish_status(services: &Services, status: &'static str) {
    services.fan_out.publish_own(Message::own(BROKER_STATUS, status));
}
