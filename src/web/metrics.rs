//! `/metrics` for Prometheus. Each scrape builds a registry from the broker's counters, the log and the boards.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::broker::{Alarms, Counters, LocalClient, Loss};
use crate::clock;
use crate::reading::ClockState;
use crate::store::{Overview, QuickStats, Reading};
use crate::upstream::UpstreamStatus;
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;
use crate::web::live::boards::Status;
use crate::web::live::feed::Feed;
use crate::web::live::visible::visible_boards;
use crate::web::log_reader::LogReader;

/// Clients with a series of their own in the losses. Their ids come from the network, so their number is bounded.
const LOSS_CLIENTS_MAX: usize = 100;

/// Label names and values of one series.
type Labels = Vec<(&'static str, String)>;
type GaugeFamily = Family<Labels, Gauge<f64, AtomicU64>>;
type CounterFamily = Family<Labels, Counter>;

/// The sources of the metrics.
#[derive(Clone)]
pub struct MetricsState {
    /// When this run of the broker began, Unix ms UTC.
    pub started_ms: i64,
    /// The log.
    pub log: LogReader,
    /// The boards, and the open event streams.
    pub feed: Feed,
    /// The alarms.
    pub alarms: Alarms,
    /// The broker's load.
    pub local_client: LocalClient,
    /// Counters of the writer.
    pub counters: Arc<Counters>,
}

/// The route of the metrics.
pub fn routes(state: MetricsState) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(state)
}

/// All metrics in Prometheus' text format.
async fn metrics(
    State(state): State<MetricsState>,
    Extension(identity): Extension<Identity>,
) -> Result<Response, HttpError> {
    let (overview, quick_stats) =
        state.log.read(|log| Ok((log.overview()?, log.quick_stats()?))).await?;
    let mut registry = Registry::with_prefix("humidor");
    // Numbers of the broker are reports in `$SYS` over MQTT; each group of them has the rule of one report.
    if identity.may_read_report("uptime") {
        register_process(&mut registry, state.started_ms);
    }
    if identity.may_read_report("store/readings") {
        register_store(&mut registry, &state.counters, &quick_stats, &identity);
        if let Some(forwarding) = state.counters.upstream() {
            register_upstream(&mut registry, &forwarding.status());
        }
    }
    if identity.may_read_report("clients/connected") {
        register_clients(&mut registry, &state);
    }
    if identity.may_read_report("publish/messages/dropped") {
        let (total, mut by_client) = state.local_client.losses();
        by_client.retain(|loss| identity.may_read_topic(&loss.topic));
        register_losses(&mut registry, total, by_client);
    }
    register_alarms(&mut registry, &state.alarms, &identity);
    register_sensors(&mut registry, &overview, clock::unix_ms(), &identity);
    register_boards(&mut registry, &state.feed, &identity);
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|fmt::Error| HttpError::unavailable("the broker cannot encode its metrics"))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], classic(&text))
        .into_response())
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

#[expect(clippy::cast_precision_loss)] // ms of this century are far below 2^53
fn register_process(registry: &mut Registry, started_ms: i64) {
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

#[expect(clippy::cast_precision_loss)] // sizes stay far below 2^53
fn register_store(
    registry: &mut Registry,
    counters: &Counters,
    stats: &QuickStats,
    identity: &Identity,
) {
    let (appended, commits) = counters.totals();
    counter(
        registry,
        "readings_stored",
        "Readings committed since the broker started",
        appended.readings,
    );
    counter(
        registry,
        "readings_repeated",
        "Readings received again after they were stored, since the broker started",
        appended.repeats,
    );
    counter(
        registry,
        "samples_stored",
        "Values of foreign publishers committed since the broker started",
        appended.samples,
    );
    let not_stored = CounterFamily::default();
    for (cause, count) in [("text", appended.texts), ("left-out", appended.left_out)] {
        not_stored.get_or_create(&vec![("cause", cause.to_owned())]).inc_by(count);
    }
    registry.register(
        "members_not_stored",
        "Members of stored messages of foreign publishers that gave no value, since the broker started: text (texts, booleans, nulls), left-out (NaN, too large, nested too deep, name too long, too many)",
        not_stored,
    );
    let of_topic = CounterFamily::default();
    for (topic, count) in counters.left_out().by_name() {
        // Further topics count together.
        if topic.is_empty() || identity.may_read_foreign(&topic) {
            of_topic.get_or_create(&vec![("topic", topic.to_string())]).inc_by(count);
        }
    }
    registry.register(
        "source_numbers_left_out",
        "Numbers of foreign publishers that were not kept, by topic, since the broker started (the same as left-out)",
        of_topic,
    );
    counter(registry, "commits", "Transactions since the broker started", commits);
    registry.register("commit_seconds", "Duration of a commit", counters.commit_seconds());
    let refused = CounterFamily::default();
    for (cause, count) in &stats.refused {
        let count = u64::try_from(*count).unwrap_or_default();
        refused.get_or_create(&vec![("cause", cause.clone())]).inc_by(count);
    }
    registry.register(
        "refused",
        "Messages that could not be stored as readings or values, since the log was created",
        refused,
    );
    counter(
        registry,
        "disk_errors",
        "Writes to the log that the disk failed, since the broker started",
        counters.disk_errors().0,
    );
    counter(
        registry,
        "rows_deleted_young",
        "Single readings and values that were deleted within their first hour since their series fill the log, since the broker started; the roll-ups have them",
        counters.young_deleted(),
    );
    let acknowledging = f64::from(u8::from(counters.is_acknowledging()));
    gauge(
        registry,
        "acknowledging",
        "1 while the broker can commit and acknowledge readings, else 0",
        acknowledging,
    );
    gauge(
        registry,
        "database_bytes",
        "Size of the log's file without its write-ahead log",
        stats.bytes as f64,
    );
    gauge(
        registry,
        "rollups_set_aside",
        "Quarters of an hour that could not be rolled up; humidor db check lists them",
        stats.set_aside as f64,
    );
    gauge(
        registry,
        "readings_ahead",
        "Readings in the log whose time is more than a minute ahead of the broker's clock",
        stats.ahead as f64,
    );
}

#[expect(clippy::cast_precision_loss)] // a queue holds far fewer than 2^53
fn register_upstream(registry: &mut Registry, status: &UpstreamStatus) {
    let is_connected = f64::from(u8::from(status.server.is_some()));
    gauge(registry, "upstream_connected", "1 while PostgreSQL takes the log, else 0", is_connected);
    gauge(registry, "upstream_lag", "Entries of the log that PostgreSQL lacks", status.lag as f64);
    gauge(
        registry,
        "upstream_lag_seconds",
        "How long the oldest of them has waited",
        status.lag_time.as_secs_f64(),
    );
    counter(
        registry,
        "upstream_forwarded",
        "Entries of the log that PostgreSQL has, since the log was created; less after it was restored",
        status.forwarded,
    );
    counter(
        registry,
        "upstream_refused",
        "Rows that PostgreSQL refused since the broker started; table humidor.refused has them",
        status.refused,
    );
    counter(
        registry,
        "upstream_overflowed",
        "Entries that left a full queue before PostgreSQL had them, since the broker started",
        status.overflowed,
    );
}

#[expect(clippy::cast_precision_loss)] // counts of clients and batches stay far below 2^53
fn register_clients(registry: &mut Registry, state: &MetricsState) {
    let load = state.local_client.load();
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
    gauge(registry, "event_streams", "Open event streams", state.feed.subscribers() as f64);
}

fn register_alarms(registry: &mut Registry, alarms: &Alarms, identity: &Identity) {
    let (raised, times) = <(GaugeFamily, CounterFamily)>::default();
    for alarm in alarms.states().iter().filter(|alarm| identity.may_read_alarm(&alarm.name)) {
        let labels = vec![("alarm", alarm.name.to_string())];
        raised.get_or_create(&labels).set(f64::from(u8::from(alarm.raised)));
        times.get_or_create(&labels).inc_by(alarm.raised_count);
    }
    registry.register("alarm_raised", "1 while the alarm is raised, else 0", raised);
    registry.register(
        "alarm_raises",
        "Times that the alarm was raised since the broker started",
        times,
    );
}

/// Messages that the broker dropped because a subscriber's queue was full. `total` counts those of clients that have
/// left too; `by_client` has the clients that the broker knows, by client id. The total has a name of its own: as a
/// series of the family without the label, every sum over the family would count each loss twice.
fn register_losses(registry: &mut Registry, total: u64, mut by_client: Vec<Loss>) {
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

#[expect(clippy::cast_precision_loss)] // ms of this century are far below 2^53
fn register_sensors(
    registry: &mut Registry,
    overview: &Overview,
    now_ms: i64,
    identity: &Identity,
) {
    let (age, temperature, humidity) = <(GaugeFamily, GaugeFamily, GaugeFamily)>::default();
    let visible = |latest: &&Reading| identity.may_read_sensor(&latest.node, &latest.sensor);
    let latest = overview.sensors.iter().filter_map(|found| found.latest.as_ref());
    for latest in latest.filter(visible) {
        let labels = vec![("node", latest.node.clone()), ("sensor", latest.sensor.clone())];
        // Stamped by a clock that was never set, its age is not known.
        if latest.clock != ClockState::Unsynced.as_str() {
            // One that is ahead has just come, as far as anybody knows.
            let age_ms = now_ms.saturating_sub(latest.at).max(0);
            age.get_or_create(&labels).set(age_ms as f64 / 1000.0);
        }
        if let Some(value) = latest.temperature {
            temperature.get_or_create(&labels).set(value);
        }
        if let Some(value) = latest.humidity {
            humidity.get_or_create(&labels).set(value);
        }
    }
    registry.register(
        "reading_age_seconds",
        "Age of the latest reading, where its board's clock was set",
        age,
    );
    registry.register("temperature_celsius", "Latest temperature", temperature);
    registry.register("humidity_percent", "Latest relative humidity", humidity);
}

#[expect(clippy::cast_precision_loss)] // an outbox holds ten million readings at most
fn register_boards(registry: &mut Registry, feed: &Feed, identity: &Identity) {
    let (online, outbox) = <(GaugeFamily, GaugeFamily)>::default();
    let (dropped, failures) = <(CounterFamily, CounterFamily)>::default();
    for (node, board) in visible_boards(&feed.boards(), identity) {
        let labels = vec![("node", node.to_string())];
        if let Some(status) = board.status {
            online.get_or_create(&labels).set(f64::from(u8::from(status == Status::Online)));
        }
        let Some(health) = &board.health else { continue };
        outbox.get_or_create(&labels).set(health.outbox as f64);
        dropped.get_or_create(&labels).inc_by(health.dropped);
        for (sensor, causes) in &health.failures {
            for (cause, count) in causes {
                let labels = vec![
                    ("node", node.to_string()),
                    ("sensor", sensor.clone()),
                    ("cause", cause.clone()),
                ];
                failures.get_or_create(&labels).inc_by(*count);
            }
        }
    }
    registry.register("board_online", "1 while the board is connected, else 0", online);
    registry.register("board_outbox", "Readings waiting in the board's outbox", outbox);
    registry.register(
        "board_readings_dropped",
        "Readings lost because the board's outbox was full, since the outbox was created",
        dropped,
    );
    registry.register(
        "board_read_failures",
        "Failed reads of a sensor since the node started",
        failures,
    );
}

/// Turns `OpenMetrics` into the text format 0.0.4, which every Prometheus and promtool read: a counter's family is
/// named like its samples, with `_total`, and there is no end marker.
fn classic(text: &str) -> String {
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut classic = String::with_capacity(text.len() + 64 * counters.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let family = line.strip_prefix("# ").and_then(|rest| rest.split(' ').nth(1));
        match family {
            Some(name) if counters.contains(&name) => {
                classic.push_str(&line.replacen(name, &format!("{name}_total"), 1));
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        classic(&text)
    }

    #[test]
    fn losses_have_a_total_and_a_bounded_number_of_clients() {
        let mut registry = Registry::with_prefix("humidor");
        let loss =
            |client: &str, count| Loss { client: client.to_owned(), topic: String::new(), count };
        let mut clients: Vec<Loss> = (1..=150).map(|n| loss(&format!("c{n}"), n)).collect();
        clients.push(loss("kim's \"tablet\"", 1_000));
        register_losses(&mut registry, 20_000, clients);
        let text = text(&registry);
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
        assert!(text(&registry).lines().any(|line| line == "humidor_messages_dropped_total 0"));
    }

    #[test]
    fn a_counters_family_is_named_like_its_samples() {
        let mut registry = Registry::with_prefix("humidor");
        counter(&mut registry, "commits", "Transactions", 7);
        gauge(&mut registry, "clients", "Connected", 2.0);
        assert_eq!(
            text(&registry),
            "# HELP humidor_commits_total Transactions.\n# TYPE humidor_commits_total counter\nhumidor_commits_total 7\n\
             # HELP humidor_clients Connected.\n# TYPE humidor_clients gauge\nhumidor_clients 2.0\n"
        );
    }
}
