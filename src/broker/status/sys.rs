//! Publishes the broker's status in `$SYS/broker/…`, and ends sessions and retained messages that have expired.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info};

use crate::broker::access::permissions::Owner;
use crate::broker::context::Services;
use crate::broker::counters::Counters;
use crate::mqtt::Message;
use crate::shutdown::Shutdown;
use crate::store::Change;
use crate::wire::SYS_BROKER;

/// Interval of the reports. The topics are mosquitto's where it has one, so that dashboards for it work.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reports until `shutdown`.
pub async fn run(services: Services, mut shutdown: Shutdown) {
    let started = Instant::now();
    let mut published: HashMap<Arc<str>, u64> = HashMap::new();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_stuck = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.requested() => return,
        }
        tell_of_stuck_writer(services.recorder.counters(), &mut was_stuck);
        let now_ms = services.fan_out.timeline.now_ms();
        let mut changes = services.registry.expire(now_ms);
        if services.fan_out.retained.has_expired(now_ms) {
            changes.push(Change::Expire { at_ms: now_ms });
        }
        for message in report(&services, started.elapsed()) {
            services.fan_out.publish_own(message);
        }
        for (client, count) in services.fan_out.traffic.losses.by_name() {
            // Most counts do not change.
            if published.insert(Arc::clone(&client), count) != Some(count) {
                services.fan_out.publish_own(Message::own(loss_topic(&client), count.to_string()));
            }
        }
        tokio::select! {
            () = services.recorder.note(&mut changes) => {}
            () = shutdown.requested() => return,
        }
    }
}

/// Tells of a commit that does not end, which the writer itself cannot, and that it has ended.
fn tell_of_stuck_writer(counters: &Counters, was_stuck: &mut bool) {
    let stuck = counters.stuck(std::time::Instant::now());
    if *was_stuck != stuck.is_some() {
        *was_stuck = stuck.is_some();
        if let Some(time) = stuck {
            error!(
                seconds = time.as_secs(),
                "the log has not committed for long, and nothing is acknowledged until it does; the disk of the data folder does not answer (`dmesg` says more)"
            );
        } else {
            info!("the log commits again; publishers are acknowledged again");
        }
    }
}

/// The topic of the messages that one client lost: `$SYS/broker/clients/dropped/<client id>`, or `…/<user>/<client id>`.
/// Characters with a meaning in topics are percent-encoded (RFC 3986 §2.1).
pub fn loss_topic(session: &str) -> String {
    let Owner { user, client_id, .. } = Owner::of_session(session);
    let mut topic = format!("{SYS_BROKER}clients/dropped/");
    if let Some(user) = user {
        topic.push_str(user);
        topic.push('/');
    }
    for c in client_id.chars() {
        match c {
            '/' => topic.push_str("%2F"),
            '+' => topic.push_str("%2B"),
            '#' => topic.push_str("%23"),
            '%' => topic.push_str("%25"),
            c => topic.push(c),
        }
    }
    topic
}

fn report(services: &Services, uptime: Duration) -> Vec<Message> {
    let traffic = &services.fan_out.traffic;
    let refusals = services.access.refusals();
    let counters = services.recorder.counters();
    let (appended, commits) = counters.totals();
    let (connected, persistent) = services.registry.count();
    let text = |topic: &str, value: String| Message::own(format!("{SYS_BROKER}{topic}"), value);
    let count = |topic, value: u64| text(topic, value.to_string());
    let size = |topic, value: usize| text(topic, value.to_string());
    vec![
        text("version", format!("humidor {}", env!("CARGO_PKG_VERSION"))),
        text("uptime", format!("{} seconds", uptime.as_secs())),
        size("clients/connected", connected),
        size("clients/persistent", persistent),
        count("connections/accepted", traffic.connections.load(Relaxed)),
        count("connections/malformed", traffic.malformed.load(Relaxed)),
        count("connections/refused", refusals.logins.load(Relaxed)),
        count("publish/messages/refused", refusals.publishes.load(Relaxed)),
        count("publish/messages/received", traffic.received.load(Relaxed)),
        count("publish/messages/sent", traffic.sent.load(Relaxed)),
        count("publish/messages/dropped", traffic.losses.total()),
        size("retained messages/count", services.fan_out.retained.len()),
        size("queued/bytes", services.fan_out.subscriptions.queued_bytes()),
        count("store/readings", appended.readings),
        count("store/repeats", appended.repeats),
        count("store/samples", appended.samples),
        count("store/samples/left out", appended.left_out),
        count("store/refused", appended.refused),
        count("store/commits", commits),
        text("store/commit/ms", format!("{:.3}", counters.commit_time().as_secs_f64() * 1000.0)),
        text(
            "store/blocked",
            counters.blocked().or_else(|| counters.awaited()).unwrap_or_default(),
        ),
    ]
}
