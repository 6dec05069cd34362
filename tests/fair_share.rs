//! A series that fills the log gives up its own data, and others keep theirs: single rows and roll-ups.

#[path = "support/killable_log.rs"]
mod killable_log;

use humidor::reading::{ClockState, Id};
use humidor::store::{Range, Record, Retention, SeriesName, SeriesQuery};
use humidor::wire::Telemetry;
use killable_log::KillableLog;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const START_MS: i64 = 20_370 * DAY_MS;
/// When the flood begins: the quiet board has readings of a week.
const FLOOD_MS: i64 = START_MS + 7 * DAY_MS;
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// How far the file may pass its limit: a commit, and what is placed before it goes.
const PASSED_BYTES: u64 = 1024 * 1024;
/// One reading in five minutes.
const QUIET_ROWS: i64 = 2_000;
const QUIET_EVERY_MS: i64 = 300_000;
/// Records of a commit.
const COMMIT: i64 = 2_500;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

fn stamped(node: &str, seq: i64, at: i64, clock: ClockState, mono: i64) -> Record {
    let telemetry = Telemetry {
        boot: id("b"),
        seq: seq.cast_unsigned(),
        at,
        clock,
        mono: mono.cast_unsigned(),
        temperature: Some(20.1),
        humidity: Some(50.1),
    };
    Record::Reading { node: id(node), sensor: id("air"), telemetry }
}

fn reading(node: &str, seq: i64, at: i64) -> Record {
    stamped(node, seq, at, ClockState::Synced, (at - START_MS).max(0))
}

/// `count` readings of a node from `seq` on, one in `every` ms.
fn stretch(node: &str, seq: i64, count: i64, from: i64, every: i64) -> Vec<Record> {
    (0..count).map(|n| reading(node, seq + n, from + n * every)).collect()
}

/// A log with a quiet board's week in it.
struct Hall {
    log: KillableLog,
    /// The largest that the file was, in bytes.
    largest: u64,
}

impl Hall {
    fn empty() -> Self {
        let log = KillableLog::new(Retention { keep_raw: None, max_bytes: MAX_BYTES });
        Self { log, largest: 0 }
    }

    fn new() -> Self {
        let mut hall = Self::empty();
        let mut week = stretch("quiet", 1, QUIET_ROWS, START_MS, QUIET_EVERY_MS);
        let series = SeriesName::Sensor { node: id("quiet"), sensor: id("air") };
        week.push(Record::Begun { series, owner: "plant".into() });
        hall.append(&week);
        hall.settle(FLOOD_MS);
        assert_eq!(hall.rows("quiet"), QUIET_ROWS);
        hall
    }

    fn append(&mut self, records: &[Record]) {
        self.log.append(records);
        self.measure();
    }

    /// Commits with the maintenance that the broker has time for in between: the next one waits while the log is over its
    /// limit and that can be changed.
    fn flood(&mut self, records: &[Record], now_ms: i64) {
        for commit in records.chunks(usize::try_from(COMMIT).unwrap()) {
            self.append(commit);
            let mut steps = 0;
            while self.log.store().maintain(now_ms).unwrap()
                && (steps < 200 || self.log.store().is_too_large())
            {
                steps += 1;
            }
        }
    }

    fn settle(&mut self, now_ms: i64) {
        while self.log.store().maintain(now_ms).unwrap() {}
        self.measure();
    }

    fn measure(&mut self) {
        let bytes = std::fs::metadata(self.log.path()).unwrap().len();
        self.largest = self.largest.max(bytes);
    }

    fn rows(&self, node: &str) -> i64 {
        self.log.number(&format!("SELECT count(*) FROM readings WHERE node = '{node}'"))
    }

    /// What a chart shows of a node in steps of an hour: rows that are gone count in it.
    fn drawn(&self, node: &str) -> i64 {
        let range = Range::new(START_MS, START_MS + 30 * DAY_MS, Some(HOUR_MS.cast_unsigned()));
        let query = SeriesQuery { node: id(node), sensor: id("air"), range: range.unwrap() };
        let series = self.log.read().series(&query).unwrap();
        series.points.iter().map(|point| point.count).sum()
    }

    /// The quiet board has everything, the file is within its limit, and the log is in order.
    fn check(&self) {
        self.check_others();
        assert!(self.largest <= MAX_BYTES + PASSED_BYTES, "{} bytes", self.largest);
        assert_eq!(self.log.read().gaps().unwrap(), [], "what was deleted is not missing");
    }

    /// The quiet board has everything, and the log is in order.
    fn check_others(&self) {
        assert_eq!(self.rows("quiet"), QUIET_ROWS, "single rows");
        let minutes = "SELECT sum(count) FROM readings_1m WHERE node = 'quiet'";
        assert_eq!(self.log.number(minutes), QUIET_ROWS);
        assert_eq!(self.drawn("quiet"), QUIET_ROWS);
        assert_eq!(self.log.read().check().unwrap(), Vec::<String>::new());
        assert_eq!(self.log.number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    }
}

#[test]
fn a_flood_of_days_takes_its_own_room() {
    const ROWS: i64 = 75_000;
    let mut hall = Hall::new();
    let flood = stretch("flood", 1, ROWS, FLOOD_MS, 4_000);
    for (n, part) in flood.chunks(7_500).enumerate() {
        hall.flood(part, FLOOD_MS + (i64::try_from(n).unwrap() + 1) * 30_000_000);
    }
    let now_ms = FLOOD_MS + ROWS * 4_000;
    hall.settle(now_ms);
    hall.check();
    let newest = hall.log.number("SELECT max(at) FROM readings WHERE node = 'flood'");
    assert_eq!(newest, now_ms - 4_000);
    let rows = hall.rows("flood");
    assert!((ROWS / 10..ROWS * 2 / 3).contains(&rows), "{rows} rows");
    assert_eq!(hall.drawn("flood"), ROWS, "the others are in the roll-ups");
    let again = hall.log.store().append(&[&flood[0], &flood[74_999]]).unwrap();
    assert_eq!((again.readings, again.repeats), (0, 2));
    assert_eq!(hall.log.store().take_young_deleted(), 0);
}

#[test]
fn a_flood_within_minutes_takes_its_own_room_and_the_file_stays_within_its_limit() {
    const COMMITS: i64 = 40;
    let (mut hall, mut young) = (Hall::new(), 0);
    for n in 0..COMMITS {
        let from = FLOOD_MS + n * 10_000;
        hall.flood(&stretch("flood", 1 + n * COMMIT, COMMIT, from, 4), from + 10_000);
        young += hall.log.store().take_young_deleted();
        if n % 10 == 7 {
            hall.log.reopen();
        }
    }
    hall.settle(FLOOD_MS + 400_000);
    hall.check();
    let newest = hall.log.number("SELECT max(at) FROM readings WHERE node = 'flood'");
    assert_eq!(newest, FLOOD_MS + 399_996);
    assert_eq!(hall.drawn("flood"), COMMITS * COMMIT);
    assert!(young > 10_000, "and that is told: {young}");
    // A day later it is a board as any other.
    let later = FLOOD_MS + DAY_MS;
    hall.flood(&stretch("flood", 1 + COMMITS * COMMIT, 60, later, 60_000), later + HOUR_MS);
    hall.settle(later + 2 * HOUR_MS);
    hall.check();
    assert_eq!(hall.drawn("flood"), COMMITS * COMMIT + 60);
    let minutes = format!(
        "SELECT count(*) FROM readings_1m WHERE node = 'flood' AND count = 1 AND at >= {later}"
    );
    assert_eq!(hall.log.number(&minutes), 60);
}

#[test]
fn a_foreign_topic_that_floods_takes_its_own_room() {
    const COMMITS: i64 = 60;
    let mut hall = Hall::new();
    let sample = |topic: &str, at_ms: i64| {
        let numbers = vec![(String::new(), 20.1)].into();
        Record::Foreign { topic: topic.to_owned(), at_ms, numbers }
    };
    let still: Vec<_> =
        (0..500).map(|n| sample("plant/still", START_MS + n * HOUR_MS / 4)).collect();
    hall.flood(&still, FLOOD_MS);
    for n in 0..COMMITS {
        let from = FLOOD_MS + n * 10_000;
        let noise: Vec<_> = (0..COMMIT).map(|n| sample("plant/noise", from + n * 4)).collect();
        hall.flood(&noise, from + 10_000);
    }
    hall.settle(FLOOD_MS + 2 * HOUR_MS);
    hall.check();
    let rows = |topic: &str| {
        let sql = format!("SELECT count(*) FROM samples WHERE topic = 'plant/{topic}'");
        let hours = format!("SELECT sum(count) FROM samples_1h WHERE topic = 'plant/{topic}'");
        (hall.log.number(&sql), hall.log.number(&hours))
    };
    assert_eq!(rows("still"), (500, 500));
    let (noise, counted) = rows("noise");
    assert!(noise < COMMITS * COMMIT / 2, "{noise}");
    assert_eq!(counted, COMMITS * COMMIT);
}

#[test]
fn the_many_names_of_one_user_are_one_share() {
    const NODES: i64 = 400;
    let mut hall = Hall::new();
    for n in 0..150 {
        let at = FLOOD_MS + n * 1_000;
        let of = |node: i64| reading(&format!("n{node}"), n + 1, at);
        let mut records: Vec<Record> = (0..NODES).map(of).collect();
        if n == 0 {
            records.extend((0..NODES).map(|node| {
                let (node, sensor) = (id(&format!("n{node}")), id("air"));
                Record::Begun { series: SeriesName::Sensor { node, sensor }, owner: "other".into() }
            }));
        }
        hall.flood(&records, at + 1_000);
    }
    // Until all is moved and rolled up.
    hall.settle(FLOOD_MS + 2 * HOUR_MS);
    hall.check();
    let counted = "SELECT sum(count) FROM readings_1h WHERE node <> 'quiet'";
    assert_eq!(hall.log.number(counted), NODES * 150);
    let rows = hall.log.number("SELECT count(*) FROM readings WHERE node <> 'quiet'");
    assert!(rows < NODES * 100, "{rows}");
}

#[test]
fn boards_that_have_as_much_give_as_much() {
    const BOARDS: i64 = 20;
    const EVERY_MS: i64 = 10_000;
    let mut hall = Hall::empty();
    for n in 0..4_000 / 100 {
        let mut records = Vec::new();
        for board in 0..BOARDS {
            let from = START_MS + n * 100 * EVERY_MS;
            records.extend(stretch(&format!("b{board}"), 1 + n * 100, 100, from, EVERY_MS));
        }
        hall.flood(&records, START_MS + (n + 1) * 100 * EVERY_MS);
    }
    hall.settle(START_MS + 4_000 * EVERY_MS);
    let rows: Vec<i64> = (0..BOARDS).map(|board| hall.rows(&format!("b{board}"))).collect();
    assert!(rows[0] < 3_500 && rows.iter().all(|of| *of == rows[0]), "{rows:?}");
    assert_eq!(hall.log.number("SELECT count(*) FROM kept_of"), 0, "one horizon is enough");
    assert!(hall.largest <= MAX_BYTES + PASSED_BYTES, "{} bytes", hall.largest);
}

/// A board that never knows the time, and one that is far ahead of it, go by the arrival of their readings.
#[test]
fn a_flood_without_a_right_clock_takes_its_own_room() {
    for (clock, first) in [(ClockState::Unsynced, 0), (ClockState::Synced, FLOOD_MS + 90 * DAY_MS)]
    {
        let mut hall = Hall::new();
        for n in 0..30 {
            let from = n * COMMIT * 4;
            let mono = |k: i64| from + k * 4;
            let commit: Vec<_> = (0..COMMIT)
                .map(|k| stamped("flood", 1 + n * COMMIT + k, first + mono(k), clock, mono(k)))
                .collect();
            hall.flood(&commit, FLOOD_MS + from + 10_000);
        }
        hall.settle(FLOOD_MS + 30 * 10_000);
        hall.check();
        let rows = hall.rows("flood");
        assert!((1..60_000).contains(&rows), "{rows} of {clock:?}");
    }
}

/// Its roll-ups, one of each tier for a reading, are ahead of every horizon. Those of a full log are made at once before their
/// rows go, and take more room than those for a while.
#[test]
fn a_flood_from_the_future_takes_its_own_room() {
    let mut hall = Hall::new();
    for commit in 0..20 {
        let from = commit * COMMIT;
        let at = |n: i64| FLOOD_MS + DAY_MS + n * HOUR_MS;
        let records: Vec<_> = (from..from + COMMIT)
            .map(|n| stamped("flood", 1 + n, at(n), ClockState::Synced, n * 4))
            .collect();
        hall.flood(&records, FLOOD_MS + (commit + 1) * 10_000);
    }
    hall.settle(FLOOD_MS + 20 * 10_000);
    hall.check_others();
    let pages = "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count";
    let used = hall.log.number(pages).cast_unsigned() * 4096;
    assert!(used <= MAX_BYTES, "{used} bytes");
}

/// The numbers of deleted readings stay when those go, one range for each hole.
#[test]
fn a_flood_with_a_hole_after_each_number_takes_its_own_room() {
    let mut hall = Hall::new();
    for commit in 0..40 {
        let from = commit * COMMIT;
        let records: Vec<_> = (from..from + COMMIT)
            .map(|n| stamped("flood", 1 + 2 * n, FLOOD_MS + n * 4, ClockState::Synced, n * 4))
            .collect();
        hall.flood(&records, FLOOD_MS + (commit + 1) * 10_000);
    }
    hall.settle(FLOOD_MS + 40 * 10_000);
    hall.check_others();
    let ranges = hall.log.number("SELECT count(*) FROM pruned");
    assert!(ranges < 3 * COMMIT, "{ranges} ranges");
    assert!(hall.largest <= MAX_BYTES + PASSED_BYTES, "{} bytes", hall.largest);
}

/// A board that begins a run for each reading.
#[test]
fn a_flood_of_runs_takes_its_own_room() {
    let mut hall = Hall::new();
    for commit in 0..24 {
        let from = commit * COMMIT;
        let mut records: Vec<_> = (from..from + COMMIT)
            .map(|n| stamped("flood", 1, FLOOD_MS + n * 4, ClockState::Synced, n * 4))
            .collect();
        for (record, n) in records.iter_mut().zip(from..) {
            if let Record::Reading { telemetry, .. } = record {
                telemetry.boot = id(&format!("b{n}"));
            }
        }
        hall.flood(&records, FLOOD_MS + (commit + 1) * 10_000);
    }
    hall.settle(FLOOD_MS + 24 * 10_000);
    hall.check();
}

#[test]
fn a_kill_amid_the_deletion_leaves_no_half_state() {
    let mut hall = Hall::new();
    let (mut seq, mut now_ms) = (1, FLOOD_MS);
    for round in 0..24 {
        let flood = stretch("flood", seq, COMMIT, now_ms, 4);
        seq += COMMIT;
        now_ms += 10_000;
        hall.append(&flood);
        // The kill comes at another step each time.
        for _ in 0..round * 13 % 160 {
            if !hall.log.store().maintain(now_ms).unwrap() {
                break;
            }
        }
        hall.log.kill();
        let deleted = "SELECT coalesce(sum(last - first + 1), 0) FROM pruned";
        assert_eq!(hall.rows("flood") + hall.log.number(deleted), seq - 1);
        if round % 4 == 3 {
            hall.settle(now_ms);
        }
    }
    hall.settle(now_ms);
    assert_eq!(hall.drawn("flood"), seq - 1);
    // While it is killed on and on, nothing waits until there is room.
    hall.largest = 0;
    hall.measure();
    hall.check();
}
