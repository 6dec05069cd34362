-- Messages that wait for several sessions, each stored once. A row of `queued` has its message itself, or the number of one
-- here, which goes with the last of these rows. `size` is what the message takes, in bytes.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    size INTEGER NOT NULL,
    expires_at INTEGER,
    topic TEXT NOT NULL,
    publisher TEXT NOT NULL,
    properties BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;

ALTER TABLE queued ADD COLUMN message INTEGER;
CREATE INDEX queued_by_message ON queued (message) WHERE message IS NOT NULL;
