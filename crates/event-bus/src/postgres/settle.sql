-- Lets the first of each of these lanes step forward.
CREATE FUNCTION bus_promote(p_group_id int, p_parts boolean[], p_hashes bigint[], p_keys bytea[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    UPDATE bus_delivery d SET is_head = true
    FROM (SELECT DISTINCT u.part, u.hash, u.key FROM unnest(p_parts, p_hashes, p_keys) AS u (part, hash, key)) AS l
    CROSS JOIN LATERAL (
        SELECT f.seq FROM bus_delivery f
        WHERE f.group_id = p_group_id AND f.is_priority = l.part AND f.hash = l.hash AND f.key = l.key AND NOT f.is_aside
        ORDER BY f.seq LIMIT 1) AS n
    WHERE d.group_id = p_group_id AND d.seq = n.seq AND NOT d.is_head;
END $$;

-- Copies events to the dead letters of a group; how many older ones made room.
CREATE FUNCTION bus_bury(p_group_id int, p_seqs bigint[], p_errors bytea[], p_at bigint, p_dead_max bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_excess bigint;
BEGIN
    INSERT INTO bus_dead (group_id, seq, error, attempts, at_ns, id, topic, key, source, kind, time_ns, content_type, correlation,
        traceparent, data, is_priority, hash)
    SELECT p_group_id, e.seq, u.error, d.attempts, p_at, e.id, e.topic, e.key, e.source, e.kind, e.time_ns, e.content_type, e.correlation,
        e.traceparent, e.data, e.is_priority, e.hash
    FROM unnest(p_seqs, p_errors) AS u (seq, error)
    JOIN bus_delivery d ON d.group_id = p_group_id AND d.seq = u.seq
    JOIN bus_event e ON e.seq = u.seq
    ON CONFLICT (group_id, seq) DO NOTHING;
    v_excess := (SELECT count(*) FROM bus_dead b WHERE b.group_id = p_group_id) - p_dead_max;
    IF v_excess <= 0 THEN
        RETURN 0;
    END IF;
    -- Another claim or settlement may make room at the same moment.
    WITH gone AS (
        DELETE FROM bus_dead WHERE group_id = p_group_id AND seq = ANY (ARRAY(
            SELECT b.seq FROM bus_dead b WHERE b.group_id = p_group_id ORDER BY b.seq LIMIT v_excess FOR UPDATE SKIP LOCKED))
        RETURNING 1
    )
    SELECT count(*) INTO v_excess FROM gone;
    RETURN v_excess;
END $$;

-- Ends claims. Outcomes: 1 ack, 2 retry (ats, errors, asides), 3 dead (errors), 4 release.
CREATE FUNCTION bus_settle(p_group text, p_incarnation text, p_now bigint, p_is_server boolean, p_at bigint, p_dead_max bigint,
    p_seqs bigint[], p_attempts int[], p_outcomes smallint[], p_ats bigint[], p_errors bytea[], p_asides boolean[],
    OUT is_there boolean, OUT lost bigint, OUT evicted bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_id int;
    v_shift bigint := bus_shift(p_now, p_is_server);
    v_held int[];
    v_dead int[];
    v_off bigint[];
    v_stripe smallint;
    v_parts boolean[];
    v_hashes bigint[];
    v_keys bytea[];
    v_left_parts boolean[];
    v_left_hashes bigint[];
    v_left_keys bytea[];
    v_finished bigint;
BEGIN
    evicted := 0;
    lost := 0;
    SELECT g.id INTO v_id FROM bus_group g WHERE g.name = p_group;
    is_there := FOUND;
    IF NOT is_there THEN
        RETURN;
    END IF;
    PERFORM FROM bus_stripe s
    WHERE s.group_id = v_id AND s.n IN (SELECT d.stripe FROM bus_delivery d WHERE d.group_id = v_id AND d.seq = ANY (p_seqs))
    ORDER BY s.n FOR NO KEY UPDATE;
    -- Which of them are still this incarnation's; of the same named twice, the first.
    SELECT array_agg(h.ord), array_agg(h.ord) FILTER (WHERE h.outcome = 3), array_agg(h.seq) FILTER (WHERE h.outcome IN (1, 3)), min(h.stripe)
    INTO v_held, v_dead, v_off, v_stripe
    FROM (SELECT DISTINCT ON (u.seq) u.seq, u.ord, u.outcome, d.stripe
        FROM unnest(p_seqs, p_attempts, p_outcomes) WITH ORDINALITY AS u (seq, attempt, outcome, ord)
        JOIN bus_delivery d ON d.group_id = v_id AND d.seq = u.seq AND d.attempts = u.attempt AND d.incarnation = p_incarnation
        ORDER BY u.seq, u.ord) AS h;
    lost := cardinality(p_seqs) - coalesce(cardinality(v_held), 0);
    IF v_held IS NULL THEN
        RETURN;
    END IF;
    IF v_dead IS NOT NULL THEN
        evicted := bus_bury(v_id, ARRAY(SELECT p_seqs[n] FROM unnest(v_dead) AS n), ARRAY(SELECT p_errors[n] FROM unnest(v_dead) AS n),
            p_at, p_dead_max);
    END IF;
    IF v_off IS NOT NULL THEN
        WITH gone AS (
            DELETE FROM bus_delivery d WHERE d.group_id = v_id AND d.seq = ANY (v_off) RETURNING d.is_priority, d.hash, d.key, d.is_head, d.is_aside
        )
        SELECT array_agg(g.is_priority), array_agg(g.hash), array_agg(g.key) INTO v_parts, v_hashes, v_keys FROM gone g WHERE g.is_head AND NOT g.is_aside;
    END IF;
    IF cardinality(v_held) > coalesce(cardinality(v_off), 0) THEN
        WITH back AS (
            SELECT d.seq, d.is_priority, d.hash, d.key, d.is_aside, p_outcomes[n] AS outcome, p_ats[n] AS at, p_errors[n] AS error,
                p_outcomes[n] = 2 AND p_asides[n] AS leaves
            FROM unnest(v_held) AS n JOIN bus_delivery d ON d.group_id = v_id AND d.seq = p_seqs[n]
            WHERE p_outcomes[n] IN (2, 4)
        ), changed AS (
            UPDATE bus_delivery d SET consumer = null, incarnation = null, locked_until = 0,
                next_at = CASE WHEN b.outcome = 2 THEN b.at + v_shift ELSE d.next_at END,
                last_error = CASE WHEN b.outcome = 2 THEN b.error ELSE d.last_error END,
                attempts = CASE WHEN b.outcome = 4 THEN d.attempts - 1 ELSE d.attempts END,
                is_aside = d.is_aside OR b.leaves, is_head = d.is_head OR b.leaves
            FROM back b WHERE d.group_id = v_id AND d.seq = b.seq
        )
        SELECT array_agg(b.is_priority), array_agg(b.hash), array_agg(b.key) INTO v_left_parts, v_left_hashes, v_left_keys
        FROM back b WHERE b.leaves AND NOT b.is_aside;
    END IF;
    IF v_parts IS NOT NULL OR v_left_parts IS NOT NULL THEN
        PERFORM bus_promote(v_id, v_parts || v_left_parts, v_hashes || v_left_hashes, v_keys || v_left_keys);
    END IF;
    IF v_off IS NOT NULL THEN
        v_finished := bus_done(v_off);
        UPDATE bus_stripe SET settled = settled + cardinality(v_off), finished = finished + v_finished WHERE group_id = v_id AND n = v_stripe;
    END IF;
END $$;

-- Makes this run of a consumer the one that has its name, and ends what its other runs hold; how many. Null if there is no such group.
CREATE FUNCTION bus_take_over(p_group text, p_consumer text, p_incarnation text) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_id int;
    v_count bigint;
BEGIN
    SELECT g.id INTO v_id FROM bus_group g WHERE g.name = p_group;
    IF NOT FOUND THEN
        RETURN null;
    END IF;
    PERFORM FROM bus_stripe s WHERE s.group_id = v_id ORDER BY s.n FOR NO KEY UPDATE;
    INSERT INTO bus_consumer VALUES (v_id, p_consumer, p_incarnation)
    ON CONFLICT (group_id, name) DO UPDATE SET incarnation = excluded.incarnation;
    -- broker::NAMES_MAX
    DELETE FROM bus_consumer c WHERE c.group_id = v_id AND c.name IN (
        SELECT o.name FROM bus_consumer o WHERE o.group_id = v_id AND o.name <> p_consumer
        LIMIT greatest(0, (SELECT count(*) FROM bus_consumer a WHERE a.group_id = v_id) - 1000));
    -- Nothing behind the reach was ever lent.
    UPDATE bus_delivery d SET locked_until = 0
    WHERE d.group_id = v_id AND d.seq <= (SELECT max(s.reach) FROM bus_stripe s WHERE s.group_id = v_id)
        AND d.consumer = p_consumer AND d.incarnation <> p_incarnation;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Prolongs claims until a moment, or by their lease if the server's clock counts. Whether there is such a group.
CREATE FUNCTION bus_extend(p_group text, p_incarnation text, p_until bigint, p_is_server boolean, p_seqs bigint[], p_attempts int[])
RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_id int;
    v_now bigint;
BEGIN
    SELECT g.id INTO v_id FROM bus_group g WHERE g.name = p_group;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM bus_stripe s
    WHERE s.group_id = v_id AND s.n IN (SELECT d.stripe FROM bus_delivery d WHERE d.group_id = v_id AND d.seq = ANY (p_seqs))
    ORDER BY s.n FOR NO KEY UPDATE;
    v_now := bus_now();
    UPDATE bus_delivery d SET locked_until = CASE WHEN p_is_server THEN v_now + d.lease ELSE p_until END
    FROM unnest(p_seqs, p_attempts) AS u (seq, attempt)
    WHERE d.group_id = v_id AND d.seq = u.seq AND d.attempts = u.attempt AND d.incarnation = p_incarnation;
    RETURN true;
END $$;
