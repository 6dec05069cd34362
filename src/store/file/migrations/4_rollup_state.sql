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

