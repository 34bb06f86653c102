-- Removes at most p_max rows of a namespace: one chunk of clearing it, so that others get their turn in between. Answers whether
-- there may be more, and how many keys went that were alive. The last number and the fences stay.
CREATE FUNCTION state_clear(p_ns text, p_max bigint, OUT more boolean, OUT live bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_space state_namespace;
    v_now bigint;
    v_left bigint := p_max;
    v_count bigint;
    v_live bigint;
BEGIN
    more := false;
    live := 0;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a batch needs the isolation level read committed' USING ERRCODE = 'IN002';
    END IF;
    SELECT * INTO v_space FROM state_namespace WHERE name = p_ns FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_now := state_now();

    -- With each chunk, so that whoever follows the changes is never told of a state that is older than what it missed.
    IF v_space.changes_max > 0 THEN
        DELETE FROM state_change WHERE ns = v_space.id AND number > v_space.changes_floor;
        UPDATE state_namespace SET last_number = last_number + 1, changes_floor = last_number + 1, changes_kept = 0
        WHERE id = v_space.id;
    END IF;

    WITH gone AS (
        DELETE FROM state_entry WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM state_entry WHERE ns = v_space.id ORDER BY kind, name LIMIT v_left))
        RETURNING expires_ms)
    SELECT count(*), count(*) FILTER (WHERE expires_ms IS NULL OR v_now < expires_ms) INTO v_count, v_live FROM gone;
    live := live + v_live;
    v_left := v_left - v_count;

    IF v_left > 0 THEN
        WITH freed AS (
            UPDATE state_lease SET holder = null WHERE ns = v_space.id AND name = ANY (ARRAY(
                SELECT name FROM state_lease WHERE ns = v_space.id AND holder IS NOT NULL LIMIT v_left))
            RETURNING expires_ms)
        SELECT count(*), count(*) FILTER (WHERE v_now < expires_ms) INTO v_count, v_live FROM freed;
        live := live + v_live;
        v_left := v_left - v_count;
    END IF;

    IF v_left > 0 THEN
        SELECT s.gone, s.live INTO v_count, v_live FROM state_shrink(v_space.id, null, v_now, v_left) AS s;
        live := live + v_live;
        v_left := v_left - v_count;
    END IF;

    IF v_left > 0 THEN
        DELETE FROM state_outbox WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM state_outbox WHERE ns = v_space.id LIMIT v_left));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
    END IF;

    IF v_left > 0 THEN
        DELETE FROM state_inbox WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM state_inbox WHERE ns = v_space.id LIMIT v_left));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_left := v_left - v_count;
    END IF;
    more := v_left <= 0;
END $$;
