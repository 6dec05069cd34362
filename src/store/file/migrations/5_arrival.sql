-- Readings in the order in which they arrived, as their node stamped them, until the maintenance moves them to
-- `reading`: a commit of many runs writes a few pages here and one page a run there. Ids have no holes and are never
-- given twice. `run` and `sensor` are checked when a row is moved.
CREATE TABLE arrival (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sensor INTEGER NOT NULL,
    at INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    mono INTEGER NOT NULL,
    temperature REAL,
    humidity REAL
) STRICT;

-- How far the move is, one row: rows up to id `moved` are in `reading`; of those up to `sealed`, which are moved in the
-- order of (run, seq), the ones up to (`run`, `seq`) are.
CREATE TABLE arrival_move (
    moved INTEGER NOT NULL,
    sealed INTEGER NOT NULL,
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;

INSERT INTO arrival_move VALUES (0, 0, -9223372036854775808, -9223372036854775808);

-- Rows that are still to be moved, as they will be in `reading`: with the corrected time where the run has one, and
-- `clock` 3 where the row will await it. `is_kept` 0: the row is older than single rows are kept, and will only be
-- counted in the roll-ups.
CREATE VIEW arrived (id, run, seq, sensor, at, clock, mono, temperature, humidity, at_original, is_kept) AS
SELECT id, run, seq, sensor, at,
       CASE WHEN awaits AND at < kept.rows THEN 3 ELSE clock END,
       mono, temperature, humidity, at_original,
       at >= kept.rows OR awaits
FROM (
    SELECT arrival.id AS id, arrival.run AS run, arrival.seq AS seq, arrival.sensor AS sensor,
           CASE WHEN arrival.clock = 0 AND arrival.seq < run.synced_seq
                THEN arrival.mono + run.offset_ms ELSE arrival.at END AS at,
           CASE WHEN arrival.clock = 0 AND arrival.seq < run.synced_seq THEN 2 ELSE arrival.clock END AS clock,
           arrival.clock = 0 AND run.synced_seq IS NULL AS awaits,
           arrival.mono AS mono, arrival.temperature AS temperature, arrival.humidity AS humidity,
           CASE WHEN arrival.clock = 0 AND arrival.seq < run.synced_seq THEN arrival.at END AS at_original
    FROM arrival_move CROSS JOIN arrival CROSS JOIN run ON run.id = arrival.run
    WHERE arrival.id > arrival_move.moved
      AND (arrival.id > arrival_move.sealed
           OR (arrival.run, arrival.seq) > (arrival_move.run, arrival_move.seq))
) CROSS JOIN kept;

-- Each half has its own joins, and both have columns of the same types, so that a query takes a WHERE and an ORDER BY
-- into both of them: else it would first copy the whole log.
DROP VIEW readings;
CREATE VIEW readings (node, sensor, boot, seq, at, clock, temperature, humidity) AS
SELECT node.name, sensor.name, run.boot, reading.seq, reading.at,
       CASE reading.clock WHEN 1 THEN 'synced' WHEN 2 THEN 'restamped' ELSE 'unsynced' END,
       reading.temperature, reading.humidity
FROM reading
JOIN run ON run.id = reading.run
JOIN node ON node.id = run.node
JOIN sensor ON sensor.id = reading.sensor
UNION ALL
SELECT node.name, sensor.name, run.boot, arrived.seq, CAST(arrived.at AS INTEGER),
       CASE arrived.clock WHEN 1 THEN 'synced' WHEN 2 THEN 'restamped' ELSE 'unsynced' END,
       arrived.temperature, arrived.humidity
FROM arrived
JOIN run ON run.id = arrived.run
JOIN node ON node.id = run.node
JOIN sensor ON sensor.id = arrived.sensor
WHERE arrived.is_kept;
