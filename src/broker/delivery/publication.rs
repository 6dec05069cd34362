//! What accepting messages comes to: what is committed first, and who gets them then.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::JoinHandle;

use crate::broker::commit::classify;
use crate::broker::commit::writer::Batch;
use crate::broker::connection::run::Services;
use crate::broker::delivery::router::{Router, RouterDied};
use crate::broker::delivery::subscriptions::{self, Found};
use crate::broker::session::session::{Session, Wanted};
use crate::broker::traffic::Traffic;
use crate::clock;
use crate::mqtt::Message;
use crate::store::Change;

/// Accepted messages.
#[derive(Debug, Default)]
pub struct Publication {
    /// To commit.
    pub batch: Batch,
    /// For the router.
    messages: Vec<Message>,
    /// For members of shared subscriptions.
    handed: Vec<(Arc<Session>, Arc<Message>, Wanted)>,
}

impl Publication {
    /// Adds one message.
    pub fn add(&mut self, services: &Services, message: Message) {
        self.batch.records.extend(classify::record(&message, &services.logged, clock::unix_ms()));
        let retain = message.retain && services.retained.admits(&message);
        let routes = &services.sessions.routes;
        // Which sessions get a retained message is decided at its commit: see `keeping`.
        let found = if retain { routes.find_members(&message) } else { routes.find(&message) };
        if retain || found.is_some() {
            let shared = Arc::new(message.clone());
            if let Some(Found { targets, wake, handed }) = found {
                if !targets.is_empty() {
                    let message = Arc::clone(&shared);
                    self.batch.changes.push(Change::Queue { message, targets });
                }
                self.batch.wake.extend(wake);
                let handed = handed.into_iter();
                self.handed.extend(handed.map(|(to, wanted)| (to, Arc::clone(&shared), wanted)));
            }
            if retain {
                self.batch.changes.push(Change::Retain(shared));
            }
        }
        self.messages.push(message);
    }

    /// After the commit: everybody else gets them.
    ///
    /// # Errors
    /// When the router has died.
    pub async fn pass_on(&mut self, router: &Router, traffic: &Traffic) -> Result<(), RouterDied> {
        for (session, message, wanted) in self.handed.drain(..) {
            let lost = subscriptions::hand(&session, &message, wanted);
            traffic.dropped.fetch_add(lost, Relaxed);
        }
        let messages = std::mem::take(&mut self.messages);
        if messages.is_empty() { Ok(()) } else { router.publish(&messages).await }
    }
}

/// Publishes what comes from no client's packet, a will: committed, then passed on, which goes on by itself when
/// nobody waits any more.
pub async fn publish(services: &Services, message: Message) {
    let mut publication = Publication::default();
    publication.add(services, message);
    let mut batch = std::mem::take(&mut publication.batch);
    if batch.is_empty() {
        // A router that has died ends the broker by itself.
        let _ = publication.pass_on(&services.router, &services.traffic).await;
        return;
    }
    let Ok(committed) = services.recorder.hand_over(&mut batch).await else { return };
    let _ = passed_on(services, publication, async move { committed.await.is_ok() }).await;
}

/// Passes `publication` on when it is committed, whoever waits. Not with the recorder in its hands: the writer gives a
/// commit up that does not succeed when nobody is left who could bring another.
pub fn passed_on(
    services: &Services,
    mut publication: Publication,
    committed: impl Future<Output = bool> + Send + 'static,
) -> JoinHandle<()> {
    let (router, traffic) = (services.router.clone(), Arc::clone(&services.traffic));
    tokio::spawn(async move {
        if committed.await {
            // A router that has died ends the broker by itself.
            let _ = publication.pass_on(&router, &traffic).await;
        }
    })
}
