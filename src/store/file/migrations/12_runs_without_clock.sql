-- Before the horizon rises, each sensor is asked whether its node has a run without a set clock. Without this, each of them
-- looks at all runs of the node: one that makes up runs and sensors would stop the writer for seconds.
CREATE INDEX run_without_clock ON run (node) WHERE synced_seq IS NULL;
