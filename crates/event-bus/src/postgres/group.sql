-- One group less needs these events (each named once). How many went to the history.
CREATE FUNCTION bus_done(p_seqs bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_finished bigint;
BEGIN
    -- Another group may settle the same at this moment.
    PERFORM FROM bus_use u WHERE u.seq = ANY (p_seqs) ORDER BY u.seq FOR UPDATE;
    WITH gone AS (
        DELETE FROM bus_use u WHERE u.seq = ANY (p_seqs) AND u.outstanding <= 1 RETURNING u.seq
    ), fewer AS (
        UPDATE bus_use u SET outstanding = u.outstanding - 1 WHERE u.seq = ANY (p_seqs) AND u.outstanding > 1
    ), copies AS (
        DELETE FROM bus_event e USING gone g WHERE e.seq = g.seq AND e.is_copy RETURNING e.seq
    ), finished AS (
        INSERT INTO bus_history AS h (seq, was_wanted)
        SELECT g.seq, true FROM gone g JOIN bus_event e ON e.seq = g.seq WHERE NOT e.is_copy
        RETURNING h.seq
    )
    SELECT count(*) INTO v_finished FROM finished;
    RETURN v_finished;
END $$;

-- Creates a group, or answers the pattern of the one that is there.
CREATE FUNCTION bus_open(p_name text, p_pattern text, p_likes text, p_is_earliest boolean) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_head bus_head;
    v_pattern text;
    v_id int;
    v_seqs bigint[];
    v_moved bigint;
BEGIN
    SELECT g.pattern INTO v_pattern FROM bus_group g WHERE g.name = p_name;
    IF FOUND THEN
        RETURN v_pattern;
    END IF;
    v_head := bus_lock_head();
    SELECT g.pattern INTO v_pattern FROM bus_group g WHERE g.name = p_name;
    IF FOUND THEN
        RETURN v_pattern;
    END IF;
    INSERT INTO bus_group (name, pattern, likes, laid) VALUES (p_name, p_pattern, p_likes, 0) RETURNING id INTO v_id;
    INSERT INTO bus_stripe (group_id, n, folded, settled, finished, reach)
    SELECT v_id, n, CASE WHEN p_is_earliest THEN 0 ELSE v_head.newest END, 0, 0, 0 FROM generate_series(0, 4) AS n;
    IF NOT p_is_earliest THEN
        RETURN p_pattern;
    END IF;
    -- Under the lock of the head none of them is trimmed; those that others settle at this moment are waited for.
    v_seqs := ARRAY(SELECT e.seq FROM bus_event e WHERE e.seq > 0 AND NOT e.is_copy AND e.topic LIKE p_likes);
    PERFORM FROM bus_use u WHERE u.seq = ANY (v_seqs) ORDER BY u.seq FOR UPDATE;
    UPDATE bus_use u SET outstanding = u.outstanding + 1 WHERE u.seq = ANY (v_seqs);
    WITH moved AS (
        DELETE FROM bus_history h WHERE h.seq = ANY (v_seqs) RETURNING h.seq
    ), used AS (
        INSERT INTO bus_use AS u (seq, outstanding) SELECT m.seq, 1 FROM moved m RETURNING u.seq
    )
    SELECT count(*) INTO v_moved FROM used;
    INSERT INTO bus_delivery (group_id, seq, stripe, is_priority, is_head, is_aside, attempts, hash, next_at, locked_until, lease, nonce,
        key, last_error)
    SELECT v_id, e.seq, bus_stripe_of(e.hash, e.is_priority), e.is_priority, false, false, 0, e.hash, 0, 0, 0, 0, e.key, ''
    FROM bus_event e WHERE e.seq = ANY (v_seqs);
    UPDATE bus_group SET laid = cardinality(v_seqs) WHERE id = v_id;
    UPDATE bus_head SET history = history - v_moved WHERE one = 1;
    RETURN p_pattern;
END $$;

-- Takes a group out of sight, in one step however much it has still to do: bus_clean takes that away. No group has a blank in its name,
-- and no topic is empty.
CREATE FUNCTION bus_remove(p_name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_head bus_head := bus_lock_head();
BEGIN
    UPDATE bus_group g SET name = 'removed ' || g.id, likes = '' WHERE g.name = p_name;
    RETURN FOUND;
END $$;

-- Takes at most so many events of removed groups away; whether there is more to do.
CREATE FUNCTION bus_clean(p_max int) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_id int;
    v_head bus_head;
    v_seqs bigint[];
BEGIN
    SELECT g.id INTO v_id FROM bus_group g WHERE g.name >= 'removed ' AND g.name < 'removed!' LIMIT 1;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    v_seqs := ARRAY(SELECT d.seq FROM bus_delivery d WHERE d.group_id = v_id ORDER BY d.seq LIMIT p_max);
    IF v_seqs = '{}' THEN
        v_head := bus_lock_head();
        PERFORM FROM bus_stripe s WHERE s.group_id = v_id ORDER BY s.n FOR UPDATE;
        UPDATE bus_head SET history = history + coalesce((SELECT sum(s.finished) FROM bus_stripe s WHERE s.group_id = v_id), 0)
        WHERE one = 1;
        DELETE FROM bus_dead WHERE group_id = v_id;
        DELETE FROM bus_stripe WHERE group_id = v_id;
        DELETE FROM bus_consumer WHERE group_id = v_id;
        DELETE FROM bus_group WHERE id = v_id;
    ELSE
        PERFORM FROM bus_stripe s WHERE s.group_id = v_id ORDER BY s.n FOR UPDATE;
        -- Somebody who found the group before it was removed may have settled some.
        v_seqs := ARRAY(SELECT d.seq FROM bus_delivery d WHERE d.group_id = v_id ORDER BY d.seq LIMIT p_max);
        DELETE FROM bus_delivery d WHERE d.group_id = v_id AND d.seq = ANY (v_seqs);
        UPDATE bus_stripe s SET settled = s.settled + cardinality(v_seqs), finished = s.finished + bus_done(v_seqs)
        WHERE s.group_id = v_id AND s.n = 0;
    END IF;
    RETURN true;
END $$;

-- Puts dead letters back to work, in this order; how many. `waiting` says that the group is full, and with how many.
CREATE FUNCTION bus_redrive(p_channel text, p_group text, p_letters bigint[], p_backlog_max bigint,
    OUT is_there boolean, OUT moved bigint, OUT waiting bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_head bus_head := bus_lock_head();
    v_id int;
    v_waiting bigint;
BEGIN
    SELECT g.id, g.laid - (SELECT sum(s.settled) FROM bus_stripe s WHERE s.group_id = g.id) INTO v_id, v_waiting
    FROM bus_group g WHERE g.name = p_group;
    is_there := FOUND;
    moved := 0;
    IF NOT is_there THEN
        RETURN;
    END IF;
    IF v_waiting + (SELECT count(*) FROM unnest(p_letters) AS l JOIN bus_dead d ON d.group_id = v_id AND d.seq = l) > p_backlog_max THEN
        waiting := v_waiting;
        RETURN;
    END IF;
    PERFORM FROM bus_dead d WHERE d.group_id = v_id AND d.seq = ANY (p_letters) ORDER BY d.seq FOR UPDATE;
    WITH taken AS (
        DELETE FROM bus_dead d WHERE d.group_id = v_id AND d.seq = ANY (p_letters) RETURNING d.*
    ), placed AS (
        SELECT v_head.newest + row_number() OVER (ORDER BY array_position(p_letters, t.seq)) AS place, t.* FROM taken t
    ), stored AS (
        INSERT INTO bus_event
        SELECT p.place, true, p.id, p.topic, p.key, p.source, p.kind, p.time_ns, p.content_type, p.correlation, p.traceparent, p.data,
            p.is_priority, p.hash
        FROM placed p
    ), laid AS (
        INSERT INTO bus_delivery (group_id, seq, stripe, is_priority, is_head, is_aside, attempts, hash, next_at, locked_until, lease, nonce,
            key, last_error)
        SELECT v_id, p.place, bus_stripe_of(p.hash, p.is_priority), p.is_priority, false, false, 0, p.hash, 0, 0, 0, 0, p.key, ''
        FROM placed p
    ), used AS (
        INSERT INTO bus_use (seq, outstanding) SELECT p.place, 1 FROM placed p
    )
    SELECT count(*) INTO moved FROM placed;
    UPDATE bus_group SET laid = laid + moved WHERE id = v_id;
    UPDATE bus_head SET newest = newest + moved WHERE one = 1;
    IF moved > 0 THEN
        PERFORM pg_notify(p_channel, '');
    END IF;
END $$;
