-- One batch. Every operation is one place in the arrays; an array that no operation of the batch needs may be empty.
--   ops     1 set, 2 delete, 3 check, 4 add, 5 push, 6 admit, 7 keep changes, 8 acquire, 9 renew, 10 release, 11 check fence,
--           12 enqueue, 13 acknowledge, 14 mark
--   kinds   0 cache, 1 record, 2 lease, 3 list, 4 window
--   names   the key
--   words   holder; order key; id of a mark
--   ids     id of a message
--   loads   bytes of a value
--   nums    counter; addend; amount; fence; cap of a list; number of a message; how many changes are kept
--   mins, maxs   bounds of a counter; slices (mins) and limit (maxs) of a window
--   whens   null always, 0 absent, -1 exists, > 0 this version, else a version that was never given
--   ttls    null for ever, -1 as before, else milliseconds; length of a window
-- An operation that refuses is answered as refusal (1 mismatch, 2 out of bounds, 3 overflow, 4 wrong type, 5 lease held, 6 fenced,
-- 7 window full, 8 processed before) of operation op_index, with up to three details. If something was written by then, the same is
-- raised as IN001, because only that takes the writes back; state_apply_guarded catches it.
-- Else results has a number for every operation; for a granted lease two, fence and end.
CREATE FUNCTION state_apply(
    p_ns text, p_ops smallint[], p_kinds smallint[], p_names text[], p_words text[], p_ids text[], p_loads bytea[],
    p_nums bigint[], p_mins bigint[], p_maxs bigint[], p_whens bigint[], p_ttls bigint[],
    OUT refusal int, OUT op_index int, OUT detail bigint, OUT extra bigint, OUT words text, OUT results bigint[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    c_counter_max CONSTANT bigint := 9007199254740991;
    -- The last millisecond of a timestamp in nanoseconds.
    c_time_max CONSTANT bigint := 9223372036854;
    v_space state_namespace;
    v_before state_namespace;
    v_now bigint;
    v_wrote boolean := false;
    v_op smallint;
    v_kind smallint;
    v_name text;
    v_when bigint;
    v_ttl bigint;
    v_num bigint;
    -- What is there, and whether it is alive.
    v_live boolean;
    v_is_counter boolean;
    v_counter bigint;
    v_version bigint;
    v_expires bigint;
    v_doomed int;
    v_number bigint;
    v_lease state_lease;
    v_list state_list;
    v_slots bigint[];
    v_until bigint;
    v_at int;
BEGIN
    -- Locks the namespace until the transaction ends. What comes after reads what was committed before, because a volatile function
    -- takes a new snapshot for each statement; with a stricter isolation it would not, so that is refused.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a batch needs the isolation level read committed' USING ERRCODE = 'IN002';
    END IF;
    SELECT * INTO v_space FROM state_namespace WHERE name = p_ns FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO state_namespace (name) VALUES (p_ns) ON CONFLICT (name) DO NOTHING;
        SELECT * INTO v_space FROM state_namespace WHERE name = p_ns FOR NO KEY UPDATE;
    END IF;
    v_before := v_space;
    v_now := state_now();
    results := '{}';

    FOR i IN 1 .. cardinality(p_ops) LOOP
        v_op := p_ops[i];
        v_kind := p_kinds[i];
        v_name := p_names[i];
        v_when := p_whens[i];
        v_ttl := p_ttls[i];
        op_index := i - 1;

        -- What is there, for operations that depend on it.
        IF v_op <= 5 THEN
            v_live := false;
            v_is_counter := false;
            v_counter := null;
            v_version := null;
            v_expires := null;
            IF v_kind = 3 THEN
                SELECT * INTO v_list FROM state_list WHERE ns = v_space.id AND name = v_name;
                v_expires := v_list.expires_ms;
                v_live := FOUND AND (v_expires IS NULL OR v_now < v_expires);
            ELSIF v_op <> 1 OR v_when IS NOT NULL OR v_ttl = -1 OR p_nums[i] NOT BETWEEN -c_counter_max AND c_counter_max THEN
                SELECT counter, version, expires_ms INTO v_counter, v_version, v_expires
                FROM state_entry WHERE ns = v_space.id AND kind = v_kind AND name = v_name;
                v_live := FOUND AND (v_expires IS NULL OR v_now < v_expires);
                IF v_live THEN
                    v_is_counter := v_counter IS NOT NULL;
                ELSE
                    v_counter := null;
                    v_version := null;
                END IF;
            END IF;
            IF v_when IS NOT NULL THEN
                -- The brackets are for plpgsql, which would end the condition at the first THEN.
                IF NOT (CASE v_when WHEN 0 THEN NOT v_live WHEN -1 THEN v_live ELSE v_live AND v_version = v_when END) THEN
                    refusal := 1;
                    detail := CASE WHEN v_kind = 1 THEN v_version END;
                    EXIT;
                END IF;
            END IF;
            -- When what is written here will be gone.
            v_expires := CASE WHEN v_ttl IS NULL THEN null
                WHEN v_ttl = -1 THEN CASE WHEN v_live THEN v_expires END
                ELSE least(v_now + v_ttl, c_time_max) END;
            v_doomed := state_doom(v_expires);
        END IF;

        IF v_op = 1 OR v_op = 4 THEN
            v_num := p_nums[i];
            IF v_op = 4 THEN
                IF v_live AND NOT v_is_counter THEN
                    refusal := 4;
                    EXIT;
                END IF;
                detail := coalesce(v_counter, 0);
                -- An addend beyond the limit is refused by itself.
                IF v_num NOT BETWEEN -c_counter_max AND c_counter_max
                    OR detail + v_num NOT BETWEEN -c_counter_max AND c_counter_max THEN
                    refusal := 3;
                    EXIT;
                END IF;
                v_num := detail + v_num;
                IF v_num < p_mins[i] OR v_num > p_maxs[i] THEN
                    refusal := 2;
                    EXIT;
                END IF;
            ELSIF v_num NOT BETWEEN -c_counter_max AND c_counter_max THEN
                refusal := 3;
                detail := coalesce(v_counter, 0);
                EXIT;
            END IF;
            v_version := 0;
            IF v_kind = 1 THEN
                v_space.last_number := v_space.last_number + 1;
                v_version := v_space.last_number;
            END IF;
            INSERT INTO state_entry AS e (ns, kind, name, version, counter, expires_ms, doomed, bytes)
            VALUES (v_space.id, v_kind, v_name, v_version, v_num, v_expires, v_doomed,
                CASE WHEN v_num IS NULL THEN p_loads[i] END)
            ON CONFLICT (ns, kind, name) DO UPDATE SET version = excluded.version, counter = excluded.counter,
                expires_ms = excluded.expires_ms, doomed = excluded.doomed, bytes = excluded.bytes;
            v_space.next_doomed := least(v_space.next_doomed, v_doomed);
            IF v_kind = 1 AND v_space.changes_max > 0 THEN
                INSERT INTO state_change (ns, number, name, version, expires_ms)
                VALUES (v_space.id, v_version, v_name, v_version, v_expires);
                v_space.changes_kept := v_space.changes_kept + 1;
            END IF;
            results := results || CASE WHEN v_op = 4 THEN v_num ELSE v_version END;

        ELSIF v_op = 2 THEN
            IF v_kind = 3 THEN
                PERFORM state_drop_list(v_space.id, v_name);
            ELSE
                DELETE FROM state_entry WHERE ns = v_space.id AND kind = v_kind AND name = v_name;
            END IF;
            IF v_live AND v_kind = 1 AND v_space.changes_max > 0 THEN
                v_space.last_number := v_space.last_number + 1;
                INSERT INTO state_change (ns, number, name) VALUES (v_space.id, v_space.last_number, v_name);
                v_space.changes_kept := v_space.changes_kept + 1;
            END IF;
            results := results || v_live::int::bigint;

        ELSIF v_op = 3 THEN
            results := results || 0::bigint;
            CONTINUE;

        ELSIF v_op = 5 THEN
            IF v_list.id IS NOT NULL AND NOT v_live THEN
                PERFORM state_drop_list(v_space.id, v_name);
            END IF;
            -- The oldest of before; null for a new list.
            v_number := CASE WHEN v_live THEN v_list.oldest END;
            INSERT INTO state_list AS l (ns, name, oldest, newest, expires_ms, doomed)
            VALUES (v_space.id, v_name, 1, 1, v_expires, v_doomed)
            ON CONFLICT (ns, name) DO UPDATE SET newest = l.newest + 1,
                oldest = greatest(l.oldest, l.newest + 2 - p_nums[i]), expires_ms = excluded.expires_ms,
                doomed = excluded.doomed
            RETURNING * INTO v_list;
            v_space.next_doomed := least(v_space.next_doomed, v_doomed);
            INSERT INTO state_list_value (list, place, bytes) VALUES (v_list.id, v_list.newest, p_loads[i]);
            IF v_number < v_list.oldest THEN
                DELETE FROM state_list_value
                WHERE list = v_list.id AND place >= v_number AND place < v_list.oldest;
            END IF;
            results := results || (v_list.newest - v_list.oldest + 1);

        ELSIF v_op = 6 THEN
            SELECT slots INTO v_slots FROM state_entry WHERE ns = v_space.id AND kind = 4 AND name = v_name;
            v_slots := coalesce(v_slots, '{}');
            -- Amounts stand by the moment when they have left, the next to leave first.
            v_at := 1;
            WHILE v_slots[v_at] <= v_now LOOP
                v_at := v_at + 2;
            END LOOP;
            v_slots := v_slots[v_at:];
            detail := 0;
            FOR s IN 1 .. cardinality(v_slots) / 2 LOOP
                detail := detail + v_slots[2 * s];
            END LOOP;
            v_num := p_nums[i];
            IF v_num > 0 THEN
                IF v_num > p_maxs[i] - detail THEN
                    v_number := detail;
                    FOR s IN 1 .. cardinality(v_slots) / 2 LOOP
                        v_number := v_number - v_slots[2 * s];
                        IF v_num <= p_maxs[i] - v_number THEN
                            extra := v_slots[2 * s - 1] - v_now;
                            EXIT;
                        END IF;
                    END LOOP;
                    refusal := 7;
                    EXIT;
                END IF;
                -- It leaves a length after the end of its slice.
                v_number := greatest(v_ttl / p_mins[i], 1);
                v_until := (v_now / v_number + 1) * v_number + v_ttl;
                v_at := cardinality(v_slots);
                WHILE v_at > 0 AND v_slots[v_at - 1] > v_until LOOP
                    v_at := v_at - 2;
                END LOOP;
                IF v_at > 0 AND v_slots[v_at - 1] = v_until THEN
                    v_slots[v_at] := v_slots[v_at] + v_num;
                ELSE
                    v_slots := v_slots[:v_at] || ARRAY[v_until, v_num] || v_slots[v_at + 1:];
                END IF;
                -- Beyond 128 the two oldest become one that leaves with the later.
                IF cardinality(v_slots) > 256 THEN
                    v_num := v_slots[2];
                    v_slots := v_slots[3:];
                    v_slots[2] := v_slots[2] + v_num;
                END IF;
                v_until := v_slots[cardinality(v_slots) - 1];
                v_doomed := state_doom(v_until);
                INSERT INTO state_entry AS e (ns, kind, name, version, expires_ms, doomed, slots)
                VALUES (v_space.id, 4, v_name, 0, v_until, v_doomed, v_slots)
                ON CONFLICT (ns, kind, name) DO UPDATE SET expires_ms = excluded.expires_ms, doomed = excluded.doomed,
                    slots = excluded.slots;
                v_space.next_doomed := least(v_space.next_doomed, v_doomed);
                v_wrote := true;
            END IF;
            results := results || (detail + p_nums[i]);
            CONTINUE;

        ELSIF v_op = 7 THEN
            IF v_space.changes_max = 0 THEN
                v_space.changes_floor := v_space.last_number;
            END IF;
            -- What is beyond the bound of before is forgotten, also if the new one would have kept it.
            v_space := state_trim(v_space);
            v_space.changes_max := p_nums[i];
            IF v_space.changes_kept > v_space.changes_max THEN
                v_space := state_trim(v_space);
            END IF;
            results := results || 0::bigint;

        ELSIF v_op <= 11 THEN
            SELECT * INTO v_lease FROM state_lease WHERE ns = v_space.id AND name = v_name;
            v_num := p_nums[i];
            IF v_op = 8 THEN
                v_num := coalesce(v_lease.fence, 0);
                IF v_lease.holder IS NULL OR v_now >= v_lease.expires_ms THEN
                    v_num := v_num + 1;
                ELSIF v_lease.holder <> p_words[i] THEN
                    refusal := 5;
                    detail := v_lease.expires_ms;
                    words := v_lease.holder;
                    EXIT;
                END IF;
            ELSIF v_num <= 0 OR v_lease.fence IS DISTINCT FROM v_num
                OR (v_op = 9 AND v_lease.holder IS DISTINCT FROM p_words[i]) THEN
                refusal := 6;
                detail := coalesce(v_lease.fence, 0);
                EXIT;
            END IF;
            IF v_op = 10 THEN
                UPDATE state_lease SET holder = null WHERE ns = v_space.id AND name = v_name;
                results := results || 0::bigint;
            ELSIF v_op = 11 THEN
                results := results || 0::bigint;
                CONTINUE;
            ELSE
                v_until := least(v_now + v_ttl, c_time_max);
                INSERT INTO state_lease AS l (ns, name, fence, holder, expires_ms)
                VALUES (v_space.id, v_name, v_num, p_words[i], v_until)
                ON CONFLICT (ns, name) DO UPDATE SET fence = excluded.fence, holder = excluded.holder,
                    expires_ms = excluded.expires_ms;
                results := results || v_num || v_until;
            END IF;

        ELSIF v_op = 12 THEN
            v_space.last_number := v_space.last_number + 1;
            INSERT INTO state_outbox (ns, name, number, order_key, event_id, payload)
            VALUES (v_space.id, v_name, v_space.last_number, p_words[i], p_ids[i], p_loads[i]);
            results := results || 0::bigint;

        ELSIF v_op = 13 THEN
            DELETE FROM state_outbox WHERE ns = v_space.id AND name = v_name AND number <= p_nums[i];
            results := results || 0::bigint;

        ELSE
            v_expires := CASE WHEN v_ttl > 0 THEN least(v_now + v_ttl, c_time_max) END;
            v_doomed := state_doom(v_expires);
            INSERT INTO state_inbox AS m (ns, consumer, event_id, expires_ms, doomed)
            VALUES (v_space.id, v_name, p_words[i], v_expires, v_doomed)
            ON CONFLICT (ns, consumer, event_id) DO UPDATE SET expires_ms = excluded.expires_ms, doomed = excluded.doomed
                WHERE m.expires_ms <= v_now;
            v_space.next_doomed := least(v_space.next_doomed, v_doomed);
            IF NOT FOUND THEN
                refusal := 8;
                EXIT;
            END IF;
            results := results || 0::bigint;
        END IF;
        v_wrote := true;
    END LOOP;

    IF refusal IS NOT NULL AND v_wrote THEN
        RAISE EXCEPTION 'operation % refuses', op_index USING ERRCODE = 'IN001',
            DETAIL = concat_ws(' ', refusal, op_index, coalesce(detail::text, '-'), coalesce(extra::text, '-'), words);
    END IF;
    IF refusal IS NULL THEN
        op_index := null;
        detail := null;
    END IF;
    IF NOT v_wrote THEN
        -- Nothing to keep, so nothing to wait for: only the lock would be written to the disk.
        PERFORM set_config('synchronous_commit', 'off', true);
        RETURN;
    END IF;
    IF v_space.changes_kept > v_space.changes_max THEN
        v_space := state_trim(v_space);
    END IF;
    IF v_space.next_doomed <= v_now >> 13 THEN
        v_space.next_doomed := state_sweep(v_space.id, v_now);
    END IF;
    IF v_space IS DISTINCT FROM v_before THEN
        UPDATE state_namespace SET last_number = v_space.last_number, changes_max = v_space.changes_max,
            changes_floor = v_space.changes_floor, changes_kept = v_space.changes_kept, next_doomed = v_space.next_doomed
        WHERE id = v_space.id;
    END IF;
END $$;

-- As state_apply, for batches that may refuse after a write. The block is a savepoint: what was written in it is taken back, and the
-- server's log is spared a line that is no failure.
CREATE FUNCTION state_apply_guarded(
    p_ns text, p_ops smallint[], p_kinds smallint[], p_names text[], p_words text[], p_ids text[], p_loads bytea[],
    p_nums bigint[], p_mins bigint[], p_maxs bigint[], p_whens bigint[], p_ttls bigint[],
    OUT refusal int, OUT op_index int, OUT detail bigint, OUT extra bigint, OUT words text, OUT results bigint[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_detail text;
    v_parts text[];
BEGIN
    SELECT a.refusal, a.op_index, a.detail, a.extra, a.words, a.results
    INTO refusal, op_index, detail, extra, words, results
    FROM state_apply(p_ns, p_ops, p_kinds, p_names, p_words, p_ids, p_loads, p_nums, p_mins, p_maxs, p_whens, p_ttls)
        AS a;
EXCEPTION WHEN SQLSTATE 'IN001' THEN
    GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
    v_parts := regexp_match(v_detail, '^(\S+) (\S+) (\S+) (\S+) ?(.*)$');
    refusal := v_parts[1];
    op_index := v_parts[2];
    detail := nullif(v_parts[3], '-');
    extra := nullif(v_parts[4], '-');
    words := v_parts[5];
    results := null;
END $$;

-- Removes a list with all its values: at most 10,000.
CREATE FUNCTION state_drop_list(p_ns int, p_name text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_id bigint;
BEGIN
    DELETE FROM state_list WHERE ns = p_ns AND name = p_name RETURNING id INTO v_id;
    IF FOUND THEN
        DELETE FROM state_list_value WHERE list = v_id;
    END IF;
END $$;

-- A batch of nothing but unconditional sets of one kind and of different keys, as one statement: versions count in the order of the
-- arrays. Answers the first; null for cache keys.
CREATE FUNCTION state_set(p_ns text, p_kind smallint, p_names text[], p_loads bytea[], p_nums bigint[], p_ttls bigint[])
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    c_time_max CONSTANT bigint := 9223372036854;
    v_space state_namespace;
    v_before state_namespace;
    v_now bigint;
    v_count int := cardinality(p_names);
    v_first bigint;
BEGIN
    -- As in state_apply.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a batch needs the isolation level read committed' USING ERRCODE = 'IN002';
    END IF;
    SELECT * INTO v_space FROM state_namespace WHERE name = p_ns FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO state_namespace (name) VALUES (p_ns) ON CONFLICT (name) DO NOTHING;
        SELECT * INTO v_space FROM state_namespace WHERE name = p_ns FOR NO KEY UPDATE;
    END IF;
    v_before := v_space;
    v_now := state_now();
    IF p_kind = 1 THEN
        v_first := v_space.last_number + 1;
        v_space.last_number := v_space.last_number + v_count;
    END IF;
    INSERT INTO state_entry AS e (ns, kind, name, version, counter, expires_ms, doomed, bytes)
    SELECT v_space.id, p_kind, a.name, CASE WHEN p_kind = 1 THEN v_first - 1 + a.at ELSE 0 END, a.num,
        -- Not least() alone: it passes over a null.
        CASE WHEN a.ttl IS NOT NULL THEN least(v_now + a.ttl, c_time_max) END,
        CASE WHEN a.ttl IS NOT NULL THEN state_doom(least(v_now + a.ttl, c_time_max)) END,
        CASE WHEN a.num IS NULL THEN a.load END
    FROM unnest(p_names, p_loads, p_nums, p_ttls) WITH ORDINALITY AS a (name, load, num, ttl, at)
    ON CONFLICT (ns, kind, name) DO UPDATE SET version = excluded.version, counter = excluded.counter,
        expires_ms = excluded.expires_ms, doomed = excluded.doomed, bytes = excluded.bytes;
    IF cardinality(p_ttls) > 0 THEN
        SELECT least(v_space.next_doomed, state_doom(v_now + min(ttl))) INTO v_space.next_doomed FROM unnest(p_ttls) AS ttl;
    END IF;
    IF p_kind = 1 AND v_space.changes_max > 0 THEN
        INSERT INTO state_change (ns, number, name, version, expires_ms)
        SELECT v_space.id, v_first - 1 + a.at, a.name, v_first - 1 + a.at,
            CASE WHEN a.ttl IS NOT NULL THEN least(v_now + a.ttl, c_time_max) END
        FROM unnest(p_names, p_ttls) WITH ORDINALITY AS a (name, ttl, at);
        v_space.changes_kept := v_space.changes_kept + v_count;
        v_space := state_trim(v_space);
    END IF;
    IF v_space.next_doomed <= v_now >> 13 THEN
        v_space.next_doomed := state_sweep(v_space.id, v_now);
    END IF;
    IF v_space IS DISTINCT FROM v_before THEN
        UPDATE state_namespace SET last_number = v_space.last_number, changes_floor = v_space.changes_floor,
            changes_kept = v_space.changes_kept, next_doomed = v_space.next_doomed
        WHERE id = v_space.id;
    END IF;
    RETURN v_first;
END $$;
