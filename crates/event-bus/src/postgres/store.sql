-- Sessions have enable_seqscan off: a statement that needs all rows of a table names them by a range of its key, else it would be taken to
-- be so costly that it is compiled first (jit), which takes longer than anything here.

-- The server's wall clock in nanoseconds. Never now(): that stands still in a transaction, which may have waited for its lock.
CREATE FUNCTION bus_now() RETURNS bigint LANGUAGE sql VOLATILE
    RETURN floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000;

-- How far the clock that counts is ahead of the asker's: nothing if the asker's counts.
CREATE FUNCTION bus_shift(p_now bigint, p_is_server boolean) RETURNS bigint LANGUAGE sql VOLATILE
    RETURN CASE WHEN p_is_server THEN bus_now() - p_now ELSE 0 END;

CREATE FUNCTION bus_stripe_of(p_hash bigint, p_is_priority boolean) RETURNS smallint LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN p_is_priority THEN 4 ELSE (p_hash % 4) END::smallint;

-- Locks the head until the transaction ends. What comes after sees what was committed before, because in READ COMMITTED each statement of
-- a volatile function has a snapshot of its own; any other isolation is refused.
CREATE FUNCTION bus_lock_head() RETURNS bus_head LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_head bus_head;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the bus needs the isolation level read committed' USING ERRCODE = 'IN051';
    END IF;
    SELECT * INTO STRICT v_head FROM bus_head WHERE one = 1 FOR NO KEY UPDATE;
    RETURN v_head;
END $$;

-- Stores events in order and lays each out for the groups that want it. The arrays have an answer for each event: its place, whether its id
-- was known, how many never wanted ones went for it; or which group was full, and with how many.
CREATE FUNCTION bus_store(p_events bus_envelope[], p_backlog_max bigint, p_history_max bigint, p_window bigint,
    OUT seqs bigint[], OUT duplicates boolean[], OUT evicted bigint[], OUT full_groups text[], OUT waiting bigint[])
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    -- broker::TRIM_MAX
    c_trim_max CONSTANT int := 2;
    c_count CONSTANT int := cardinality(p_events);
    v_head bus_head := bus_lock_head();
    v_firsts bigint[];
    v_group text;
    v_waiting bigint;
    v_one record;
    v_unwanted bigint[];
    v_is_unwanted boolean;
    v_kept bigint;
    v_trims int[];
    v_trim int;
    v_gone bigint[];
    v_was_wanted boolean[];
    v_at int := 0;
    v_new bigint := 0;
BEGIN
    -- Which are known, and which repeat an earlier one of these.
    SELECT array_agg(k.seq ORDER BY e.ord), array_agg(k.id IS NOT NULL OR e.first < e.ord ORDER BY e.ord), array_agg(e.first ORDER BY e.ord)
    INTO seqs, duplicates, v_firsts
    FROM (SELECT u.id, u.ord, min(u.ord) OVER (PARTITION BY u.id) AS first
        FROM unnest(p_events) WITH ORDINALITY AS u (id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, data,
            is_priority, hash, ord)) AS e
    LEFT JOIN bus_id k ON k.id = e.id;
    evicted := array_fill(0::bigint, ARRAY[c_count]);
    full_groups := array_fill(null::text, ARRAY[c_count]);
    waiting := array_fill(0::bigint, ARRAY[c_count]);

    -- One after another, if a group could become full, or if a known id could be forgotten on the way.
    SELECT g.name, g.waiting INTO v_group, v_waiting
    FROM (SELECT o.name, o.laid - (SELECT sum(s.settled) FROM bus_stripe s WHERE s.group_id = o.id) AS waiting,
            (SELECT count(*) FROM unnest(p_events) WITH ORDINALITY AS u (id, topic, key, source, kind, time_ns, content_type, correlation,
                traceparent, data, is_priority, hash, ord) WHERE NOT duplicates[u.ord] AND u.topic LIKE o.likes) AS added
        FROM bus_group o) AS g
    WHERE g.added > 0 AND g.waiting + g.added > p_backlog_max
    ORDER BY g.name LIMIT 1;
    IF c_count = 1 AND v_group IS NOT NULL THEN
        full_groups[1] := v_group;
        waiting[1] := v_waiting;
        RETURN;
    END IF;
    IF c_count > 1 AND (v_group IS NOT NULL OR p_window < c_count
        OR EXISTS (SELECT FROM unnest(seqs) AS s WHERE s <= v_head.newest + c_count - p_window))
    THEN
        FOR i IN 1 .. c_count LOOP
            SELECT s.* INTO v_one FROM bus_store(p_events[i:i], p_backlog_max, p_history_max, p_window) AS s;
            seqs[i] := v_one.seqs[1];
            duplicates[i] := v_one.duplicates[1];
            evicted[i] := v_one.evicted[1];
            full_groups[i] := v_one.full_groups[1];
            waiting[i] := v_one.waiting[1];
        END LOOP;
        RETURN;
    END IF;

    FOR i IN 1 .. c_count LOOP
        IF NOT duplicates[i] THEN
            v_new := v_new + 1;
            seqs[i] := v_head.newest + v_new;
        ELSIF v_firsts[i] < i THEN
            seqs[i] := seqs[v_firsts[i]];
        END IF;
    END LOOP;
    IF v_new = 0 THEN
        RETURN;
    END IF;

    WITH stored AS (
        INSERT INTO bus_event AS e
        SELECT seqs[u.ord], false, u.id, u.topic, u.key, u.source, u.kind, u.time_ns, u.content_type, u.correlation, u.traceparent, u.data,
            u.is_priority, u.hash
        FROM unnest(p_events) WITH ORDINALITY AS u (id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, data,
            is_priority, hash, ord)
        WHERE NOT duplicates[u.ord]
        RETURNING e.seq, e.id, e.topic, e.key, e.is_priority, e.hash
    ), known AS (
        INSERT INTO bus_id (id, seq, is_finished) SELECT s.id, s.seq, false FROM stored s
    ), laid AS (
        INSERT INTO bus_delivery AS d (group_id, seq, stripe, is_priority, is_head, is_aside, attempts, hash, next_at, locked_until, lease,
            nonce, key, last_error)
        SELECT g.id, s.seq, bus_stripe_of(s.hash, s.is_priority), s.is_priority, false, false, 0, s.hash, 0, 0, 0, 0, s.key, ''
        FROM stored s JOIN bus_group g ON g.id > 0 AND s.topic LIKE g.likes
        RETURNING d.group_id, d.seq
    ), counted AS (
        UPDATE bus_group g SET laid = g.laid + l.count
        FROM (SELECT laid.group_id, count(*) AS count FROM laid GROUP BY laid.group_id) AS l WHERE g.id = l.group_id
    ), used AS (
        INSERT INTO bus_use AS u (seq, outstanding) SELECT l.seq, count(*) FROM laid l GROUP BY l.seq RETURNING u.seq
    ), unwanted AS (
        INSERT INTO bus_history AS h (seq, was_wanted)
        SELECT s.seq, false FROM stored s WHERE s.seq NOT IN (SELECT u.seq FROM used u)
        RETURNING h.seq
    )
    SELECT array_agg(u.seq ORDER BY u.seq) INTO v_unwanted FROM unwanted u;

    -- What goes for each event, oldest first.
    v_kept := v_head.history + coalesce((SELECT sum(s.finished) FROM bus_stripe s WHERE s.group_id > 0), 0);
    v_trims := array_fill(0, ARRAY[c_count]);
    FOR i IN 1 .. c_count LOOP
        CONTINUE WHEN duplicates[i];
        v_is_unwanted := v_unwanted[v_at + 1] = seqs[i];
        IF v_is_unwanted THEN
            v_at := v_at + 1;
            v_kept := v_kept + 1;
        END IF;
        v_trim := least(c_trim_max, greatest(v_kept - p_history_max, 0));
        v_trims[i] := v_trim;
        v_kept := v_kept - v_trim;
    END LOOP;
    v_head.newest := v_head.newest + v_new;
    v_head.history := v_head.history + coalesce(cardinality(v_unwanted), 0);
    v_trim := (SELECT sum(t) FROM unnest(v_trims) AS t);
    IF v_trim > 0 THEN
        WITH gone AS (
            DELETE FROM bus_history WHERE seq = ANY (ARRAY(SELECT h.seq FROM bus_history h ORDER BY h.seq LIMIT v_trim))
            RETURNING seq, was_wanted
        )
        SELECT array_agg(g.seq ORDER BY g.seq), array_agg(g.was_wanted ORDER BY g.seq) INTO v_gone, v_was_wanted FROM gone g;
        WITH gone AS (
            DELETE FROM bus_event e WHERE e.seq = ANY (v_gone) RETURNING e.id
        )
        UPDATE bus_id k SET is_finished = true FROM gone g WHERE k.id = g.id;
        v_head.history := v_head.history - cardinality(v_gone);
        v_at := 0;
        FOR i IN 1 .. c_count LOOP
            FOR t IN 1 .. v_trims[i] LOOP
                v_at := v_at + 1;
                IF NOT v_was_wanted[v_at] THEN
                    evicted[i] := evicted[i] + 1;
                END IF;
            END LOOP;
        END LOOP;
    END IF;
    -- Ids of those that left and are out of the window; a few in each write, so that none pays for all.
    DELETE FROM bus_id WHERE id = ANY (ARRAY(
        SELECT k.id FROM bus_id k WHERE k.is_finished AND k.seq <= v_head.newest - p_window ORDER BY k.seq LIMIT c_trim_max * c_count + 64));
    UPDATE bus_head SET newest = v_head.newest, history = v_head.history WHERE one = 1;
END $$;

CREATE FUNCTION bus_append(p_channel text, p_backlog_max bigint, p_history_max bigint, p_window bigint,
    p_ids text[], p_topics text[], p_keys bytea[], p_sources bytea[], p_kinds bytea[], p_times bigint[], p_types bytea[],
    p_correlations text[], p_traces bytea[], p_datas bytea[], p_priorities boolean[], p_hashes bigint[],
    OUT seqs bigint[], OUT duplicates boolean[], OUT evicted bigint[], OUT full_groups text[], OUT waiting bigint[])
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT s.* INTO seqs, duplicates, evicted, full_groups, waiting
    FROM bus_store(ARRAY(
        SELECT ROW(u.*)::bus_envelope
        FROM unnest(p_ids, p_topics, p_keys, p_sources, p_kinds, p_times, p_types, p_correlations, p_traces, p_datas, p_priorities, p_hashes)
            AS u), p_backlog_max, p_history_max, p_window) AS s;
    -- Commits that notify wait for each other in the whole server: once a write, and not for nothing.
    IF false = ANY (duplicates) THEN
        PERFORM pg_notify(p_channel, '');
    END IF;
END $$;

-- Keeps an event back. Answers 0 kept, 1 known (with its place), 2 as many are delayed as may (with how many).
CREATE FUNCTION bus_delay(p_channel text, p_event bus_envelope, p_until bigint, p_now bigint, p_is_server boolean, p_delayed_max bigint,
    OUT answer int, OUT seq bigint, OUT waiting bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_head bus_head := bus_lock_head();
    v_known bus_id;
BEGIN
    waiting := v_head.delayed;
    SELECT * INTO v_known FROM bus_id k WHERE k.id = p_event.id;
    IF FOUND THEN
        answer := 1;
        seq := v_known.seq;
    ELSIF v_head.delayed >= p_delayed_max THEN
        answer := 2;
    ELSE
        answer := 0;
        INSERT INTO bus_id (id, is_finished) VALUES (p_event.id, false);
        INSERT INTO bus_delayed (until_ns, no, event) VALUES (p_until + bus_shift(p_now, p_is_server), v_head.next_delay, p_event);
        UPDATE bus_head SET delayed = delayed + 1, next_delay = next_delay + 1 WHERE one = 1;
        PERFORM pg_notify(p_channel, '');
    END IF;
END $$;

-- Takes a delayed event back; whether it was delayed.
CREATE FUNCTION bus_cancel(p_id text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM bus_lock_head();
    DELETE FROM bus_id k WHERE k.id = p_id AND k.seq IS NULL AND NOT k.is_finished;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM bus_delayed d WHERE d.until_ns >= 0 AND (d.event).id = p_id;
    UPDATE bus_head SET delayed = delayed - 1 WHERE one = 1;
    RETURN true;
END $$;

-- The delayed events that are due and that a claim looks at: those behind a walk, if there is one.
CREATE FUNCTION bus_due(p_walk bus_walk, p_now bigint, OUT untils bigint[], OUT nos bigint[], OUT ids text[], OUT events bus_envelope[])
LANGUAGE sql STABLE AS $$
    -- broker::DUE_MAX
    SELECT array_agg(d.until_ns ORDER BY d.until_ns, d.no), array_agg(d.no ORDER BY d.until_ns, d.no),
        array_agg((d.event).id ORDER BY d.until_ns, d.no), array_agg(d.event ORDER BY d.until_ns, d.no)
    FROM (SELECT * FROM bus_delayed
        WHERE until_ns <= p_now AND (until_ns, no) > (coalesce((p_walk).until_ns, -9223372036854775808), coalesce((p_walk).no, -1))
        ORDER BY until_ns, no LIMIT 64) AS d
$$;

-- Whether there is something to look at: the same without a lock.
CREATE FUNCTION bus_is_due(p_now bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    -- broker::REST
    SELECT EXISTS (SELECT FROM bus_walk w WHERE w.one = 1 AND w.began + 1000000000 <= p_now) OR EXISTS (SELECT FROM bus_delayed d
        WHERE d.until_ns <= p_now AND (d.until_ns, d.no) > (
            coalesce((SELECT w.until_ns FROM bus_walk w WHERE w.one = 1), -9223372036854775808),
            coalesce((SELECT w.no FROM bus_walk w WHERE w.one = 1), -1)))
$$;

-- Appends what was delayed until now; whether there is more to do at once. It walks along what is due, a part in each claim: those whose groups
-- are full stay, and it goes on behind them. It begins anew when it is at its end and the rest is over.
CREATE FUNCTION bus_release(p_channel text, p_now bigint, p_backlog_max bigint, p_history_max bigint, p_window bigint,
    OUT released bigint, OUT evicted bigint, OUT has_more boolean)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    -- broker::DUE_MAX, broker::REST
    c_due_max CONSTANT int := 64;
    c_rest CONSTANT bigint := 1000000000;
    v_head bus_head := bus_lock_head();
    v_walk bus_walk;
    v_is_walking boolean;
    v_due record;
    v_full int;
    v_held int[] := '{}';
    v_stored record;
    v_stays boolean[];
    v_left int := 0;
BEGIN
    released := 0;
    evicted := 0;
    SELECT * INTO v_walk FROM bus_walk WHERE one = 1;
    v_is_walking := FOUND;
    SELECT d.* INTO v_due FROM bus_due(v_walk, p_now) AS d;
    IF v_is_walking AND coalesce(cardinality(v_due.ids), 0) < c_due_max AND p_now >= v_walk.began + c_rest THEN
        DELETE FROM bus_walk WHERE one = 1;
        v_walk := null;
        v_is_walking := false;
        SELECT d.* INTO v_due FROM bus_due(v_walk, p_now) AS d;
    END IF;
    has_more := coalesce(cardinality(v_due.ids), 0) = c_due_max;
    IF v_due.ids IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM bus_id WHERE id = ANY (v_due.ids) AND seq IS NULL;
    v_stays := array_fill(false, ARRAY[cardinality(v_due.ids)]);
    IF v_is_walking THEN
        v_held := v_walk.held;
        FOR i IN 1 .. cardinality(v_due.ids) LOOP
            v_full := (SELECT o.id FROM bus_group o WHERE o.id > 0 AND (v_due.events[i]).topic LIKE o.likes
                AND o.laid - (SELECT sum(s.settled) FROM bus_stripe s WHERE s.group_id = o.id) >= p_backlog_max ORDER BY o.name LIMIT 1);
            v_held := v_held || v_full;
            -- Also if there is room by now: nothing overtakes on the way to a group.
            v_stays[i] := EXISTS (SELECT FROM bus_group o WHERE o.id = ANY (v_held) AND (v_due.events[i]).topic LIKE o.likes);
            IF NOT v_stays[i] THEN
                SELECT s.* INTO v_stored FROM bus_store(v_due.events[i:i], p_backlog_max, p_history_max, p_window) AS s;
                evicted := evicted + v_stored.evicted[1];
            END IF;
        END LOOP;
    ELSE
        SELECT s.* INTO v_stored FROM bus_store(v_due.events, p_backlog_max, p_history_max, p_window) AS s;
        FOR i IN 1 .. cardinality(v_due.ids) LOOP
            v_stays[i] := v_stored.full_groups[i] IS NOT NULL;
            evicted := evicted + v_stored.evicted[i];
            v_held := v_held || (SELECT o.id FROM bus_group o WHERE o.name = v_stored.full_groups[i]);
        END LOOP;
    END IF;
    FOR i IN 1 .. cardinality(v_due.ids) LOOP
        IF v_stays[i] THEN
            v_left := i;
            INSERT INTO bus_id (id, is_finished) VALUES (v_due.ids[i], false);
        ELSE
            released := released + 1;
            DELETE FROM bus_delayed WHERE until_ns = v_due.untils[i] AND no = v_due.nos[i];
        END IF;
    END LOOP;
    IF v_left > 0 THEN
        v_held := ARRAY(SELECT DISTINCT h FROM unnest(v_held) AS h WHERE h IS NOT NULL);
        INSERT INTO bus_walk VALUES (1, p_now, v_due.untils[v_left], v_due.nos[v_left], v_held)
        ON CONFLICT (one) DO UPDATE SET until_ns = excluded.until_ns, no = excluded.no, held = excluded.held;
    END IF;
    IF released > 0 THEN
        UPDATE bus_head SET delayed = delayed - released WHERE one = 1;
        PERFORM pg_notify(p_channel, '');
    END IF;
END $$;
