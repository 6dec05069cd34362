//! The whole server: the broker, and the web beside it.

use std::net::SocketAddr;

use tokio::task::JoinHandle;
use tracing::info;

use crate::accept::listen;
use crate::broker::{Broker, BrokerError};
use crate::config::ServerConfig;
use crate::shutdown::{self, Shutdown, Trigger};
use crate::web::{self, Sources};

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

impl Server {
    /// Starts both. `shutdown` ends them.
    ///
    /// # Errors
    /// As [`Broker::start`], and when the address of HTTP cannot be listened on.
    pub async fn start(config: ServerConfig, shutdown: Shutdown) -> Result<Self, BrokerError> {
        // The port first: a broker that cannot have it leaves the log alone.
        let listener = match config.http_listen {
            Some(address) => Some(listen("HUMIDOR_HTTP_LISTEN", address)?),
            None => None,
        };
        let broker = Broker::start(config.broker, shutdown.clone()).await?;
        let http = listener.map(|(listener, address)| {
            let guests = config.web.guests.as_str();
            info!(guests, %address, "listening for HTTP, and for MQTT over WebSocket");
            let sources = Sources {
                database: broker.database().to_owned(),
                counters: broker.counters(),
                live: broker.live(),
                local_client: broker.local_client(),
                access: broker.access().clone(),
                alarms: broker.alarms(),
                mqtt_handoff: broker.handoff(),
            };
            let (close, closing) = shutdown::channel();
            let router = web::router(&config.web, sources, closing.clone());
            let serving = tokio::spawn(web::serve(listener, router, closing));
            Http { address, serving, close }
        });
        Ok(Self { broker, http, shutdown })
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
