-- What is to be forwarded to the upstream database, in the order of its commits. A row has the operations of one commit,
-- at most about a thousand: those after the row before it, up to number `position`. `bytes` counts the bytes of all rows
-- up to this one, `at` is when it was committed, log time in ms, and `mark` is a random number, which tells this log from
-- an older copy of it. Empty without an upstream database. The newest row is never deleted, so no number is given twice.
CREATE TABLE forward (
    position INTEGER PRIMARY KEY,
    operations INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    at INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    batch BLOB NOT NULL
) STRICT;

-- One row in a log that has ever been forwarded. `log` is its name upstream, a UUID. `again` counts the requests to send
-- the stored readings once more, the latest of which is for those from `again_from` on, Unix ms. `paused` 1: readings were
-- committed without being queued.
CREATE TABLE upstream (
    log TEXT NOT NULL,
    again INTEGER NOT NULL,
    again_from INTEGER NOT NULL,
    paused INTEGER NOT NULL
) STRICT;
