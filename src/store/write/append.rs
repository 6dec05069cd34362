//! Appends records: each reading once, with its corrected time when its run has one.

use rusqlite::{Transaction, params};

use crate::reading::{ClockState, Id};
use crate::store::file::schema::{CLOCK_AWAITING, CLOCK_RESTAMPED, CLOCK_SYNCED, CLOCK_UNSYNCED};
use crate::store::retention::deleted_ranges;
use crate::store::retention::fold::fold;
use crate::store::rollup::aggregate::Bucket;
use crate::store::rollup::schema::{READINGS, SAMPLES};
use crate::store::write::cache::WriterCache;
use crate::store::write::record::{Appended, EXAMPLE_MAX_BYTES, Record};
use crate::store::write::{alarm_log, restamp};
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
        cache.interner.trim();
        match record {
            Record::Reading { node, sensor, telemetry } => {
                if insert_reading(transaction, cache, node, sensor, telemetry)? {
                    appended.readings += 1;
                } else {
                    appended.repeats += 1;
                }
            }
            Record::Foreign { topic, at_ms, numbers } => {
                for (field, value) in numbers {
                    insert_sample(transaction, cache, topic, field, *at_ms, *value)?;
                    appended.samples += 1;
                }
            }
            Record::Refused { topic, at_ms, cause, payload } => {
                count_refusal(transaction, topic, *at_ms, cause, payload)?;
                appended.refused += 1;
            }
            Record::Alarm { name, at_ms, raised, detail } => {
                alarm_log::append(transaction, name.as_str(), *at_ms, *raised, detail)?;
            }
        }
    }
    if cache.restamping {
        cache.restamping = restamp::step(transaction, cache)?;
    }
    Ok(appended)
}

/// Returns whether the reading was new.
fn insert_reading(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    node: &Id,
    sensor: &Id,
    telemetry: &Telemetry,
) -> rusqlite::Result<bool> {
    let sensor = cache.interner.sensor(transaction, node, sensor)?;
    let mut run = cache.interner.run(transaction, node, &telemetry.boot)?;
    // The payload's check bounds both to i64.
    let seq = i64::try_from(telemetry.seq).unwrap_or(i64::MAX);
    let mono = i64::try_from(telemetry.mono).unwrap_or(i64::MAX);

    if telemetry.clock == ClockState::Synced && run.synced.is_none() {
        let offset = telemetry.at - mono;
        transaction
            .prepare_cached(
                "UPDATE run SET offset_ms = ?, synced_seq = ?, restamp_from = 0 WHERE id = ?",
            )?
            .execute(params![offset, seq, run.id])?;
        run.synced = Some((offset, seq));
        cache.interner.set_run(node, &telemetry.boot, run);
        cache.restamping = true;
    }
    let (at, clock, original) = match (telemetry.clock, run.synced) {
        (ClockState::Synced, _) => (telemetry.at, CLOCK_SYNCED, None),
        (ClockState::Unsynced, Some((offset, synced_seq))) if seq < synced_seq => {
            (mono.saturating_add(offset), CLOCK_RESTAMPED, Some(telemetry.at))
        }
        // Its time may still be corrected to one after the horizon.
        (ClockState::Unsynced, None) if telemetry.at < cache.horizon.rows_from => {
            (telemetry.at, CLOCK_AWAITING, None)
        }
        (ClockState::Unsynced, _) => (telemetry.at, CLOCK_UNSYNCED, None),
    };
    if !cache.horizon.is_all() && deleted_ranges::contains(transaction, run.id, seq)? {
        return Ok(false);
    }
    if at < cache.horizon.rows_from && clock != CLOCK_AWAITING {
        let known: bool = transaction
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM reading WHERE run = ? AND seq = ?)")?
            .query_row(params![run.id, seq], |row| row.get(0))?;
        if known {
            return Ok(false);
        }
        let row = Bucket::row(at, [telemetry.temperature, telemetry.humidity]);
        fold(transaction, &READINGS, sensor, &row, &cache.horizon)?;
        deleted_ranges::add(transaction, run.id, seq, seq)?;
        return Ok(true);
    }
    let rows = transaction
        .prepare_cached(
            "INSERT INTO reading (run, seq, sensor, at, clock, mono, temperature, humidity, at_original)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, seq) DO NOTHING",
        )?
        .execute(params![
            run.id, seq, sensor, at, clock, mono, telemetry.temperature, telemetry.humidity, original
        ])?;
    if rows == 1 {
        if clock == CLOCK_AWAITING {
            transaction
                .prepare_cached("INSERT INTO parked (run) VALUES (?) ON CONFLICT DO NOTHING")?
                .execute([run.id])?;
        } else {
            cache.marks.mark(transaction, &READINGS, sensor, at)?;
        }
    }
    Ok(rows == 1)
}

fn insert_sample(
    transaction: &Transaction<'_>,
    cache: &mut WriterCache,
    topic: &str,
    field: &str,
    at: i64,
    value: f64,
) -> rusqlite::Result<()> {
    let source = cache.interner.source(transaction, topic, field)?;
    if at < cache.horizon.rows_from {
        // The broker's own clock went back behind the horizon.
        let row = Bucket::row(at, [Some(value)]);
        return fold(transaction, &SAMPLES, source, &row, &cache.horizon);
    }
    transaction
        .prepare_cached("INSERT INTO sample (source, at, value) VALUES (?, ?, ?)")?
        .execute(params![source, at, value])?;
    cache.marks.mark(transaction, &SAMPLES, source, at)
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
