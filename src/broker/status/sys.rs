//! What the broker says about itself in `$SYS/broker/…`, and the clock of what expires.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::broker::connection::run::Services;
use crate::clock;
use crate::mqtt::Message;
use crate::shutdown::Shutdown;
use crate::store::Change;

/// How often it is said. The names are mosquitto's where it has one, so that its users' dashboards find them.
const INTERVAL: Duration = Duration::from_secs(10);

/// Says it until `shutdown`.
pub async fn run(services: Services, mut shutdown: Shutdown) {
    let started = Instant::now();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.requested() => return,
        }
        let now_ms = clock::unix_ms();
        let mut changes = services.sessions.expire(now_ms);
        if services.retained.has_expired(now_ms) {
            changes.push(Change::Expire { at_ms: now_ms });
        }
        let messages = report(&services, started.elapsed());
        for message in &messages {
            services.retained.set(Arc::new(message.clone()));
        }
        tokio::select! {
            () = async {
                services.recorder.note(&mut changes).await;
                // A router that has died ends the broker by itself.
                let _ = services.router.publish(&messages).await;
            } => {}
            () = shutdown.requested() => return,
        }
    }
}

fn report(services: &Services, uptime: Duration) -> Vec<Message> {
    let traffic = &services.traffic;
    let refusals = services.access.refusals();
    let counters = services.recorder.counters();
    let (appended, commits) = counters.totals();
    let (connected, persistent) = services.sessions.count();
    let said = |topic: &str, value: String| Message::own(format!("$SYS/broker/{topic}"), value);
    let count = |topic, value: u64| said(topic, value.to_string());
    let size = |topic, value: usize| said(topic, value.to_string());
    vec![
        said("version", format!("humidor {}", env!("CARGO_PKG_VERSION"))),
        said("uptime", format!("{} seconds", uptime.as_secs())),
        size("clients/connected", connected),
        size("clients/persistent", persistent),
        count("connections/accepted", traffic.connections.load(Relaxed)),
        count("connections/malformed", traffic.malformed.load(Relaxed)),
        count("connections/refused", refusals.logins.load(Relaxed)),
        count("publish/messages/refused", refusals.publishes.load(Relaxed)),
        count("publish/messages/received", traffic.received.load(Relaxed)),
        count("publish/messages/sent", traffic.sent.load(Relaxed)),
        count("publish/messages/dropped", traffic.dropped.load(Relaxed) + appended.dropped),
        size("retained messages/count", services.retained.len()),
        size("queued/bytes", traffic.queued_bytes.load(Relaxed)),
        count("store/readings", appended.readings),
        count("store/repeats", appended.repeats),
        count("store/samples", appended.samples),
        count("store/refused", appended.refused),
        count("store/commits", commits),
        said("store/commit/ms", format!("{:.3}", counters.commit_time().as_secs_f64() * 1000.0)),
        said("store/blocked", counters.blocked().unwrap_or_default()),
    ]
}
