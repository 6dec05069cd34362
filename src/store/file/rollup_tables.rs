//! The fourth version of the log's schema: roll-ups and retention.

/// A null sum, minimum and maximum say that no row of the span had the value.
pub(in crate::store) const V4: &str = "
CREATE TABLE reading_1m (
    sensor INTEGER NOT NULL REFERENCES sensor (id),
    at INTEGER NOT NULL,
    count INTEGER NOT NULL,
    temperature_count INTEGER NOT NULL,
    temperature_sum REAL,
    temperature_min REAL,
    temperature_max REAL,
    humidity_count INTEGER NOT NULL,
    humidity_sum REAL,
    humidity_min REAL,
    humidity_max REAL,
    PRIMARY KEY (sensor, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE reading_15m (
    sensor INTEGER NOT NULL REFERENCES sensor (id),
    at INTEGER NOT NULL,
    count INTEGER NOT NULL,
    temperature_count INTEGER NOT NULL,
    temperature_sum REAL,
    temperature_min REAL,
    temperature_max REAL,
    humidity_count INTEGER NOT NULL,
    humidity_sum REAL,
    humidity_min REAL,
    humidity_max REAL,
    PRIMARY KEY (sensor, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE reading_1h (
    sensor INTEGER NOT NULL REFERENCES sensor (id),
    at INTEGER NOT NULL,
    count INTEGER NOT NULL,
    temperature_count INTEGER NOT NULL,
    temperature_sum REAL,
    temperature_min REAL,
    temperature_max REAL,
    humidity_count INTEGER NOT NULL,
    humidity_sum REAL,
    humidity_min REAL,
    humidity_max REAL,
    PRIMARY KEY (sensor, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE sample_1m (
    source INTEGER NOT NULL REFERENCES source (id),
    at INTEGER NOT NULL,
    count INTEGER NOT NULL,
    value_count INTEGER NOT NULL,
    value_sum REAL,
    value_min REAL,
    value_max REAL,
    PRIMARY KEY (source, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE sample_15m (
    source INTEGER NOT NULL REFERENCES source (id),
    at INTEGER NOT NULL,
    count INTEGER NOT NULL,
    value_count INTEGER NOT NULL,
    value_sum REAL,
    value_min REAL,
    value_max REAL,
    PRIMARY KEY (source, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE sample_1h (
    source INTEGER NOT NULL REFERENCES source (id),
    at INTEGER NOT NULL,
    count INTEGER NOT NULL,
    value_count INTEGER NOT NULL,
    value_sum REAL,
    value_min REAL,
    value_max REAL,
    PRIMARY KEY (source, at)
) STRICT, WITHOUT ROWID;

-- Quarters of an hour whose roll-ups are to be computed afresh. `family` 0: readings, `series` a sensor;
-- 1: samples, `series` a source.
CREATE TABLE dirty (
    family INTEGER NOT NULL,
    series INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (family, series, at)
) STRICT, WITHOUT ROWID;

-- Series with rows from before there were roll-ups: hours before `before` are still to be rolled up, the
-- newest first.
CREATE TABLE backlog (
    family INTEGER NOT NULL,
    series INTEGER NOT NULL,
    before INTEGER NOT NULL,
    PRIMARY KEY (family, series)
) STRICT, WITHOUT ROWID;

INSERT INTO backlog SELECT 0, id, 9223372036854775807 FROM sensor;
INSERT INTO backlog SELECT 1, id, 9223372036854775807 FROM source;

-- From when on single rows and roll-ups are kept, one row.
CREATE TABLE kept (
    rows INTEGER NOT NULL,
    minutes INTEGER NOT NULL,
    quarters INTEGER NOT NULL,
    hours INTEGER NOT NULL
) STRICT;

INSERT INTO kept VALUES (-9223372036854775808, -9223372036854775808, -9223372036854775808, -9223372036854775808);

-- Numbers of readings that retention deleted.
CREATE TABLE pruned (
    run INTEGER NOT NULL REFERENCES run (id),
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (run, first)
) STRICT, WITHOUT ROWID;

-- Runs with readings that wait for their corrected time though single rows of their time are given up.
-- `booted_by` is when the run began at the latest, by the broker's clock in Unix ms.
CREATE TABLE parked (
    run INTEGER PRIMARY KEY REFERENCES run (id),
    booted_by INTEGER
) STRICT;

DROP VIEW readings;
CREATE VIEW readings (node, sensor, boot, seq, at, clock, temperature, humidity) AS
SELECT node.name, sensor.name, run.boot, reading.seq, reading.at,
       CASE reading.clock WHEN 1 THEN 'synced' WHEN 2 THEN 'restamped' ELSE 'unsynced' END,
       reading.temperature, reading.humidity
FROM reading
JOIN run ON run.id = reading.run
JOIN node ON node.id = run.node
JOIN sensor ON sensor.id = reading.sensor;

CREATE VIEW readings_1m (node, sensor, at, count, temperature_min, temperature_mean, temperature_max,
    humidity_min, humidity_mean, humidity_max) AS
SELECT node.name, sensor.name, at, count,
       temperature_min, temperature_sum / nullif(temperature_count, 0), temperature_max,
       humidity_min, humidity_sum / nullif(humidity_count, 0), humidity_max
FROM reading_1m AS span JOIN sensor ON sensor.id = span.sensor JOIN node ON node.id = sensor.node;

CREATE VIEW readings_15m (node, sensor, at, count, temperature_min, temperature_mean, temperature_max,
    humidity_min, humidity_mean, humidity_max) AS
SELECT node.name, sensor.name, at, count,
       temperature_min, temperature_sum / nullif(temperature_count, 0), temperature_max,
       humidity_min, humidity_sum / nullif(humidity_count, 0), humidity_max
FROM reading_15m AS span JOIN sensor ON sensor.id = span.sensor JOIN node ON node.id = sensor.node;

CREATE VIEW readings_1h (node, sensor, at, count, temperature_min, temperature_mean, temperature_max,
    humidity_min, humidity_mean, humidity_max) AS
SELECT node.name, sensor.name, at, count,
       temperature_min, temperature_sum / nullif(temperature_count, 0), temperature_max,
       humidity_min, humidity_sum / nullif(humidity_count, 0), humidity_max
FROM reading_1h AS span JOIN sensor ON sensor.id = span.sensor JOIN node ON node.id = sensor.node;

CREATE VIEW samples_1m (topic, field, at, count, min, mean, max) AS
SELECT topic, field, at, count, value_min, value_sum / value_count, value_max
FROM sample_1m AS span JOIN source ON source.id = span.source;

CREATE VIEW samples_15m (topic, field, at, count, min, mean, max) AS
SELECT topic, field, at, count, value_min, value_sum / value_count, value_max
FROM sample_15m AS span JOIN source ON source.id = span.source;

CREATE VIEW samples_1h (topic, field, at, count, min, mean, max) AS
SELECT topic, field, at, count, value_min, value_sum / value_count, value_max
FROM sample_1h AS span JOIN source ON source.id = span.source;
";
