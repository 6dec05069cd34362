-- The mean of a span whose sum no double holds; the sum is null then. Both are null where an earlier version has stored a
-- sum that is no number: the mean of that span is not known.
ALTER TABLE sample_1m ADD COLUMN value_mean REAL;
ALTER TABLE sample_15m ADD COLUMN value_mean REAL;
ALTER TABLE sample_1h ADD COLUMN value_mean REAL;

DROP VIEW samples_1m;
DROP VIEW samples_15m;
DROP VIEW samples_1h;

CREATE VIEW samples_1m (topic, field, at, count, min, mean, max) AS
SELECT topic, field, at, count, value_min,
       coalesce(value_mean, iif(abs(value_sum) < 9e999, value_sum / value_count, NULL)), value_max
FROM sample_1m AS span JOIN source ON source.id = span.source;

CREATE VIEW samples_15m (topic, field, at, count, min, mean, max) AS
SELECT topic, field, at, count, value_min,
       coalesce(value_mean, iif(abs(value_sum) < 9e999, value_sum / value_count, NULL)), value_max
FROM sample_15m AS span JOIN source ON source.id = span.source;

CREATE VIEW samples_1h (topic, field, at, count, min, mean, max) AS
SELECT topic, field, at, count, value_min,
       coalesce(value_mean, iif(abs(value_sum) < 9e999, value_sum / value_count, NULL)), value_max
FROM sample_1h AS span JOIN source ON source.id = span.source;

-- Sources whose quarters before `before` may still have an infinite sum.
CREATE TABLE mend (
    source INTEGER PRIMARY KEY,
    before INTEGER NOT NULL
) STRICT;

INSERT INTO mend SELECT id, 9223372036854775807 FROM source;

-- Quarters of an hour whose roll-ups could not be computed, and why: `family` and `series` as in table `dirty`.
CREATE TABLE set_aside (
    family INTEGER NOT NULL,
    series INTEGER NOT NULL,
    at INTEGER NOT NULL,
    cause TEXT NOT NULL,
    PRIMARY KEY (family, series, at)
) STRICT, WITHOUT ROWID;

-- The highest number of each sensor's newest runs in table `reading`.
CREATE TABLE newest (
    sensor INTEGER NOT NULL,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (sensor, run)
) STRICT, WITHOUT ROWID;

INSERT INTO newest
SELECT sensor.id, reading.run, reading.seq FROM sensor CROSS JOIN reading
ON (reading.run, reading.seq) = (
    SELECT run, seq FROM reading WHERE reading.sensor = sensor.id ORDER BY at DESC, run DESC, seq DESC LIMIT 1);

-- Readings whose time is ahead of the broker's clock. `arrived` is when that was seen, in log time.
CREATE TABLE ahead (
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    arrived INTEGER NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

-- Log time in ms, which no step of the clock touches, one row. It is `base` plus the time since the kernel's start `boot`.
-- `correction` more is Unix time. It was `latest` or later when the row was written, and `is_set` says whether the clock was
-- set then.
CREATE TABLE timeline (
    boot TEXT NOT NULL,
    base INTEGER NOT NULL,
    correction INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    is_set INTEGER NOT NULL
) STRICT;

-- Samples `first` to `last` whose times are not sure: they came before the clock was set, or at a time whose rows are not
-- kept. Their `at` is log time plus `correction`, and is corrected with it; null: not any more. It was `shift` less at
-- first. `rolled` 0: they are in no roll-up. They came from `begun` to `arrived`, log time.
CREATE TABLE early (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    correction INTEGER,
    shift INTEGER NOT NULL,
    rolled INTEGER NOT NULL,
    arrived INTEGER NOT NULL,
    begun INTEGER NOT NULL
) STRICT;
