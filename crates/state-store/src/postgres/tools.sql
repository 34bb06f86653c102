-- The server's wall clock in milliseconds. Never now(): that stands still in a transaction, which may have waited for its lock.
CREATE FUNCTION state_now() RETURNS bigint LANGUAGE sql VOLATILE
    RETURN floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- The 8-second stretch of time after which nothing that ends at this millisecond is alive.
CREATE FUNCTION state_doom(p_expires bigint) RETURNS int LANGUAGE sql IMMUTABLE
    RETURN (p_expires >> 13)::int + 1;

-- Forgets the oldest changes beyond the newest that are kept.
CREATE FUNCTION state_trim(p_space state_namespace) RETURNS state_namespace
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_last bigint;
BEGIN
    IF p_space.changes_kept <= p_space.changes_max THEN
        RETURN p_space;
    END IF;
    -- From the floor on: before it lie the remains of what was deleted.
    SELECT max(number) INTO v_last FROM (
        SELECT number FROM state_change WHERE ns = p_space.id AND number > p_space.changes_floor
        ORDER BY number LIMIT p_space.changes_kept - p_space.changes_max) AS oldest;
    DELETE FROM state_change
    WHERE ns = p_space.id AND number > p_space.changes_floor AND number <= v_last;
    p_space.changes_kept := p_space.changes_max;
    p_space.changes_floor := greatest(p_space.changes_floor, v_last);
    RETURN p_space;
END $$;

-- Removes at most p_max values of lists, with the lists that are empty by that: of those that have expired by p_doomed, or of all
-- where it is null. Answers how many values went, and how many lists that were alive at p_now.
CREATE FUNCTION state_shrink(p_ns int, p_doomed int, p_now bigint, p_max bigint, OUT gone bigint, OUT live bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_list state_list;
    v_until bigint;
BEGIN
    gone := 0;
    live := 0;
    FOR v_list IN
        SELECT * FROM state_list
        WHERE ns = p_ns AND (p_doomed IS NULL OR doomed <= p_doomed)
        LIMIT p_max FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        v_until := least(v_list.newest, v_list.oldest + (p_max - gone) - 1);
        DELETE FROM state_list_value
        WHERE list = v_list.id AND place >= v_list.oldest AND place <= v_until;
        gone := gone + (v_until - v_list.oldest + 1);
        IF v_until = v_list.newest THEN
            DELETE FROM state_list WHERE ns = p_ns AND name = v_list.name;
            IF v_list.expires_ms IS NULL OR p_now < v_list.expires_ms THEN
                live := live + 1;
            END IF;
        ELSE
            UPDATE state_list SET oldest = v_until + 1 WHERE ns = p_ns AND name = v_list.name;
        END IF;
        EXIT WHEN gone >= p_max;
    END LOOP;
END $$;

-- Removes at most 100 rows of each table that have expired, so that no batch pays for a whole backlog. Expired rows are absent for
-- everybody anyway; this gives their room back. Answers when there is more to do.
CREATE FUNCTION state_sweep(p_ns int, p_now bigint) RETURNS int
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_doomed int := (p_now >> 13)::int;
BEGIN
    DELETE FROM state_entry WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM state_entry WHERE ns = p_ns AND doomed <= v_doomed
        ORDER BY doomed LIMIT 100 FOR UPDATE SKIP LOCKED));
    DELETE FROM state_inbox WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM state_inbox WHERE ns = p_ns AND doomed <= v_doomed
        ORDER BY doomed LIMIT 100 FOR UPDATE SKIP LOCKED));
    PERFORM state_shrink(p_ns, v_doomed, p_now, 100);
    RETURN least(
        (SELECT doomed FROM state_entry WHERE ns = p_ns AND doomed IS NOT NULL ORDER BY doomed LIMIT 1),
        (SELECT doomed FROM state_inbox WHERE ns = p_ns AND doomed IS NOT NULL ORDER BY doomed LIMIT 1),
        (SELECT doomed FROM state_list WHERE ns = p_ns AND doomed IS NOT NULL ORDER BY doomed LIMIT 1));
END $$;
