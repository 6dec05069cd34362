//! What the log says of itself, and PostgreSQL of its copy.

use prometheus_client::registry::Registry;

use super::text_format::{CounterFamily, counter, gauge};
use crate::broker::Counters;
use crate::store::QuickStats;
use crate::upstream::UpstreamStatus;
use crate::web::auth::Identity;

#[expect(clippy::cast_precision_loss)] // sizes stay far below 2^53
pub fn register_store(
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
pub fn register_upstream(registry: &mut Registry, status: &UpstreamStatus) {
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
