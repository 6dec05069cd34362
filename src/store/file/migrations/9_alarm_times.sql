-- Changes of alarms from before the broker's clock was set: `at` is log time plus `correction`, and is corrected with it;
-- null: not any more. `at_original` is what it was at first, where it was corrected.
ALTER TABLE alarm ADD COLUMN correction INTEGER;
ALTER TABLE alarm ADD COLUMN at_original INTEGER;

CREATE INDEX alarm_to_correct ON alarm (id) WHERE correction IS NOT NULL;
