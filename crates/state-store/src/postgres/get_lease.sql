SELECT null::bytea AS bytes, null::bigint AS counter, l.fence AS version, l.expires_ms, l.holder
FROM state_lease l
WHERE l.ns = (SELECT id FROM state_namespace WHERE name = $1) AND l.name = $2
    AND l.holder IS NOT NULL AND l.expires_ms > state_now()
