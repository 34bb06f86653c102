-- As get.sql, with leases among the keys: one statement, because that is one snapshot, and one moment for all.
WITH clock AS MATERIALIZED (SELECT state_now() AS ms),
     space AS MATERIALIZED (SELECT id FROM state_namespace WHERE name = $1)
SELECT k.at, e.bytes, e.counter, e.version, e.expires_ms, null AS holder
FROM unnest($2::smallint[], $3::text[], $4::bigint[]) AS k (kind, name, at)
CROSS JOIN LATERAL (
    SELECT * FROM state_entry
    WHERE ns = (SELECT id FROM space) AND kind = k.kind AND name = k.name OFFSET 0) AS e
WHERE e.expires_ms IS NULL OR e.expires_ms > (SELECT ms FROM clock)
UNION ALL
SELECT k.at, null, null, l.fence, l.expires_ms, l.holder
FROM unnest($5::text[], $6::bigint[]) AS k (name, at)
CROSS JOIN LATERAL (
    SELECT * FROM state_lease WHERE ns = (SELECT id FROM space) AND name = k.name OFFSET 0) AS l
WHERE l.holder IS NOT NULL AND l.expires_ms > (SELECT ms FROM clock)
