-- Series of which less is kept than table `kept` says, since they fill the log: `family` and `series` as in table `dirty`.
-- Roll-ups before `closed` are not computed from rows any more; a row that comes later is added to them.
CREATE TABLE kept_of (
    family INTEGER NOT NULL,
    series INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    minutes INTEGER NOT NULL,
    quarters INTEGER NOT NULL,
    hours INTEGER NOT NULL,
    PRIMARY KEY (family, series)
) STRICT, WITHOUT ROWID;

-- As before, with the horizon of the series where it has one.
DROP VIEW arrived;
CREATE VIEW arrived (id, run, seq, sensor, at, clock, mono, temperature, humidity, at_original, is_kept) AS
SELECT id, run, seq, sensor, at,
       CASE WHEN awaits AND at < max(kept.rows, coalesce(own.closed, kept.rows)) THEN 3 ELSE clock END,
       mono, temperature, humidity, at_original,
       at >= max(kept.rows, coalesce(own.rows, kept.rows)) OR awaits
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
) CROSS JOIN kept LEFT JOIN kept_of AS own ON own.family = 0 AND own.series = sensor;
