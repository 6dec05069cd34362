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
