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
