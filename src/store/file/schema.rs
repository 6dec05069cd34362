//! The log's schema, one script a version. A script that has been released is never changed.

use crate::store::file::open::Database;
use crate::store::file::rollup_tables::V4;

/// How a stored time came about, as `reading.clock` keeps it.
pub const CLOCK_UNSYNCED: i64 = 0;
/// The node's clock was set.
pub const CLOCK_SYNCED: i64 = 1;
/// Taken before the clock was set, and corrected later from the run's offset.
pub const CLOCK_RESTAMPED: i64 = 2;

/// Taken before the clock was set, in a time of which single rows are no longer kept: it waits for its
/// corrected time, and is in no roll-up. The view says `unsynced`.
pub const CLOCK_AWAITING: i64 = 3;

/// The log of the broker: `application_id` is `hmdr` in ASCII.
pub const LOG: Database = Database { application_id: 0x686d_6472, migrations: &[V1, V2, V3, V4] };

// `reading` has no rowid: its key *is* the idempotency key (run, seq), so that a repeat costs one
// look-up and the table needs no second index to refuse it. Names are interned: a row is about 40
// bytes instead of 120, which is what an SD card wears by.
const V1: &str = "
CREATE TABLE node (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE sensor (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL REFERENCES node (id),
    name TEXT NOT NULL,
    UNIQUE (node, name)
) STRICT;

-- One run of one node. `offset_ms` is Unix ms minus the run's monotonic ms, known from the first
-- reading after the clock was set; that reading's seq is `synced_seq`. `restamp_from` is the seq from
-- which earlier readings still wait for their corrected time; null when none does.
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL REFERENCES node (id),
    boot TEXT NOT NULL,
    offset_ms INTEGER,
    synced_seq INTEGER,
    restamp_from INTEGER,
    UNIQUE (node, boot)
) STRICT;

CREATE TABLE reading (
    run INTEGER NOT NULL REFERENCES run (id),
    seq INTEGER NOT NULL,
    sensor INTEGER NOT NULL REFERENCES sensor (id),
    at INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    mono INTEGER NOT NULL,
    temperature REAL,
    humidity REAL,
    at_original INTEGER,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX reading_by_time ON reading (sensor, at);

CREATE VIEW readings (node, sensor, boot, seq, at, clock, temperature, humidity) AS
SELECT node.name, sensor.name, run.boot, reading.seq, reading.at,
       CASE reading.clock WHEN 0 THEN 'unsynced' WHEN 1 THEN 'synced' ELSE 'restamped' END,
       reading.temperature, reading.humidity
FROM reading
JOIN run ON run.id = reading.run
JOIN node ON node.id = run.node
JOIN sensor ON sensor.id = reading.sensor;

-- What other publishers sent on logged filters.
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    field TEXT NOT NULL,
    UNIQUE (topic, field)
) STRICT;

CREATE TABLE sample (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES source (id),
    at INTEGER NOT NULL,
    value REAL NOT NULL
) STRICT;

CREATE INDEX sample_by_time ON sample (source, at);

CREATE VIEW samples (topic, field, at, value) AS
SELECT source.topic, source.field, sample.at, sample.value
FROM sample JOIN source ON source.id = sample.source;

-- What was acknowledged but is no reading: how often, and the latest example.
CREATE TABLE refusal (
    cause TEXT NOT NULL,
    topic TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    example BLOB NOT NULL,
    PRIMARY KEY (cause, topic)
) STRICT, WITHOUT ROWID;
";

// What MQTT asks a server to keep, over a restart too. `session.expiry_s` is 4294967295 when the session has no
// end; `left_at` is null while its client is connected. In `queued`, `payload` is null when the client has the
// message and only its PUBREL is left to say.
const V2: &str = "
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    expiry_s INTEGER NOT NULL,
    left_at INTEGER
) STRICT;

CREATE TABLE subscription (
    session INTEGER NOT NULL REFERENCES session (id),
    filter TEXT NOT NULL,
    qos INTEGER NOT NULL,
    no_local INTEGER NOT NULL,
    as_published INTEGER NOT NULL,
    identifier INTEGER NOT NULL,
    PRIMARY KEY (session, filter)
) STRICT, WITHOUT ROWID;

CREATE TABLE queued (
    session INTEGER NOT NULL REFERENCES session (id),
    number INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    identifiers BLOB NOT NULL,
    topic TEXT,
    payload BLOB,
    properties BLOB,
    publisher TEXT NOT NULL,
    expires_at INTEGER,
    size INTEGER NOT NULL,
    PRIMARY KEY (session, number)
) STRICT;

CREATE TABLE received (
    session INTEGER NOT NULL REFERENCES session (id),
    packet_id INTEGER NOT NULL,
    PRIMARY KEY (session, packet_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    qos INTEGER NOT NULL,
    payload BLOB NOT NULL,
    properties BLOB NOT NULL,
    publisher TEXT NOT NULL,
    expires_at INTEGER
) STRICT;

CREATE INDEX retained_by_expiry ON retained (expires_at) WHERE expires_at IS NOT NULL;
";

// When alarms were raised and cleared.
const V3: &str = "
CREATE TABLE alarm (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    raised INTEGER NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE INDEX alarm_by_name ON alarm (name, id);

CREATE VIEW alarms (name, at, state, detail) AS
SELECT name, at, CASE raised WHEN 0 THEN 'OFF' ELSE 'ON' END, detail FROM alarm;
";

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a over the script without the blank space around it.
    fn fingerprint(script: &str) -> u64 {
        script.trim().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    #[test]
    fn a_released_script_is_never_changed() {
        let found: Vec<String> =
            LOG.migrations.iter().map(|script| format!("{:016x}", fingerprint(script))).collect();
        assert_eq!(
            found,
            ["8835881ff49f3dbd", "4e95994fedf2e44b", "7131e2453c69fb77", "9dc0f4f9238c7528"]
        );
    }
}
