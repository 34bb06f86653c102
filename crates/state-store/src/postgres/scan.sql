-- Names compare as bytes (collation "C"), so a prefix is a range of the index; LIKE would read % and _ as wildcards.
SELECT e.name, e.bytes, e.counter, e.version, e.expires_ms, null::text AS holder
FROM state_entry e
WHERE e.ns = (SELECT id FROM state_namespace WHERE name = $1) AND e.kind = 1 AND e.name >= $2 AND e.name < $3
    AND (e.expires_ms IS NULL OR e.expires_ms > (SELECT state_now()))
ORDER BY e.name
LIMIT $4
