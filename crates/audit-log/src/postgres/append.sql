-- Locks the head until the transaction ends and says what the next append builds upon: the head, the highest index that is stored,
-- and which of these ids are. What comes after the lock sees what was committed before it was given, because in READ COMMITTED each
-- statement of a volatile function has a snapshot of its own; any other isolation is refused.
CREATE FUNCTION audit_look(p_ids text[], OUT size bigint, OUT turn bigint, OUT frontier bytea, OUT newest bigint,
    OUT known_ids text[], OUT known_places bigint[], OUT known_leaves bytea[])
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an append needs the isolation level read committed' USING ERRCODE = 'IN042';
    END IF;
    SELECT h.size, h.turn, h.frontier INTO size, turn, frontier FROM audit_head h WHERE h.one = 1 FOR NO KEY UPDATE;
    SELECT max(e.idx) INTO newest FROM audit_event e;
    SELECT array_agg(e.id), array_agg(e.idx), array_agg(e.leaf_hash) INTO known_ids, known_places, known_leaves
    FROM audit_event e WHERE e.id = ANY (p_ids);
END $$;

-- Appends these events and the head that they make, if the log still is what the caller computed that head from and has none of the
-- ids. Otherwise stored is false, nothing is written, and the answer is what audit_look says.
CREATE FUNCTION audit_append(p_size bigint, p_turn bigint, p_frontier bytea, p_grown bytea,
    p_ids text[], p_kinds text[], p_symbols text[], p_people text[], p_ats bigint[], p_leaves bytea[], p_datas bytea[],
    OUT stored boolean, OUT size bigint, OUT turn bigint, OUT frontier bytea, OUT newest bigint,
    OUT known_ids text[], OUT known_places bigint[], OUT known_leaves bytea[])
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT l.* INTO size, turn, frontier, newest, known_ids, known_places, known_leaves FROM audit_look(p_ids) l;
    stored := coalesce(size = p_size AND turn = p_turn AND frontier = p_frontier AND coalesce(newest, -1) = size - 1
        AND known_ids IS NULL, false);
    IF stored THEN
        INSERT INTO audit_event (idx, id, kind, symbol, person, at, leaf_hash, data)
        SELECT p_size + n - 1, id, kind, symbol, person, at, leaf_hash, data
        FROM unnest(p_ids, p_kinds, p_symbols, p_people, p_ats, p_leaves, p_datas) WITH ORDINALITY
            AS e (id, kind, symbol, person, at, leaf_hash, data, n);
        UPDATE audit_head h SET size = p_size + cardinality(p_ids), frontier = p_grown WHERE h.one = 1;
    END IF;
END $$;

-- After a lost answer: waits for whoever appends, makes every append void that was sent on an earlier turn and is still on its way,
-- and says what is stored. So the lost one is in this head or in none.
CREATE FUNCTION audit_settle(OUT size bigint, OUT turn bigint, OUT frontier bytea, OUT newest bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT l.size, l.turn + 1, l.frontier, l.newest INTO size, turn, frontier, newest FROM audit_look('{}') l;
    UPDATE audit_head h SET turn = h.turn + 1 WHERE h.one = 1;
END $$;
