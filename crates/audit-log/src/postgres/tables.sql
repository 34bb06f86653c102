-- One row an event. The columns beside data serve searching; verification compares them with the bytes.
CREATE TABLE audit_event (
    idx bigint PRIMARY KEY CHECK (idx >= 0),
    id text COLLATE "C" NOT NULL UNIQUE,
    kind text COLLATE "C" NOT NULL,
    symbol text COLLATE "C",
    person text COLLATE "C",
    at bigint NOT NULL,
    leaf_hash bytea NOT NULL,
    data bytea NOT NULL
);
CREATE INDEX audit_event_kind ON audit_event (kind, idx);
CREATE INDEX audit_event_symbol ON audit_event (symbol, idx) WHERE symbol IS NOT NULL;
CREATE INDEX audit_event_person ON audit_event (person, idx) WHERE person IS NOT NULL;
CREATE INDEX audit_event_at ON audit_event (at);

-- Whoever appends locks this row first. turn makes appends void that were sent before it went up: see audit_settle.
CREATE TABLE audit_head (
    one int PRIMARY KEY CHECK (one = 1),
    size bigint NOT NULL,
    turn bigint NOT NULL,
    frontier bytea NOT NULL
) WITH (fillfactor = 10);
INSERT INTO audit_head VALUES (1, 0, 0, '');

-- Against mistakes, and against users who do not own these tables. The owner can drop them.
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit events are never changed and never deleted' USING ERRCODE = 'IN041';
END $$;
CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.one <> OLD.one OR NEW.turn < OLD.turn OR NEW.size < OLD.size
        OR (NEW.size = OLD.size AND NEW.frontier <> OLD.frontier)
    THEN
        RAISE EXCEPTION 'the head of an audit log only grows' USING ERRCODE = 'IN041';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER audit_event_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_head_stays BEFORE DELETE OR TRUNCATE ON audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_head_grows BEFORE UPDATE ON audit_head
    FOR EACH ROW EXECUTE FUNCTION audit_only_grows();
-- Also in sessions that replay what another server replicates.
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_stays;
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_stays;
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER audit_head_grows;
