//! Deletes the data before the retention horizon, a few dozen rows at a time.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::clock::SET_FROM_MS;
use crate::store::file::schema::CLOCK_AWAITING;
use crate::store::retention::ahead::{self, AHEAD_MS};
use crate::store::retention::deleted_ranges;
use crate::store::retention::fold::fold;
use crate::store::retention::horizon::{Horizon, Horizons};
use crate::store::retention::present::Present;
use crate::store::rollup::aggregate::Bucket;
use crate::store::rollup::schema::{HOUR_MS, READINGS, SAMPLES, SeriesSchema, Tier};

/// Rows that one piece of work looks at and at most deletes: two pages of readings and their part of the index.
const DELETE_ROWS: i64 = 50;

/// The position of the deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Cursor {
    job: usize,
    /// The last series or run that is finished.
    after: Option<i64>,
    /// A run, and the number in it to continue from.
    run: Option<(i64, i64)>,
    /// The last mark of a reading ahead of the clock that was looked at.
    mark: Option<(i64, i64)>,
}

/// What may go.
#[derive(Debug)]
pub(in crate::store) struct Limits<'a> {
    pub horizons: &'a Horizons,
    pub present: Present,
    /// Sensors whose roll-ups ahead of the clock go.
    pub ahead: &'a [i64],
    /// Counts the rows that are deleted though their time is of the last hour.
    pub young: &'a mut u64,
}

impl Limits<'_> {
    fn count(&mut self, at: i64) {
        *self.young += u64::from(at >= self.present.now_ms.saturating_sub(HOUR_MS));
    }
}

#[derive(Debug, Clone, Copy)]
enum Job {
    Readings,
    AwaitingClock,
    Ahead,
    EarlySamples,
    Samples,
    ReadingSpans(Tier),
    SampleSpans(Tier),
}

const JOBS: [Job; 11] = [
    Job::Ahead,
    Job::EarlySamples,
    // Before the readings: it lets those of runs go whose times are corrected.
    Job::AwaitingClock,
    Job::Readings,
    Job::Samples,
    Job::ReadingSpans(Tier::Minute),
    Job::ReadingSpans(Tier::Quarter),
    Job::ReadingSpans(Tier::Hour),
    Job::SampleSpans(Tier::Minute),
    Job::SampleSpans(Tier::Quarter),
    Job::SampleSpans(Tier::Hour),
];

impl Job {
    /// The table whose ids the job goes through.
    const fn series(self) -> &'static str {
        match self {
            Self::Readings | Self::ReadingSpans(_) => "sensor",
            Self::AwaitingClock => "parked",
            Self::Ahead => "ahead",
            Self::EarlySamples => "early",
            Self::Samples | Self::SampleSpans(_) => "source",
        }
    }

    /// Data before this time is deleted, Unix ms.
    const fn before(self, horizon: &Horizon) -> i64 {
        match self {
            Self::Readings
            | Self::AwaitingClock
            | Self::Ahead
            | Self::EarlySamples
            | Self::Samples => horizon.rows_from,
            Self::ReadingSpans(tier) | Self::SampleSpans(tier) => horizon.rolled_from(tier),
        }
    }
}

/// Deletes while there is time. Returns whether all is deleted.
pub(in crate::store) fn step(
    transaction: &Transaction<'_>,
    cursor: &mut Cursor,
    limits: &mut Limits<'_>,
    has_time: impl Fn() -> bool,
) -> rusqlite::Result<bool> {
    while let Some(job) = JOBS.get(cursor.job) {
        if !piece(transaction, cursor, *job, limits)? {
            *cursor = Cursor { job: cursor.job + 1, ..Cursor::default() };
        }
        if !has_time() {
            break;
        }
    }
    Ok(cursor.job >= JOBS.len())
}

/// One piece of work. Returns whether the job has more.
fn piece(
    transaction: &Transaction<'_>,
    cursor: &mut Cursor,
    job: Job,
    limits: &mut Limits<'_>,
) -> rusqlite::Result<bool> {
    let (horizons, present) = (limits.horizons, limits.present);
    let before = job.before(&horizons.all);
    if before == i64::MIN && !horizons.has_own() && limits.ahead.is_empty() {
        return Ok(false);
    }
    // A clock that is not set calls everything ahead, and boards younger than they are.
    let by_clock = matches!(job, Job::Ahead | Job::EarlySamples | Job::AwaitingClock);
    if by_clock && present.now_ms < SET_FROM_MS {
        return Ok(false);
    }
    if matches!(job, Job::Ahead | Job::EarlySamples) {
        if matches!(job, Job::EarlySamples) {
            return delete_early(
                transaction,
                horizons,
                before.saturating_sub(present.correction_ms),
            );
        }
        let after = cursor.mark.unwrap_or((i64::MIN, i64::MIN));
        let arrived_before = |sensor| {
            let horizon = horizons.of(&READINGS, sensor);
            horizon.rows_from.saturating_sub(present.correction_ms)
        };
        cursor.mark = ahead::delete_some(transaction, after, present.now_ms, arrived_before)?;
        return Ok(cursor.mark.is_some());
    }
    if let Some((run, from)) = cursor.run {
        cursor.run = delete_run(transaction, limits, run, from, None)?.map(|next| (run, next));
        return Ok(true);
    }
    let id = if matches!(job, Job::AwaitingClock) { "run" } else { "id" };
    let series: Option<i64> = transaction
        .prepare_cached(&format!("SELECT min({id}) FROM {} WHERE {id} > ?", job.series()))?
        .query_row([cursor.after.unwrap_or(i64::MIN)], |row| row.get(0))?;
    let Some(series) = series else { return Ok(false) };
    let before = match job {
        Job::Readings | Job::ReadingSpans(_) => job.before(&horizons.of(&READINGS, series)),
        Job::Samples | Job::SampleSpans(_) => job.before(&horizons.of(&SAMPLES, series)),
        Job::AwaitingClock | Job::Ahead | Job::EarlySamples => before,
    };
    let more = match job {
        Job::Readings => {
            cursor.run = oldest_reading(transaction, series, before)?;
            cursor.run.is_some()
        }
        Job::AwaitingClock => delete_awaiting(transaction, limits, series)?,
        Job::Ahead | Job::EarlySamples => false,
        Job::Samples => delete_samples(transaction, limits, series, before)?,
        Job::ReadingSpans(tier) => {
            let ahead = limits.ahead.contains(&series).then_some(present.now_ms);
            delete_spans(transaction, &READINGS, tier, series, before)?
                || ahead.map_or(Ok(false), |now_ms| {
                    delete_spans_ahead(transaction, tier, series, now_ms)
                })?
        }
        Job::SampleSpans(tier) => delete_spans(transaction, &SAMPLES, tier, series, before)?,
    };
    if !more {
        cursor.after = Some(series);
    }
    Ok(true)
}

/// Run and number of a sensor's oldest row before `before`. The index finds it; the rows of its run are then deleted
/// in the order of their numbers, since they lie together in that order.
fn oldest_reading(
    transaction: &Transaction<'_>,
    sensor: i64,
    before: i64,
) -> rusqlite::Result<Option<(i64, i64)>> {
    transaction
        .prepare_cached(
            "SELECT run, seq FROM reading INDEXED BY reading_by_time
             WHERE sensor = ? AND at < ? AND run NOT IN (SELECT run FROM parked)
             ORDER BY at LIMIT 1",
        )?
        .query_row(params![sensor, before], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Deletes the next few rows of a run, as far as they lie before the horizon. A row that awaits its clock is deleted
/// when it was taken before the horizon by a run that began at `booted_by`, Unix ms, or when nothing can correct it any
/// more (`None`); it was in no roll-up and is added to one. Returns the number to continue from, `None` when no row was deleted.
fn delete_run(
    transaction: &Transaction<'_>,
    limits: &mut Limits<'_>,
    run: i64,
    from: i64,
    booted_by: Option<i64>,
) -> rusqlite::Result<Option<i64>> {
    let mut statement = transaction.prepare_cached(
        "SELECT seq, at, clock, mono, sensor, temperature, humidity FROM reading
         WHERE run = ? AND seq >= ? ORDER BY seq LIMIT ?",
    )?;
    let mut rows = statement.query(params![run, from, DELETE_ROWS])?;
    let (mut gone, mut last, mut awaiting) = (Vec::<(i64, i64)>::new(), None, Vec::new());
    while let Some(row) = rows.next()? {
        let (seq, at, clock): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        last = Some(seq);
        let sensor: i64 = row.get(4)?;
        let rows_from = limits.horizons.of(&READINGS, sensor).rows_from;
        let expired = if clock == CLOCK_AWAITING {
            let mono: i64 = row.get(3)?;
            booted_by.is_none_or(|booted_by| mono < rows_from.saturating_sub(booted_by))
        } else {
            at < rows_from
        };
        if !expired {
            continue;
        }
        limits.count(at);
        if clock == CLOCK_AWAITING {
            awaiting.push((sensor, Bucket::row(at, [row.get(5)?, row.get(6)?])));
        }
        match gone.last_mut() {
            Some((_, end)) if *end + 1 == seq => *end = seq,
            _ => gone.push((seq, seq)),
        }
    }
    drop(rows);
    for (sensor, row) in awaiting {
        fold(transaction, &READINGS, sensor, &row, &limits.horizons.of(&READINGS, sensor))?;
    }
    for (first, end) in &gone {
        transaction
            .prepare_cached("DELETE FROM reading WHERE run = ? AND seq BETWEEN ? AND ?")?
            .execute(params![run, first, end])?;
        deleted_ranges::add(transaction, run, *first, *end)?;
    }
    Ok(last.filter(|_| !gone.is_empty()).map(|seq| seq.saturating_add(1)))
}

/// Deletes the rows of a run that have awaited their clock for as long as rows are kept. Returns whether there are
/// more.
fn delete_awaiting(
    transaction: &Transaction<'_>,
    limits: &mut Limits<'_>,
    run: i64,
) -> rusqlite::Result<bool> {
    let corrected: bool = transaction
        .prepare_cached(
            "SELECT synced_seq IS NOT NULL AND restamp_from IS NULL FROM run WHERE id = ?",
        )?
        .query_row([run], |row| row.get(0))?;
    let newest_mono: Option<i64> = transaction
        .prepare_cached("SELECT mono FROM reading WHERE run = ? ORDER BY seq DESC LIMIT 1")?
        .query_row([run], |row| row.get(0))
        .optional()?;
    let Some(newest_mono) = newest_mono.filter(|_| !corrected) else {
        transaction.prepare_cached("DELETE FROM parked WHERE run = ?")?.execute([run])?;
        return Ok(false);
    };
    let booted_by: i64 = transaction
        .prepare_cached(
            "UPDATE parked SET booted_by = coalesce(booted_by, ?) WHERE run = ? RETURNING booted_by",
        )?
        .query_row(params![limits.present.now_ms.saturating_sub(newest_mono), run], |row| row.get(0))?;
    Ok(delete_run(transaction, limits, run, i64::MIN, Some(booted_by))?.is_some())
}

fn delete_samples(
    transaction: &Transaction<'_>,
    limits: &mut Limits<'_>,
    source: i64,
    before: i64,
) -> rusqlite::Result<bool> {
    let mut statement = transaction.prepare_cached(
        "DELETE FROM sample WHERE id IN (
                 SELECT id FROM sample WHERE source = ? AND at < ? AND sample.id > coalesce((
                     SELECT last FROM early WHERE first <= sample.id ORDER BY first DESC LIMIT 1), -1)
                 ORDER BY at LIMIT ?) RETURNING at",
    )?;
    let mut rows = statement.query(params![source, before, DELETE_ROWS])?;
    let mut any = false;
    while let Some(row) = rows.next()? {
        limits.count(row.get(0)?);
        any = true;
    }
    Ok(any)
}

/// Deletes samples whose times were never sure and which came before `arrived_before`, in log time. Those that are in no
/// roll-up are added to one. Samples that may still be corrected go too when they came after the horizon and it has passed
/// them: else a flood would fill the disk. Returns whether there are more.
fn delete_early(
    transaction: &Transaction<'_>,
    horizons: &Horizons,
    arrived_before: i64,
) -> rusqlite::Result<bool> {
    let stretch: Option<(i64, i64, bool)> = transaction
        .prepare_cached(
            "SELECT first, last, rolled FROM early
             WHERE iif(correction IS NULL, arrived < ?, rolled AND arrived + correction < ?) LIMIT 1",
        )?
        .query_row([arrived_before, horizons.all.rows_from], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((first, last, rolled)) = stretch else { return Ok(false) };
    let rows: Vec<(i64, i64, Bucket<1>)> = transaction
        .prepare_cached(
            "SELECT id, source, at, value FROM sample WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
        )?
        .query_map([first, last, DELETE_ROWS], |row| {
            Ok((row.get(0)?, row.get(1)?, Bucket::row(row.get(2)?, [row.get(3)?])))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (_, source, row) in rows.iter().filter(|_| !rolled) {
        fold(transaction, &SAMPLES, *source, row, &horizons.of(&SAMPLES, *source))?;
    }
    let next = rows.last().map_or(last, |(id, ..)| *id).saturating_add(1);
    transaction
        .prepare_cached("DELETE FROM sample WHERE id >= ? AND id < ?")?
        .execute([first, next])?;
    if next > last {
        transaction.prepare_cached("DELETE FROM early WHERE first = ?")?.execute([first])?;
    } else {
        transaction
            .prepare_cached("UPDATE early SET first = ? WHERE first = ?")?
            .execute([next, first])?;
    }
    Ok(true)
}

fn delete_spans<const N: usize>(
    transaction: &Transaction<'_>,
    schema: &SeriesSchema<N>,
    tier: Tier,
    series: i64,
    before: i64,
) -> rusqlite::Result<bool> {
    let (table, key) = (schema.rolled(tier), schema.series);
    let deleted = transaction
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE {key} = ?1 AND at <= (
                 SELECT max(at) FROM (SELECT at FROM {table} WHERE {key} = ?1 AND at < ?2
                                      ORDER BY at LIMIT ?3))"
        ))?
        .execute(params![series, before, DELETE_ROWS])?;
    Ok(deleted > 0)
}

/// The same for spans of a sensor ahead of `now_ms`, Unix ms.
fn delete_spans_ahead(
    transaction: &Transaction<'_>,
    tier: Tier,
    sensor: i64,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let table = READINGS.rolled(tier);
    let deleted = transaction
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE sensor = ?1 AND at > ?2 AND at <= (
                 SELECT max(at) FROM (SELECT at FROM {table} WHERE sensor = ?1 AND at > ?2
                                      ORDER BY at LIMIT ?3))"
        ))?
        .execute(params![sensor, now_ms.saturating_add(AHEAD_MS), DELETE_ROWS])?;
    Ok(deleted > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reading::ClockState;
    use crate::store::{Record, Store};
    use crate::wire::Telemetry;

    const START_MS: i64 = 489_000 * HOUR_MS;
    const ROWS: i64 = 420;

    /// An acknowledgement may have to wait for one piece, however much there is to delete.
    #[test]
    fn a_piece_of_work_is_small_and_the_next_goes_on_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("humidor.db")).unwrap();
        let reading = |minute: i64| Record::Reading {
            node: "press".parse().unwrap(),
            sensor: "hall".parse().unwrap(),
            telemetry: Telemetry {
                boot: "b".parse().unwrap(),
                seq: minute.cast_unsigned(),
                at: START_MS + minute * 60_000,
                clock: ClockState::Synced,
                mono: 0,
                temperature: Some(20.0),
                humidity: None,
            },
        };
        let all: Vec<Record> = (0..ROWS).map(reading).collect();
        store.append(&all.iter().collect::<Vec<_>>()).unwrap();
        while store.move_arrived(Duration::from_millis(1)).unwrap() {}
        let transaction = store.connection.transaction().unwrap();
        let left = || -> i64 {
            transaction.query_row("SELECT count(*) FROM reading", [], |row| row.get(0)).unwrap()
        };
        let horizon = Horizon::from_hours(START_MS + 6 * HOUR_MS, [i64::MIN; 3]);
        let horizons = Horizons::of_all(horizon);
        let (mut cursor, mut before) = (Cursor::default(), ROWS);
        let present = Present { now_ms: START_MS, correction_ms: 0, in_doubt: false };
        let mut young = 0;
        let mut limits = Limits { horizons: &horizons, present, ahead: &[], young: &mut young };
        while !step(&transaction, &mut cursor, &mut limits, || false).unwrap() {
            assert!(before - left() <= 64, "{} rows in one piece", before - left());
            before = left();
        }
        assert_eq!(left(), ROWS - 6 * 60);
    }
}
