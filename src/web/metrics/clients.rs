//! The process, its MQTT clients and what they lost.

use prometheus_client::registry::Registry;

use super::text_format::{CounterFamily, GaugeFamily, counter, gauge};
use crate::broker::{LocalClient, Loss};
use crate::web::live::feed::Feed;

/// Clients with a series of their own in the losses. Their ids come from the network, so their number is bounded.
const LOSS_CLIENTS_MAX: usize = 100;

#[expect(clippy::cast_precision_loss)] // ms of this century are far below 2^53
pub fn register_process(registry: &mut Registry, started_ms: i64) {
    let build = GaugeFamily::default();
    let revision = option_env!("HUMIDOR_REVISION").unwrap_or("");
    let labels =
        vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("revision", revision.to_owned())];
    build.get_or_create(&labels).set(1.0);
    registry.register("build_info", "Version and revision of this broker", build);
    gauge(
        registry,
        "start_time_seconds",
        "Start of the broker, Unix time",
        started_ms as f64 / 1000.0,
    );
}

#[expect(clippy::cast_precision_loss)] // counts of clients and batches stay far below 2^53
pub fn register_clients(registry: &mut Registry, broker: &LocalClient, feed: &Feed) {
    let load = broker.load();
    gauge(registry, "clients", "Connected MQTT clients", load.clients as f64);
    gauge(registry, "commit_queue", "Batches waiting for their commit", load.batches as f64);
    counter(
        registry,
        "logins_refused",
        "Logins refused since the broker started",
        load.refused_logins,
    );
    counter(
        registry,
        "publishes_refused",
        "Messages dropped because their publisher may not write to the topic, since the broker started",
        load.refused_publishes,
    );
    counter(
        registry,
        "connections_malformed",
        "Connections closed for a malformed packet since the broker started",
        load.malformed,
    );
    gauge(registry, "event_streams", "Open event streams", feed.subscribers() as f64);
}

/// Messages that the broker dropped because a subscriber's queue was full. `total` counts those of clients that have
/// left too; `by_client` has the clients that the broker knows, by client id. The total has a name of its own: as a
/// series of the family without the label, every sum over the family would count each loss twice.
pub fn register_losses(registry: &mut Registry, total: u64, mut by_client: Vec<Loss>) {
    counter(
        registry,
        "messages_dropped",
        "Messages that subscribers lost since the broker started: their queue was full, or they were larger than the client accepts",
        total,
    );
    by_client.sort_unstable_by(|one, other| {
        other.count.cmp(&one.count).then(one.client.cmp(&other.client))
    });
    let family = CounterFamily::default();
    for Loss { client, count, .. } in by_client.into_iter().take(LOSS_CLIENTS_MAX) {
        family.get_or_create(&vec![("client", client)]).inc_by(count);
    }
    let help =
        format!("Messages that this client lost; the {LOSS_CLIENTS_MAX} clients with the most");
    registry.register("client_messages_dropped", help, family);
}

#[cfg(test)]
mod tests {
    use super::super::text_format::text;
    use super::*;

    #[test]
    fn losses_have_a_total_and_a_bounded_number_of_clients() {
        let mut registry = Registry::with_prefix("humidor");
        let loss =
            |client: &str, count| Loss { client: client.to_owned(), topic: String::new(), count };
        let mut clients: Vec<Loss> = (1..=150).map(|n| loss(&format!("c{n}"), n)).collect();
        clients.push(loss("kim's \"tablet\"", 1_000));
        register_losses(&mut registry, 20_000, clients);
        let text = text(&registry).unwrap();
        let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("humidor_messages_dropped_total 20000"), 1);
        assert_eq!(lines("humidor_messages_dropped_total"), 1, "no labels beside the total");
        assert_eq!(lines("humidor_client_messages_dropped_total{"), LOSS_CLIENTS_MAX);
        let quoted = r#"humidor_client_messages_dropped_total{client="kim's \"tablet\""} 1000"#;
        assert_eq!(lines(quoted), 1, "{text}");
        assert_eq!(lines("humidor_client_messages_dropped_total{client=\"c150\"} 150"), 1);
        assert_eq!(lines("humidor_client_messages_dropped_total{client=\"c51\"}"), 0);
    }

    #[test]
    fn no_losses_are_a_total_of_zero() {
        let mut registry = Registry::with_prefix("humidor");
        register_losses(&mut registry, 0, Vec::new());
        assert!(
            text(&registry).unwrap().lines().any(|line| line == "humidor_messages_dropped_total 0")
        );
    }
}
