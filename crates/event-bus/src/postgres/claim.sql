-- As broker::Claim says it: due, and in nobody's hands any more.
CREATE FUNCTION bus_is_free(p_next_at bigint, p_incarnation text, p_until bigint, p_lease bigint, p_now bigint, p_horizon bigint)
RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN (p_next_at <= p_now OR p_next_at - p_now > p_horizon)
        AND (p_incarnation IS NULL OR p_until <= p_now OR p_until - p_now > 2 * p_lease);

-- As broker::Shards says it: whether the event's shard has room. Bit 63 is the priority lane.
CREATE FUNCTION bus_is_open(p_hash bigint, p_is_priority boolean, p_shards bigint, p_open bigint) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN ((p_open >> CASE WHEN p_is_priority THEN 63 ELSE (p_hash % p_shards)::int END) & 1) = 1;

-- Tells the lanes of these stripes what was laid out since, up to a place, and at most so many events of the group. Answers up to which
-- place they know everything: what is behind it comes later, or followers would overtake heads that are not known yet.
CREATE FUNCTION bus_fold(p_group_id int, p_stripes smallint[], p_bound bigint, p_max int) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_from bigint := (SELECT min(s.folded) FROM bus_stripe s WHERE s.group_id = p_group_id AND s.n = ANY (p_stripes));
    v_to bigint;
    v_parts boolean[];
    v_hashes bigint[];
    v_keys bytea[];
BEGIN
    SELECT max(f.seq) INTO v_to
    FROM (SELECT d.seq FROM bus_delivery d WHERE d.group_id = p_group_id AND d.seq > v_from AND d.seq <= p_bound
        ORDER BY d.seq LIMIT p_max) AS f;
    IF v_to IS NULL THEN
        RETURN least(v_from, p_bound);
    END IF;
    SELECT array_agg(l.is_priority), array_agg(l.hash), array_agg(l.key) INTO v_parts, v_hashes, v_keys
    FROM (SELECT DISTINCT d.is_priority, d.hash, d.key FROM bus_delivery d
        WHERE d.group_id = p_group_id AND d.seq > v_from AND d.seq <= v_to AND d.stripe = ANY (p_stripes)) AS l;
    PERFORM bus_promote(p_group_id, v_parts, v_hashes, v_keys);
    UPDATE bus_stripe s SET folded = v_to WHERE s.group_id = p_group_id AND s.n = ANY (p_stripes) AND s.folded < v_to;
    RETURN least(v_to, p_bound);
END $$;

-- The events to lend up to a place: those with priority, then the others, each in stored order: heads that are free, each followed by
-- its lane as far as that is free. `alone`: the only one's consumer died with it.
CREATE FUNCTION bus_choose(p_group_id int, p_stripes smallint[], p_now bigint, p_horizon bigint, p_shards bigint, p_open bigint, p_max int,
    p_bound bigint, OUT seqs bigint[], OUT alone boolean)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_part boolean;
    v_left int;
    v_seqs bigint[];
    v_died boolean[];
    v_cut int;
BEGIN
    seqs := '{}';
    alone := false;
    FOREACH v_part IN ARRAY ARRAY[true, false] LOOP
        v_left := p_max - cardinality(seqs);
        EXIT WHEN v_left <= 0;
        WITH heads AS MATERIALIZED (
            SELECT d.seq, d.hash, d.key, d.is_aside, d.incarnation IS NOT NULL AS died FROM bus_delivery d
            WHERE d.group_id = p_group_id AND d.is_priority = v_part AND d.is_head AND d.seq <= p_bound AND d.stripe = ANY (p_stripes)
                AND bus_is_open(d.hash, d.is_priority, p_shards, p_open)
                AND bus_is_free(d.next_at, d.incarnation, d.locked_until, d.lease, p_now, p_horizon)
            ORDER BY d.seq LIMIT v_left
        ), runs AS (
            SELECT h.seq, h.died FROM heads h
            UNION ALL
            SELECT f.seq, f.died FROM heads h CROSS JOIN LATERAL (
                SELECT n.seq, n.died, n.is_free AND coalesce(
                    bool_and(n.is_free AND NOT n.died) OVER (ORDER BY n.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true) AS goes
                FROM (SELECT d.seq, d.incarnation IS NOT NULL AS died,
                        bus_is_free(d.next_at, d.incarnation, d.locked_until, d.lease, p_now, p_horizon) AS is_free
                    FROM bus_delivery d
                    WHERE d.group_id = p_group_id AND d.is_priority = v_part AND d.hash = h.hash AND d.key = h.key AND NOT d.is_aside
                        AND d.seq > h.seq AND d.seq <= p_bound
                    ORDER BY d.seq LIMIT v_left - 1) AS n) AS f
            WHERE NOT h.is_aside AND NOT h.died AND f.goes
        )
        SELECT array_agg(c.seq ORDER BY c.seq), array_agg(c.died ORDER BY c.seq) INTO v_seqs, v_died
        FROM (SELECT r.seq, r.died FROM runs r ORDER BY r.seq LIMIT v_left) AS c;
        CONTINUE WHEN v_seqs IS NULL;
        v_cut := array_position(v_died, true);
        IF v_cut IS NULL THEN
            seqs := seqs || v_seqs;
        ELSIF v_cut = 1 AND cardinality(seqs) = 0 THEN
            seqs := v_seqs[1:1];
            alone := true;
            RETURN;
        ELSE
            -- Its consumer died with it: alone, or not in this round.
            seqs := seqs || v_seqs[1:v_cut - 1];
        END IF;
    END LOOP;
END $$;

-- Lends events out. A row for each, and one at least: the columns before seq say the same in all. Nothing is locked and nothing written
-- unless there is something to lend. p_lost: numbers of this incarnation's claims that it got no answer to, to be given back first.
CREATE FUNCTION bus_claim(p_channel text, p_group text, p_consumer text, p_incarnation text, p_now bigint, p_is_server boolean, p_at bigint,
    p_lease bigint, p_horizon bigint, p_max int, p_crashes_max int, p_shards bigint, p_open bigint, p_nonce bigint, p_lost bigint[],
    p_backlog_max bigint, p_history_max bigint, p_window bigint, p_dead_max bigint)
RETURNS TABLE (is_there boolean, alone boolean, dead_lettered bigint, released bigint, evicted bigint, next_due bigint, seq bigint,
    attempts int, id text, topic text, key bytea, source bytea, kind bytea, time_ns bigint, content_type bytea, correlation text,
    traceparent bytea, data bytea, is_priority boolean)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    -- Events of a group that are looked at before all of its heads are.
    c_near CONSTANT int := 512;
    c_far CONSTANT int := 4096;
    -- Bytes of data in one answer, unless a single event has more.
    c_bytes_max CONSTANT bigint := 4194304;
    c_all CONSTANT bigint := 9223372036854775807;
    v_id int;
    v_shift bigint := bus_shift(p_now, p_is_server);
    v_now bigint := p_now + v_shift;
    v_released bigint := 0;
    v_evicted bigint := 0;
    v_has_more boolean := false;
    v_stripes smallint[];
    v_bound bigint;
    v_known bigint;
    v_seqs bigint[] := '{}';
    v_killer record;
    v_lent bigint[] := '{}';
    v_alone boolean := false;
    v_buried bigint[] := '{}';
    v_due bigint;
BEGIN
    SELECT g.id INTO v_id FROM bus_group g WHERE g.name = p_group;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, false, 0::bigint, 0::bigint, 0::bigint, null::bigint, null::bigint, null::int, null::text, null::text,
            null::bytea, null::bytea, null::bytea, null::bigint, null::bytea, null::text, null::bytea, null::bytea, null::boolean;
        RETURN;
    END IF;
    -- It is said by `alone` without a group.
    IF EXISTS (SELECT FROM bus_consumer c WHERE c.group_id = v_id AND c.name = p_consumer AND c.incarnation <> p_incarnation) THEN
        RETURN QUERY SELECT false, true, 0::bigint, 0::bigint, 0::bigint, null::bigint, null::bigint, null::int, null::text, null::text,
            null::bytea, null::bytea, null::bytea, null::bigint, null::bytea, null::text, null::bytea, null::bytea, null::boolean;
        RETURN;
    END IF;
    IF bus_is_due(v_now) THEN
        SELECT r.released, r.evicted, r.has_more INTO v_released, v_evicted, v_has_more
        FROM bus_release(p_channel, v_now, p_backlog_max, p_history_max, p_window) AS r;
    END IF;

    IF p_lost <> '{}' THEN
        PERFORM FROM bus_stripe s WHERE s.group_id = v_id ORDER BY s.n FOR NO KEY UPDATE;
        UPDATE bus_delivery d SET attempts = d.attempts - 1, consumer = null, incarnation = null, locked_until = 0
        WHERE d.group_id = v_id AND d.seq <= (SELECT max(s.reach) FROM bus_stripe s WHERE s.group_id = v_id)
            AND d.incarnation = p_incarnation AND d.nonce = ANY (p_lost);
    END IF;
    IF p_lost <> '{}'
        OR EXISTS (SELECT FROM bus_delivery d
            WHERE d.group_id = v_id AND d.seq > (SELECT min(s.folded) FROM bus_stripe s WHERE s.group_id = v_id))
        OR EXISTS (SELECT FROM bus_delivery d WHERE d.group_id = v_id AND d.is_priority AND d.is_head
            AND bus_is_open(d.hash, true, p_shards, p_open)
            AND bus_is_free(d.next_at, d.incarnation, d.locked_until, d.lease, v_now, p_horizon))
        OR EXISTS (SELECT FROM bus_delivery d WHERE d.group_id = v_id AND NOT d.is_priority AND d.is_head
            AND bus_is_open(d.hash, false, p_shards, p_open)
            AND bus_is_free(d.next_at, d.incarnation, d.locked_until, d.lease, v_now, p_horizon))
    THEN
        -- Until the commit these lanes are this claim's. Those that others lend or settle at this moment are passed over.
        v_stripes := ARRAY(SELECT s.n FROM bus_stripe s WHERE s.group_id = v_id ORDER BY s.n FOR NO KEY UPDATE SKIP LOCKED);
        LOOP
            v_bound := c_all;
            IF (SELECT g.laid - (SELECT sum(s.settled) FROM bus_stripe s WHERE s.group_id = v_id) FROM bus_group g WHERE g.id = v_id) > c_near THEN
                v_bound := coalesce((SELECT d.seq FROM bus_delivery d WHERE d.group_id = v_id ORDER BY d.seq OFFSET c_near LIMIT 1), c_all);
            END IF;
            v_known := bus_fold(v_id, v_stripes, v_bound, c_far);
            SELECT c.seqs, c.alone INTO v_seqs, v_alone FROM bus_choose(v_id, v_stripes, v_now, p_horizon, p_shards, p_open, p_max, v_known) AS c;
            IF v_bound < c_all AND NOT v_alone AND cardinality(v_seqs) < p_max THEN
                v_known := bus_fold(v_id, v_stripes, c_all, c_far);
                SELECT c.seqs, c.alone INTO v_seqs, v_alone FROM bus_choose(v_id, v_stripes, v_now, p_horizon, p_shards, p_open, p_max, v_known) AS c;
            END IF;
            EXIT WHEN NOT v_alone;
            SELECT d.seq, d.attempts, d.is_priority, d.hash, d.key, d.is_aside, d.last_error INTO v_killer
            FROM bus_delivery d WHERE d.group_id = v_id AND d.seq = v_seqs[1];
            EXIT WHEN v_killer.attempts < p_crashes_max;
            PERFORM bus_bury(v_id, v_seqs, ARRAY[convert_to(
                format('its consumer died or lost its lease while handling it, %s attempts', v_killer.attempts)
                || CASE WHEN v_killer.last_error = '' THEN '' ELSE '; before that: ' END, 'UTF8') || v_killer.last_error], p_at, p_dead_max);
            DELETE FROM bus_delivery d WHERE d.group_id = v_id AND d.seq = v_killer.seq;
            IF NOT v_killer.is_aside THEN
                PERFORM bus_promote(v_id, ARRAY[v_killer.is_priority], ARRAY[v_killer.hash], ARRAY[v_killer.key]);
            END IF;
            v_buried := v_buried || v_killer.seq;
        END LOOP;
        v_lent := ARRAY(
            SELECT m.seq FROM (
                SELECT u.seq, u.ord, sum(octet_length(e.data)) OVER (ORDER BY u.ord ROWS UNBOUNDED PRECEDING) AS bytes
                FROM unnest(v_seqs) WITH ORDINALITY AS u (seq, ord) LEFT JOIN bus_event e ON e.seq = u.seq) AS m
            WHERE m.ord = 1 OR m.bytes <= c_bytes_max OR m.bytes IS NULL
            ORDER BY m.ord);
        IF v_lent <> '{}' THEN
            UPDATE bus_delivery d SET attempts = d.attempts + 1, locked_until = v_now + p_lease, lease = p_lease, nonce = p_nonce,
                consumer = p_consumer, incarnation = p_incarnation
            WHERE d.group_id = v_id AND d.seq = ANY (v_lent);
            UPDATE bus_stripe s SET reach = (SELECT max(l) FROM unnest(v_lent) AS l)
            WHERE s.group_id = v_id AND s.n = v_stripes[1] AND s.reach < (SELECT max(l) FROM unnest(v_lent) AS l);
        END IF;
        IF v_buried <> '{}' THEN
            UPDATE bus_stripe s SET settled = s.settled + cardinality(v_buried), finished = s.finished + bus_done(v_buried)
            WHERE s.group_id = v_id AND s.n = v_stripes[1];
        END IF;
    END IF;

    IF cardinality(v_lent) < p_max THEN
        v_due := least(
            (SELECT min(greatest(d.next_at, d.locked_until)) FROM bus_delivery d
                WHERE d.group_id = v_id AND d.is_priority AND d.is_head AND greatest(d.next_at, d.locked_until) > v_now),
            (SELECT min(greatest(d.next_at, d.locked_until)) FROM bus_delivery d
                WHERE d.group_id = v_id AND NOT d.is_priority AND d.is_head AND greatest(d.next_at, d.locked_until) > v_now),
            CASE WHEN v_has_more THEN v_now
                ELSE least((SELECT d.until_ns FROM bus_delayed d WHERE d.until_ns > v_now ORDER BY d.until_ns LIMIT 1),
                    (SELECT w.began + 1000000000 FROM bus_walk w WHERE w.one = 1)) END,
            -- What was passed over is free as soon as somebody's commit is done.
            CASE WHEN cardinality(v_stripes) < 5 THEN v_now END,
            CASE WHEN cardinality(v_lent) < cardinality(v_seqs) OR EXISTS (SELECT FROM bus_delivery d
                WHERE d.group_id = v_id AND d.seq > (SELECT min(s.folded) FROM bus_stripe s WHERE s.group_id = v_id AND s.n = ANY (v_stripes)))
                THEN v_now END);
    END IF;
    RETURN QUERY
    SELECT true, v_alone, cardinality(v_buried)::bigint, v_released, v_evicted, v_due - v_shift, u.seq, d.attempts, e.id, e.topic, e.key,
        e.source, e.kind, e.time_ns, e.content_type, e.correlation, e.traceparent, e.data, d.is_priority
    FROM (SELECT) AS one
    LEFT JOIN unnest(v_lent) WITH ORDINALITY AS u (seq, ord) ON true
    LEFT JOIN bus_delivery d ON d.group_id = v_id AND d.seq = u.seq
    LEFT JOIN bus_event e ON e.seq = u.seq
    ORDER BY u.ord;
END $$;
