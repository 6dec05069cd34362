//! The whole server: the broker, and the web beside it.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::info;

use super::own_address::own_address;
use crate::accept::{ListenError, listen};
use crate::broker::{self, Broker, BrokerError, Counters};
use crate::config::ServerConfig;
use crate::shutdown::{self, Shutdown, Trigger};
use crate::web::{self, Sources, WebConfig};

/// The setting of the address of HTTP.
const HTTP: &str = "HUMIDOR_HTTP_LISTEN";

/// A broker with its web.
pub struct Server {
    /// The broker.
    pub broker: Broker,
    http: Option<Http>,
    shutdown: Shutdown,
}

struct Http {
    address: SocketAddr,
    serving: JoinHandle<()>,
    close: Trigger,
}

/// A server that has its ports, and not yet its log.
pub struct Listening {
    broker: broker::Listening,
    http: Option<(TcpListener, SocketAddr)>,
    web: WebConfig,
    shutdown: Shutdown,
}

impl Listening {
    /// The address of MQTT, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.broker.address()
    }

    /// Counters of the broker's commits, with the stage of its start.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.broker.counters()
    }

    /// Opens the log and serves. Meanwhile HTTP answers probes. `shutdown` ends the opening at once.
    ///
    /// # Errors
    /// As [`Broker::start`], and [`BrokerError::Stopped`].
    pub async fn open(self) -> Result<Server, BrokerError> {
        let (opened, opening) = shutdown::channel();
        let probes = match &self.http {
            None => None,
            Some((listener, address)) => {
                let refused = |source| ListenError { setting: HTTP, address: *address, source };
                let meanwhile = again(listener).map_err(refused)?;
                let router = web::starting(self.broker.counters());
                Some(tokio::spawn(web::serve(meanwhile, router, opening)))
            }
        };
        let broker = self.broker.open().await;
        opened.throw();
        if let Some(probes) = probes {
            let _ = probes.await;
        }
        let broker = broker?;
        let http = self.http.map(|(listener, address)| {
            let guests = self.web.guests.as_str();
            info!(guests, %address, "listening for HTTP, and for MQTT over WebSocket");
            let sources = Sources {
                database: broker.database().to_owned(),
                mqtt_host: own_address(),
                mqtt: broker.address(),
                counters: broker.counters(),
                live: broker.live(),
                local_client: broker.local_client(),
                access: broker.access().clone(),
                alarms: broker.alarms(),
                mqtt_handoff: broker.handoff(),
            };
            let (close, closing) = shutdown::channel();
            let router = web::router(&self.web, sources, closing.clone());
            let serving = tokio::spawn(web::serve(listener, router, closing));
            Http { address, serving, close }
        });
        Ok(Server { broker, http, shutdown: self.shutdown })
    }
}

/// The same listener once more.
fn again(listener: &TcpListener) -> std::io::Result<TcpListener> {
    TcpListener::from_std(listener.as_fd().try_clone_to_owned()?.into())
}

impl Server {
    /// Starts both. `shutdown` ends them.
    ///
    /// # Errors
    /// As [`Broker::start`], and when the address of HTTP cannot be listened on.
    pub async fn start(config: ServerConfig, shutdown: Shutdown) -> Result<Self, BrokerError> {
        Self::listen(config, shutdown).await?.open().await
    }

    /// Opens the ports and leaves the log alone.
    ///
    /// # Errors
    /// As [`Broker::listen`], and when the address of HTTP cannot be listened on.
    pub async fn listen(
        config: ServerConfig,
        shutdown: Shutdown,
    ) -> Result<Listening, BrokerError> {
        // The port first: a broker that cannot have it leaves the log alone.
        let http = match config.http_listen {
            Some(address) => Some(listen(HTTP, address)?),
            None => None,
        };
        let broker = Broker::listen(config.broker, shutdown.clone()).await?;
        Ok(Listening { broker, http, web: config.web, shutdown })
    }

    /// The address of HTTP, with the real port.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    /// Waits until both have ended: after `shutdown`, when the last commit is done.
    ///
    /// # Errors
    /// Why the broker ended before it was asked to.
    pub async fn ended(mut self) -> Result<(), BrokerError> {
        let ended = self.broker.ended();
        tokio::pin!(ended);
        let early = tokio::select! {
            outcome = &mut ended => Some(outcome),
            () = self.shutdown.requested() => None,
        };
        // The broker's end waits for the clients that the web has inside the process.
        if let Some(http) = self.http {
            http.close.throw();
            let _ = http.serving.await;
        }
        match early {
            Some(outcome) => outcome,
            None => ended.await,
        }
    }
}
