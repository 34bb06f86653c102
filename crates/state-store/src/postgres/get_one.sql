SELECT e.bytes, e.counter, e.version, e.expires_ms, null::text AS holder
FROM state_entry e
WHERE e.ns = (SELECT id FROM state_namespace WHERE name = $1) AND e.kind = $2 AND e.name = $3
    AND (e.expires_ms IS NULL OR e.expires_ms > state_now())
