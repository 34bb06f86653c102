-- Stored events. A finished one (outstanding = 0, kept = 0) has lost its data and stays for its id alone.
CREATE TABLE bus_event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    correlation TEXT NOT NULL,
    traceparent TEXT,
    outstanding INTEGER NOT NULL, -- groups that have not acknowledged it
    kept INTEGER NOT NULL,        -- 1: no group wanted it; it waits for one that begins with the earliest
    data BLOB NOT NULL
);
CREATE INDEX bus_event_kept ON bus_event (seq) WHERE kept = 1;
CREATE INDEX bus_event_finished ON bus_event (seq) WHERE outstanding = 0 AND kept = 0;

CREATE TABLE bus_group (
    group_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    pattern TEXT NOT NULL,
    pending INTEGER NOT NULL -- rows of bus_delivery
);

-- What a group has still to do.
CREATE TABLE bus_delivery (
    group_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    key TEXT NOT NULL,
    head INTEGER NOT NULL,      -- 1: the first of its key
    attempts INTEGER NOT NULL,
    next_at INTEGER NOT NULL,   -- wall clock, ns
    locked_until INTEGER NOT NULL, -- wall clock, ns; meaningless without an incarnation
    lease INTEGER NOT NULL,     -- ns
    consumer TEXT,
    incarnation TEXT,           -- who has it; none if nobody
    last_error TEXT NOT NULL,
    PRIMARY KEY (group_id, seq)
) WITHOUT ROWID;
CREATE INDEX bus_delivery_lane ON bus_delivery (group_id, key, seq);
CREATE INDEX bus_delivery_head ON bus_delivery (group_id, seq) WHERE head = 1;

CREATE TABLE bus_dead (
    group_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    error TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at INTEGER NOT NULL,
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    correlation TEXT NOT NULL,
    traceparent TEXT,
    data BLOB NOT NULL,
    PRIMARY KEY (group_id, seq)
);

CREATE TABLE bus_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO bus_meta VALUES ('kept', 0), ('probe', 0);
