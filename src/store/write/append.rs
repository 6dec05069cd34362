//! Appends records: each reading once, in the order of arrival.

use std::collections::BTreeMap;

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
    let mut refusals = BTreeMap::new();
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
                let example = &payload[..payload.len().min(EXAMPLE_MAX_BYTES)];
                let first = Refusals { count: 0, first_at: at_ms, last_at: at_ms, example };
                let same = refusals.entry((&**name, &**topic)).or_insert(first);
                *same = Refusals { count: same.count + 1, last_at: at_ms, example, ..*same };
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
    for ((cause, topic), refusals) in refusals {
        count_refusals(transaction, cache, topic, cause, refusals)?;
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
    let is_new = cache.arrivals(transaction)?.append(transaction, run, sensor, telemetry)?;
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

/// Refusals of one topic for one cause in a commit. They are counted together: a flood of them is a flood of one row.
#[derive(Debug, Clone, Copy)]
struct Refusals<'a> {
    count: i64,
    /// Unix ms.
    first_at: i64,
    last_at: i64,
    /// Of the last one.
    example: &'a [u8],
}

fn count_refusals(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    topic: &str,
    cause: &str,
    Refusals { count, first_at, last_at, example }: Refusals<'_>,
) -> rusqlite::Result<()> {
    let known: bool = transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM refusal WHERE cause = ? AND topic = ?)")?
        .query_row([cause, topic], |row| row.get(0))?;
    let topic = if known {
        topic
    } else {
        // None is ever deleted. To count them for each refusal would look at all of their pages.
        let rows = match cache.refusal_rows {
            Some(rows) => rows,
            None => transaction
                .prepare_cached("SELECT count(*) FROM refusal")?
                .query_row([], |row| row.get(0))?,
        };
        let has_room = rows < REFUSAL_ROWS;
        cache.refusal_rows = Some(rows + i64::from(has_room));
        if has_room { topic } else { "…" }
    };
    transaction
        .prepare_cached(
            "INSERT INTO refusal (cause, topic, count, first_at, last_at, example)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (cause, topic) DO UPDATE
             SET count = count + excluded.count, last_at = excluded.last_at, example = excluded.example",
        )?
        .execute(params![cause, topic, count, first_at, last_at, example])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, c_int};
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
    fn reprepared(connection: &Connection) -> c_int {
        sum_of(connection, ffi::SQLITE_STMTSTATUS_REPREPARE, "")
    }

    /// The sum of a count of the cached statements that contain `text`.
    #[allow(unsafe_code)]
    fn sum_of(connection: &Connection, count: c_int, text: &str) -> c_int {
        let mut sum = 0;
        // SAFETY: the handle is open as long as `connection` is borrowed, and no statement is finalized meanwhile.
        unsafe {
            let mut statement = ffi::sqlite3_next_stmt(connection.handle(), std::ptr::null_mut());
            while !statement.is_null() {
                let sql = CStr::from_ptr(ffi::sqlite3_sql(statement));
                if sql.to_str().unwrap().contains(text) {
                    sum += ffi::sqlite3_stmt_status(statement, count, 0);
                }
                statement = ffi::sqlite3_next_stmt(connection.handle(), statement);
            }
        }
        sum
    }

    #[test]
    fn refusals_take_no_longer_when_there_are_many() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let refusals: Vec<Record> = (0..REFUSAL_ROWS + 500)
            .map(|n| Record::Refused {
                topic: format!("humidor/a/sensor/s{n}"),
                at_ms: n,
                cause: "payload-json",
                payload: b"1".to_vec(),
            })
            .collect();
        for some in refusals.chunks(100) {
            store.append(&some.iter().collect::<Vec<_>>()).unwrap();
        }
        let counts = "count(*) FROM refusal";
        let counted = sum_of(&store.connection, ffi::SQLITE_STMTSTATUS_RUN, counts);
        assert_eq!(counted, 1);
        let flood: Vec<Record> = (0..1_000)
            .map(|n| Record::Refused {
                topic: "humidor/a/sensor/s0".to_owned(),
                at_ms: 10_000 + n,
                cause: "payload-json",
                payload: n.to_string().into_bytes(),
            })
            .collect();
        let inserts = "INSERT INTO refusal";
        let before = sum_of(&store.connection, ffi::SQLITE_STMTSTATUS_RUN, inserts);
        store.append(&flood.iter().collect::<Vec<_>>()).unwrap();
        let after = sum_of(&store.connection, ffi::SQLITE_STMTSTATUS_RUN, inserts);
        assert_eq!(after - before, 1, "they are counted together");
        let row = "SELECT count, first_at, last_at, example FROM refusal WHERE topic LIKE '%/s0'";
        let row: (i64, i64, i64, Vec<u8>) = store
            .connection
            .query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap();
        assert_eq!(row, (1_001, 0, 10_999, b"999".to_vec()));
        let of = |of: &str| -> i64 {
            let sql = format!("SELECT {of} FROM refusal");
            store.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!((of("count(*)"), of("sum(count)")), (REFUSAL_ROWS + 1, REFUSAL_ROWS + 1_500));
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
