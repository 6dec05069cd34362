-- The user whose client began a series, empty for clients without a login; null where it was begun before this was
-- noted.
ALTER TABLE sensor ADD COLUMN owner TEXT;
ALTER TABLE source ADD COLUMN owner TEXT;

-- Else each look for such a run is one at every run.
CREATE INDEX run_to_restamp ON run (restamp_from) WHERE restamp_from IS NOT NULL;

-- Nodes whose data is to be deleted. `cleared` 0: their retained messages and sessions are still there.
CREATE TABLE forgotten (
    node TEXT NOT NULL PRIMARY KEY,
    cleared INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
