-- The entries of many keys, by the place of the key. The brackets with OFFSET keep every lookup one of the index.
SELECT k.at, e.bytes, e.counter, e.version, e.expires_ms, null::text AS holder
FROM unnest($2::smallint[], $3::text[], $4::bigint[]) AS k (kind, name, at)
CROSS JOIN LATERAL (
    SELECT * FROM state_entry
    WHERE ns = (SELECT id FROM state_namespace WHERE name = $1) AND kind = k.kind AND name = k.name OFFSET 0) AS e
WHERE e.expires_ms IS NULL OR e.expires_ms > (SELECT state_now())
