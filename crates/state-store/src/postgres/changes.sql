-- The namespace and its changes after a number, in one snapshot; without changes one row without a number.
SELECT n.last_number, n.changes_max, n.changes_floor, c.number, c.name, c.version, c.expires_ms
FROM state_namespace n
LEFT JOIN LATERAL (
    SELECT * FROM state_change
    WHERE ns = n.id AND number > $2
    ORDER BY number LIMIT $3) AS c ON true
WHERE n.name = $1
ORDER BY c.number
