-- Who waits for whom, everywhere in this order: the head, a group's stripes by number, the rows of bus_use by place. So nobody waits in a
-- circle. A claim waits for no stripe: it passes over those that others hold.

-- Whoever gives places locks this row first, so places are given in the order of the commits and without a gap: whoever sees a place
-- sees all smaller ones. A sequence would know no such order.
CREATE TABLE bus_head (
    one int PRIMARY KEY CHECK (one = 1),
    newest bigint NOT NULL,
    -- How many rows bus_history has, but for what bus_stripe.finished adds.
    history bigint NOT NULL,
    delayed bigint NOT NULL,
    next_delay bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO bus_head VALUES (1, 0, 0, 0, 0);

-- Text that may hold anything is bytea: the server's text cannot hold a zero byte.
CREATE TYPE bus_envelope AS (
    id text, topic text, key bytea, source bytea, kind bytea, time_ns bigint, content_type bytea, correlation text,
    traceparent bytea, data bytea, is_priority boolean, hash bigint);

-- The kept events; rows never change. A copy is a dead letter that was put back to work for one group.
CREATE TABLE bus_event (
    seq bigint PRIMARY KEY,
    is_copy boolean NOT NULL,
    id text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    source bytea NOT NULL,
    kind bytea NOT NULL,
    time_ns bigint NOT NULL,
    content_type bytea NOT NULL,
    correlation text COLLATE "C" NOT NULL,
    traceparent bytea,
    data bytea NOT NULL,
    is_priority boolean NOT NULL,
    hash bigint NOT NULL
);
-- Compressing would happen behind the lock of the head.
ALTER TABLE bus_event ALTER COLUMN data SET STORAGE EXTERNAL;

-- Ids that are known: of kept events, of delayed ones (no place yet), and of those that left (finished).
CREATE TABLE bus_id (
    id text COLLATE "C" PRIMARY KEY,
    seq bigint,
    is_finished boolean NOT NULL
) WITH (fillfactor = 90);
CREATE INDEX bus_id_finished ON bus_id (seq) WHERE is_finished;

-- How many groups still need an event. One that no group needs (any more) is in bus_history instead.
CREATE TABLE bus_use (
    seq bigint PRIMARY KEY,
    outstanding int NOT NULL
) WITH (fillfactor = 80);
CREATE TABLE bus_history (
    seq bigint PRIMARY KEY,
    was_wanted boolean NOT NULL
);

CREATE TABLE bus_delayed (
    until_ns bigint NOT NULL,
    no bigint NOT NULL,
    event bus_envelope NOT NULL,
    PRIMARY KEY (until_ns, no)
);

-- A walk along the due events, a part in each claim, that found some whose groups are full. One row, or none. Behind the lock of the head.
CREATE TABLE bus_walk (
    one int PRIMARY KEY CHECK (one = 1),
    began bigint NOT NULL,
    -- The last one that it left.
    until_ns bigint NOT NULL,
    no bigint NOT NULL,
    -- Groups that were full: what else they want stays behind.
    held int[] NOT NULL
);

CREATE TABLE bus_group (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    pattern text COLLATE "C" NOT NULL,
    -- The pattern as LIKE takes it.
    likes text COLLATE "C" NOT NULL,
    -- How many events were ever laid out for it; less what its stripes settled, they wait.
    laid bigint NOT NULL
) WITH (fillfactor = 50);

-- The runs that took consumers' names last.
CREATE TABLE bus_consumer (
    group_id int NOT NULL,
    name text COLLATE "C" NOT NULL,
    incarnation text COLLATE "C" NOT NULL,
    PRIMARY KEY (group_id, name)
);

-- The lanes of a group by the hash of their keys (0 to 3), and those with priority (4). Whoever lends or settles locks the stripe first.
CREATE TABLE bus_stripe (
    group_id int NOT NULL,
    n smallint NOT NULL,
    -- Up to which place its lanes know their heads: an append lays out and leaves that to the next claim, so that it waits for no consumer.
    folded bigint NOT NULL,
    settled bigint NOT NULL,
    -- What settling added to the history.
    finished bigint NOT NULL,
    -- The highest place that was ever lent.
    reach bigint NOT NULL,
    PRIMARY KEY (group_id, n)
) WITH (fillfactor = 20);

-- What a group has still to do. Lent out if it has an incarnation.
CREATE TABLE bus_delivery (
    group_id int NOT NULL,
    seq bigint NOT NULL,
    stripe smallint NOT NULL,
    is_priority boolean NOT NULL,
    -- It is the first of its lane, or stands aside.
    is_head boolean NOT NULL,
    -- It failed and left its lane.
    is_aside boolean NOT NULL,
    attempts int NOT NULL,
    hash bigint NOT NULL,
    next_at bigint NOT NULL,
    locked_until bigint NOT NULL,
    lease bigint NOT NULL,
    nonce bigint NOT NULL,
    key bytea NOT NULL,
    consumer text COLLATE "C",
    incarnation text COLLATE "C",
    last_error bytea NOT NULL,
    PRIMARY KEY (group_id, seq)
) WITH (fillfactor = 70);
-- Every event passes through these two, so they are mostly made of rows that are gone: early cleaning keeps them small.
ALTER TABLE bus_delivery SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
ALTER TABLE bus_use SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
CREATE INDEX bus_delivery_lane ON bus_delivery (group_id, is_priority, hash, seq) WHERE NOT is_aside;
CREATE INDEX bus_delivery_head ON bus_delivery (group_id, is_priority, seq) WHERE is_head;

CREATE TABLE bus_dead (
    group_id int NOT NULL,
    seq bigint NOT NULL,
    error bytea NOT NULL,
    attempts int NOT NULL,
    at_ns bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    source bytea NOT NULL,
    kind bytea NOT NULL,
    time_ns bigint NOT NULL,
    content_type bytea NOT NULL,
    correlation text COLLATE "C" NOT NULL,
    traceparent bytea,
    data bytea NOT NULL,
    is_priority boolean NOT NULL,
    hash bigint NOT NULL,
    PRIMARY KEY (group_id, seq)
);
ALTER TABLE bus_dead ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE bus_probe (
    one int PRIMARY KEY CHECK (one = 1),
    count bigint NOT NULL
) WITH (fillfactor = 20);
INSERT INTO bus_probe VALUES (1, 0);
