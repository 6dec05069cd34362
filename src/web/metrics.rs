//! `/metrics` for Prometheus, made anew at each scrape from what the broker counts anyway.

use std::fmt;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Web;
use super::boards::Status;
use super::problem::Problem;
use crate::clock;
use crate::store::{Overview, QuickStats};

/// Labels by name.
type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counts = Family<Labels, Counter>;

/// Everything, in Prometheus' text format.
pub async fn metrics(State(web): State<Web>) -> Result<Response, Problem> {
    let (overview, stats) =
        web.database.read(|log| Ok((log.overview()?, log.quick_stats()?))).await?;
    let mut registry = Registry::with_prefix("humidor");
    about_broker(&mut registry, &web, &stats);
    about_sensors(&mut registry, &overview, clock::unix_ms());
    about_boards(&mut registry, &web);
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|fmt::Error| Problem::busy("the metrics are too large"))?;
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

// A gauge is a float; sizes and depths stay far below 2^53.
#[expect(clippy::cast_precision_loss)]
fn about_broker(registry: &mut Registry, web: &Web, stats: &QuickStats) {
    let build = Gauges::default();
    let revision = option_env!("HUMIDOR_REVISION").unwrap_or("");
    let labels =
        vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("revision", revision.to_owned())];
    build.get_or_create(&labels).set(1.0);
    registry.register("build_info", "Version and revision of this broker", build);

    let (appended, commits) = web.counters.totals();
    counter(registry, "readings_stored", "Readings committed since the start", appended.readings);
    counter(registry, "readings_repeated", "Readings that were stored already", appended.repeats);
    counter(
        registry,
        "samples_stored",
        "Numbers of foreign publishers committed since the start",
        appended.samples,
    );
    counter(registry, "commits", "Transactions since the start", commits);
    let seconds = web.counters.commit_seconds();
    registry.register("commit_seconds", "How long a commit took", seconds);
    let refused = Counts::default();
    for (cause, count) in &stats.refused {
        let count = u64::try_from(*count).unwrap_or_default();
        refused.get_or_create(&vec![("cause", cause.clone())]).inc_by(count);
    }
    registry.register(
        "refused",
        "Messages that were no readings, since the log was begun",
        refused,
    );

    let (raised, times) = <(Gauges, Counts)>::default();
    for alarm in web.alarms.states() {
        let labels = vec![("alarm", alarm.name.to_string())];
        raised.get_or_create(&labels).set(f64::from(u8::from(alarm.raised)));
        times.get_or_create(&labels).inc_by(alarm.raised_count);
    }
    registry.register("alarm_raised", "1 while the alarm is raised", raised);
    registry.register("alarm_raises", "How often the alarm was raised since the start", times);

    let load = web.insider.load();
    let acknowledging = f64::from(u8::from(web.counters.blocked().is_none()));
    gauge(registry, "acknowledging", "1 while the log can commit", acknowledging);
    gauge(registry, "clients", "MQTT clients connected", load.clients as f64);
    gauge(registry, "commit_queue", "Batches that wait for their commit", load.batches as f64);
    counter(registry, "logins_refused", "Logins refused since the start", load.refused_logins);
    counter(
        registry,
        "publishes_refused",
        "Messages to topics that their publisher may not write, since the start",
        load.refused_publishes,
    );
    counter(
        registry,
        "connections_malformed",
        "Connections closed for a malformed packet since the start",
        load.malformed,
    );
    gauge(registry, "event_streams", "Pages that watch", web.feed.watchers() as f64);
    gauge(
        registry,
        "database_bytes",
        "Size of the log without its write-ahead log",
        stats.bytes as f64,
    );
    gauge(
        registry,
        "start_time_seconds",
        "When the broker started, Unix time",
        web.started_ms as f64 / 1000.0,
    );
}

#[expect(clippy::cast_precision_loss)] // ms of this century are far below 2^53
fn about_sensors(registry: &mut Registry, overview: &Overview, now_ms: i64) {
    let (age, temperature, humidity) = <(Gauges, Gauges, Gauges)>::default();
    for latest in overview.sensors.iter().filter_map(|found| found.latest.as_ref()) {
        let labels = vec![("node", latest.node.clone()), ("sensor", latest.sensor.clone())];
        age.get_or_create(&labels).set(now_ms.saturating_sub(latest.at) as f64 / 1000.0);
        if let Some(value) = latest.temperature {
            temperature.get_or_create(&labels).set(value);
        }
        if let Some(value) = latest.humidity {
            humidity.get_or_create(&labels).set(value);
        }
    }
    registry.register("reading_age_seconds", "Age of the latest reading", age);
    registry.register("temperature_celsius", "Latest temperature", temperature);
    registry.register("humidity_percent", "Latest relative humidity", humidity);
}

#[expect(clippy::cast_precision_loss)] // an outbox holds ten million readings at most
fn about_boards(registry: &mut Registry, web: &Web) {
    let (online, outbox) = <(Gauges, Gauges)>::default();
    let (dropped, failures) = <(Counts, Counts)>::default();
    for (node, board) in web.feed.boards().iter() {
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
    registry.register("board_online", "1 while the board is connected", online);
    registry.register("board_outbox", "Readings that wait on the board", outbox);
    registry.register(
        "board_readings_dropped",
        "Readings given up by a full outbox, ever",
        dropped,
    );
    registry.register(
        "board_read_failures",
        "Reads that gave nothing, since the board started",
        failures,
    );
}

/// `OpenMetrics` as every Prometheus and its promtool take it: there the family of a counter has the name of its
/// samples, and the text no end mark.
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

    #[test]
    fn a_counters_family_is_named_like_its_samples() {
        let mut registry = Registry::with_prefix("humidor");
        counter(&mut registry, "commits", "Transactions", 7);
        gauge(&mut registry, "clients", "Connected", 2.0);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert_eq!(
            classic(&text),
            "# HELP humidor_commits_total Transactions.\n# TYPE humidor_commits_total counter\nhumidor_commits_total 7\n\
             # HELP humidor_clients Connected.\n# TYPE humidor_clients gauge\nhumidor_clients 2.0\n"
        );
    }
}
