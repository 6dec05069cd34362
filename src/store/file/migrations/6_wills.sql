CREATE TABLE will (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    properties BLOB NOT NULL,
    expiry_s INTEGER,
    delay_s INTEGER NOT NULL,
    silence_ms INTEGER NOT NULL,
    due_at INTEGER
) STRICT;

ALTER TABLE session ADD COLUMN sent INTEGER;
