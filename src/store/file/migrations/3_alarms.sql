CREATE TABLE alarm (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    raised INTEGER NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE INDEX alarm_by_name ON alarm (name, id);

CREATE VIEW alarms (name, at, state, detail) AS
SELECT name, at, CASE raised WHEN 0 THEN 'OFF' ELSE 'ON' END, detail FROM alarm;
