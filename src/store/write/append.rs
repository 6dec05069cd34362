//! Appends records: each reading once, in the order of arrival.

use rusqlite::{Transaction, params};

use crate::reading::{ClockState, Id};
use crate::store::forward::operation::{put_alarm, put_reading, put_run, put_sample};
use crate::store::rollup::aggregate::Bucket;
use crate::store::rollup::schema::SAMPLES;
use crate::store::write::cache::WriterCache;
use crate::store::write::newest::OFFSET_AHEAD_MS;
use crate::store::write::record::{Appended, EXAMPLE_MAX_BYTES, Record};
use crate::store::write::{alarm_log, restamp, series};
use crate::wire::Telemetry;

/// Rows of table `refusal`; refusals of further topics are counted under the topic `…`.
const REFUSAL_ROWS: i64 = 1000;

/// Appends `records`, and corrects the times of the next few readings that wait for it.
pub(in crate::store) fn append(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    records: &[&Record],
) -> rusqlite::Result<Appended> {
    let mut appended = Appended::default();
    for record in records {
        if cache.interner.is_full() {
            cache.renew_names(transaction)?;
        }
        if let Some(forward) = &mut cache.forward
            && forward.is_row_full()
        {
            forward.flush(transaction, cache.log_ms)?;
        }
        match record {
            Record::Reading { node, sensor, telemetry } => {
                if append_reading(transaction, cache, node, sensor, telemetry)? {
                    appended.readings += 1;
                } else {
                    appended.repeats += 1;
                }
            }
            Record::Foreign { topic, at_ms, numbers } => {
                for (field, value) in &numbers.found {
                    insert_sample(transaction, cache, topic, field, *at_ms, *value)?;
                    appended.samples += 1;
                }
                appended.texts += numbers.texts;
                appended.left_out += numbers.left_out;
            }
            Record::Refused { topic, at_ms, cause: name, payload } => {
                let at_ms = at_ms.saturating_add(cache.correction_ms);
                count_refusal(transaction, topic, at_ms, name, payload)?;
                appended.refused += 1;
            }
            Record::Begun { series, owner } => series::set_owner(transaction, series, owner)?,
            Record::Alarm { name, at_ms, raised, detail } => {
                let change = alarm_log::Happened { at_ms: *at_ms, raised: *raised, detail };
                alarm_log::append(transaction, cache, name.as_str(), &change)?;
                if let Some(forward) = &mut cache.forward {
                    let at = at_ms.saturating_add(cache.correction_ms);
                    put_alarm(forward.operation(), name, at, *raised, detail);
                }
            }
        }
    }
    if let Some(forward) = &mut cache.forward {
        forward.flush(transaction, cache.log_ms)?;
    }
    cache.early.save(transaction)?;
    cache.added_samples.save(transaction, &SAMPLES, &cache.horizons)?;
    if cache.restamping {
        cache.restamping = restamp::correct_some(transaction, cache)?;
    }
    Ok(appended)
}

/// Returns whether the reading was new.
fn append_reading(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    node: &Id,
    sensor: &Id,
    telemetry: &Telemetry,
) -> rusqlite::Result<bool> {
    let sensor_name = sensor;
    let sensor = cache.interner.sensor(transaction, node, sensor_name)?;
    let run = cache.interner.run(transaction, node, &telemetry.boot)?;
    // A stamp from the far future does not say when the run began.
    let believed = telemetry.at <= cache.now_ms.saturating_add(OFFSET_AHEAD_MS);
    if telemetry.clock == ClockState::Synced && !run.is_synced && believed {
        let mono = i64::try_from(telemetry.mono).unwrap_or(i64::MAX);
        // A run whose first reading has a set clock has nothing to correct.
        let earlier = cache.arrivals(transaction)?.numbers.is_any_stored(transaction, run.id)?;
        transaction
            .prepare_cached(
                "UPDATE run SET offset_ms = ?, synced_seq = ?, restamp_from = ? WHERE id = ?",
            )?
            .execute(params![telemetry.at - mono, telemetry.seq, earlier.then_some(0), run.id])?;
        cache.interner.set_synced(node, &telemetry.boot);
        cache.restamping |= earlier;
        // Earlier readings may have gone to another broker, so upstream has to know it in any case.
        if let Some(forward) = &mut cache.forward
            && (earlier || telemetry.seq > 1)
        {
            put_run(forward.operation(), node, telemetry, telemetry.at - mono);
        }
    }
    let is_new = cache.arrivals(transaction)?.append(transaction, run.id, sensor, telemetry)?;
    if is_new && let Some(forward) = &mut cache.forward {
        put_reading(forward.operation(), node, sensor_name, telemetry);
    }
    Ok(is_new)
}

fn insert_sample(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    topic: &str,
    field: &str,
    arrived_ms: i64,
    value: f64,
) -> rusqlite::Result<()> {
    let source = cache.interner.source(transaction, topic, field)?;
    let at = arrived_ms.saturating_add(cache.correction_ms);
    transaction
        .prepare_cached("INSERT INTO sample (source, at, value) VALUES (?, ?, ?)")?
        .execute(params![source, at, value])?;
    if let Some(forward) = &mut cache.forward {
        put_sample(forward.operation(), topic, field, at, cache.is_set, value);
    }
    // Else the broker's clock is behind the horizon, and the roll-ups of that time cannot be computed afresh.
    let horizon = cache.horizons.of(&SAMPLES, source);
    let rolled = at >= horizon.rows_from;
    if !rolled || !cache.is_set {
        let id = transaction.last_insert_rowid();
        // Of a clock that is set nothing is to be corrected later.
        let correction_ms = (!cache.is_set).then_some(cache.correction_ms);
        cache.early.note(transaction, id, arrived_ms, correction_ms, rolled)?;
    }
    if rolled && at < horizon.closed_until {
        cache.added_samples.add(source, &Bucket::row(at, [Some(value)]));
    } else if rolled {
        cache.marks.mark(transaction, &SAMPLES, source, at)?;
    }
    Ok(())
}

fn count_refusal(
    transaction: &Transaction<'_>,
    topic: &str,
    at_ms: i64,
    cause: &str,
    payload: &[u8],
) -> rusqlite::Result<()> {
    let known: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM refusal WHERE cause = ? AND topic = ?)")?
        .query_row([cause, topic], |row| row.get(0))?;
    let topic = if known {
        topic
    } else {
        let rows: i64 = transaction
            .prepare_cached("SELECT count(*) FROM refusal")?
            .query_row([], |row| row.get(0))?;
        if rows < REFUSAL_ROWS { topic } else { "…" }
    };
    let example = &payload[..payload.len().min(EXAMPLE_MAX_BYTES)];
    transaction
        .prepare_cached(
            "INSERT INTO refusal (cause, topic, count, first_at, last_at, example)
             VALUES (?1, ?2, 1, ?3, ?3, ?4)
             ON CONFLICT (cause, topic) DO UPDATE
             SET count = count + 1, last_at = excluded.last_at, example = excluded.example",
        )?
        .execute(params![cause, topic, at_ms, example])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;
    use std::time::Duration;

    use rusqlite::{Connection, ffi};

    use super::*;
    use crate::store::rollup::schema::HOUR_MS;
    use crate::store::{Retention, Store};

    const START_MS: i64 = 489_000 * HOUR_MS;

    fn reading(seq: u64) -> Record {
        let telemetry = Telemetry {
            boot: "b".parse().unwrap(),
            seq,
            at: START_MS + seq.cast_signed() * 60_000,
            clock: ClockState::Synced,
            mono: seq,
            temperature: Some(20.0),
            humidity: None,
        };
        let (node, sensor) = ("press".parse().unwrap(), "hall".parse().unwrap());
        Record::Reading { node, sensor, telemetry }
    }

    /// How often the statements that the connection has cached were compiled anew.
    #[allow(unsafe_code)]
    fn reprepared(connection: &Connection) -> c_int {
        let mut reprepared = 0;
        // SAFETY: the handle is open as long as `connection` is borrowed, and no statement is finalized meanwhile.
        unsafe {
            let mut statement = ffi::sqlite3_next_stmt(connection.handle(), std::ptr::null_mut());
            while !statement.is_null() {
                reprepared +=
                    ffi::sqlite3_stmt_status(statement, ffi::SQLITE_STMTSTATUS_REPREPARE, 0);
                statement = ffi::sqlite3_next_stmt(connection.handle(), statement);
            }
        }
        reprepared
    }

    #[test]
    fn no_statement_is_compiled_anew_for_a_reading() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let keep_raw = Some(Duration::from_hours(24));
        store.retain(Retention { keep_raw, ..Retention::EVERYTHING });
        // A week of which six days are deleted, with a hole in their numbers.
        let week: Vec<Record> = (1..=10_080).filter(|seq| seq % 1000 != 0).map(reading).collect();
        store.append(&week.iter().collect::<Vec<_>>()).unwrap();
        while store.maintain(START_MS + 168 * HOUR_MS).unwrap() {}
        let before = reprepared(&store.connection);

        // New ones in order and out of it, and repeats of what is there, was moved and was deleted.
        let mut new = 0;
        for seq in 1..=5_000 {
            let records = [reading(10_080 + 5_001 - seq), reading(20_000 + seq), reading(seq * 2)];
            new += store.append(&records.each_ref()).unwrap().readings;
        }
        assert_eq!(new, 10_000 + 10, "and of the multiples of thousand");
        assert_eq!(reprepared(&store.connection) - before, 0);
    }
}
