-- Ids that are known: of stored events, of delayed ones (seq is NULL), and of finished ones, which have no other row.
CREATE TABLE bus_id (
    id TEXT PRIMARY KEY,
    seq INTEGER,
    finished INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO bus_id (id, seq, finished) SELECT id, seq, outstanding = 0 AND kept = 0 FROM bus_event;
CREATE INDEX bus_id_finished ON bus_id (seq) WHERE finished = 1;

-- Stored events. One that no group needs (any more) stays whole as history until newer ones take its place; an id may have
-- several rows, of which all but one are copies. SQLite cannot drop a constraint, so the table is made anew.
DROP INDEX bus_event_kept;
DROP INDEX bus_event_finished;
ALTER TABLE bus_event RENAME TO bus_event_before;
CREATE TABLE bus_event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    correlation TEXT NOT NULL,
    traceparent TEXT,
    priority INTEGER NOT NULL,    -- 1: by the priority lane
    outstanding INTEGER NOT NULL, -- groups that have not acknowledged it
    wanted INTEGER NOT NULL,      -- 1: some group ever wanted it
    copy INTEGER NOT NULL,        -- 1: a dead letter back at work for one group; it leaves with that group's acknowledgement
    data BLOB NOT NULL
);
INSERT INTO bus_event (seq, id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, priority,
    outstanding, wanted, copy, data)
SELECT seq, id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, 0, outstanding, outstanding > 0,
    0, data
FROM bus_event_before WHERE outstanding > 0 OR kept = 1;
-- No place is given twice, also if the newest events are gone.
DELETE FROM sqlite_sequence WHERE name = 'bus_event';
INSERT INTO sqlite_sequence (name, seq) SELECT 'bus_event', seq FROM sqlite_sequence WHERE name = 'bus_event_before';
DROP TABLE bus_event_before;
CREATE INDEX bus_event_history ON bus_event (seq) WHERE outstanding = 0;

-- Events that wait for their time.
CREATE TABLE bus_delayed (
    delay_id INTEGER PRIMARY KEY, -- the order of the delays
    until_ns INTEGER NOT NULL,    -- wall clock, ns
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    correlation TEXT NOT NULL,
    traceparent TEXT,
    priority INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX bus_delayed_until ON bus_delayed (until_ns);

ALTER TABLE bus_group ADD COLUMN dead INTEGER NOT NULL DEFAULT 0; -- rows of bus_dead
UPDATE bus_group SET dead = (SELECT count(*) FROM bus_dead WHERE bus_dead.group_id = bus_group.group_id);

ALTER TABLE bus_delivery ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bus_delivery ADD COLUMN aside INTEGER NOT NULL DEFAULT 0; -- 1: its key does not wait for it; then head is 1 as well
-- When its wait or claim ends.
ALTER TABLE bus_delivery ADD COLUMN free_at INTEGER AS
    (CASE WHEN incarnation IS NULL THEN next_at ELSE max(next_at, locked_until) END) VIRTUAL;
DROP INDEX bus_delivery_lane;
DROP INDEX bus_delivery_head;
CREATE INDEX bus_delivery_lane ON bus_delivery (group_id, priority, key, seq) WHERE aside = 0;
CREATE INDEX bus_delivery_head ON bus_delivery (group_id, priority, seq) WHERE head = 1;
-- For when to look again. Most events are neither lent nor waiting, and not in it.
CREATE INDEX bus_delivery_wait ON bus_delivery (group_id, free_at) WHERE head = 1 AND free_at > 0;
-- For a consumer that comes back.
CREATE INDEX bus_delivery_lent ON bus_delivery (group_id, consumer) WHERE consumer IS NOT NULL;

ALTER TABLE bus_dead ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

-- How many events are history, and how many are delayed.
UPDATE bus_meta SET name = 'history' WHERE name = 'kept';
INSERT INTO bus_meta (name, value) VALUES ('delayed', 0);
