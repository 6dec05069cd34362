-- Readings of all halls. `at` is Unix ms UTC, corrected where `clock` is 2; `at_original` is then what the node had stamped.
-- `clock`: 0 unsynced, 1 synced, 2 restamped. `mono` is ms since the start of the node's run `boot`. `via` is the log that
-- sent the reading first.
CREATE TABLE humidor.reading (
    node text NOT NULL,
    boot text NOT NULL,
    seq bigint NOT NULL,
    sensor text NOT NULL,
    at bigint NOT NULL,
    clock smallint NOT NULL,
    mono bigint NOT NULL,
    temperature double precision,
    humidity double precision,
    at_original bigint,
    via uuid NOT NULL,
    PRIMARY KEY (node, boot, seq)
);
CREATE INDEX reading_by_time ON humidor.reading (node, sensor, at);

-- Runs whose clock was set later: readings before `synced_seq` are corrected to `mono` + `offset_ms`.
CREATE TABLE humidor.run (
    node text NOT NULL,
    boot text NOT NULL,
    offset_ms bigint NOT NULL,
    synced_seq bigint NOT NULL,
    PRIMARY KEY (node, boot)
);

-- Numbers of other publishers, by the log that took them and their number in its queue. `clock` 0: the broker's clock was
-- not set.
CREATE TABLE humidor.sample (
    log uuid NOT NULL,
    position bigint NOT NULL,
    topic text NOT NULL,
    field text NOT NULL,
    at bigint NOT NULL,
    clock smallint NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (log, position)
);
CREATE INDEX sample_by_time ON humidor.sample (topic, field, at);

CREATE TABLE humidor.alarm (
    log uuid NOT NULL,
    position bigint NOT NULL,
    name text NOT NULL,
    at bigint NOT NULL,
    raised boolean NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (log, position)
);

-- What a table would not take, and why.
CREATE TABLE humidor.refused (
    log uuid NOT NULL,
    position bigint NOT NULL,
    content text NOT NULL,
    cause text NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX refused_once ON humidor.refused (log, position, md5(content));

-- How far each log is: operations up to `upto`, whose row in the log's queue has `mark`, are here. It moves in the
-- transaction of the rows. `session` is the connection that may move it. `fill_…`: stored readings are being sent again.
CREATE TABLE humidor.upstream_cursor (
    log uuid PRIMARY KEY,
    upto bigint NOT NULL,
    mark bigint NOT NULL,
    again bigint NOT NULL,
    session bigint NOT NULL,
    name text NOT NULL,
    moved_at timestamptz NOT NULL,
    fill_to bigint,
    fill_again bigint,
    fill_from bigint,
    fill_run bigint,
    fill_seq bigint
);

CREATE VIEW humidor.readings AS
SELECT node, sensor, boot, seq, at,
       CASE clock WHEN 1 THEN 'synced' WHEN 2 THEN 'restamped' ELSE 'unsynced' END AS clock,
       temperature, humidity
FROM humidor.reading;

CREATE VIEW humidor.samples AS SELECT topic, field, at, value FROM humidor.sample;

CREATE VIEW humidor.alarms AS
SELECT name, at, CASE WHEN raised THEN 'ON' ELSE 'OFF' END AS state, detail FROM humidor.alarm;
