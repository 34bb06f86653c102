-- One row a namespace. Whoever changes anything in a namespace locks its row first, so batches of one namespace happen one by one.
CREATE TABLE state_namespace (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    -- The newest version or position that was given; never given twice.
    last_number bigint NOT NULL DEFAULT 0,
    -- 0 keeps no changes; up to and with the floor they are not known; so many stand in state_change.
    changes_max int NOT NULL DEFAULT 0,
    changes_floor bigint NOT NULL DEFAULT 0,
    changes_kept int NOT NULL DEFAULT 0,
    -- No row of the namespace is doomed before; null if none is doomed at all. Spares every batch a look at three indexes.
    next_doomed int
) WITH (fillfactor = 20);

-- Cache keys (kind 0), records (1), windows (4: until, amount, until, amount, ...). One of counter, bytes and slots is not null; readers
-- check that, because the server would parse a CHECK anew for every statement.
-- doomed is state_doom(expires_ms), the 8-second stretch in which the row may be swept. It alone is indexed, not the exact time: a key
-- that is written again and again with the same time to live seldom moves in the index, and its update stays in its page (HOT). It
-- is written, not generated: that costs a tenth of a large batch.
CREATE TABLE state_entry (
    ns int NOT NULL,
    kind smallint NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    counter bigint,
    expires_ms bigint,
    doomed int,
    bytes bytea,
    slots bigint[],
    PRIMARY KEY (ns, kind, name)
) WITH (fillfactor = 85);
CREATE INDEX state_entry_doomed ON state_entry (ns, doomed) WHERE doomed IS NOT NULL;

-- A row stays for ever: its fence must never start anew.
CREATE TABLE state_lease (
    ns int NOT NULL,
    name text COLLATE "C" NOT NULL,
    fence bigint NOT NULL,
    holder text,
    expires_ms bigint NOT NULL,
    PRIMARY KEY (ns, name)
) WITH (fillfactor = 70);

CREATE TABLE state_outbox (
    ns int NOT NULL,
    name text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    order_key text NOT NULL,
    event_id text NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (ns, name, number)
);

CREATE TABLE state_inbox (
    ns int NOT NULL,
    consumer text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    expires_ms bigint,
    doomed int,
    PRIMARY KEY (ns, consumer, event_id)
);
CREATE INDEX state_inbox_doomed ON state_inbox (ns, doomed) WHERE doomed IS NOT NULL;

-- The values of a list stand at the places from oldest to newest, without a gap. An empty list has no row.
CREATE TABLE state_list (
    ns int NOT NULL,
    name text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    oldest bigint NOT NULL,
    newest bigint NOT NULL,
    expires_ms bigint,
    doomed int,
    PRIMARY KEY (ns, name)
) WITH (fillfactor = 70);
CREATE INDEX state_list_doomed ON state_list (ns, doomed) WHERE doomed IS NOT NULL;
CREATE TABLE state_list_value (
    list bigint NOT NULL,
    place bigint NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (list, place)
);

CREATE TABLE state_change (
    ns int NOT NULL,
    number bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint,
    expires_ms bigint,
    PRIMARY KEY (ns, number)
);

CREATE TABLE state_probe (
    id int PRIMARY KEY CHECK (id = 1),
    at_ms bigint NOT NULL
) WITH (fillfactor = 20);
