SELECT number, order_key, event_id, payload
FROM state_outbox
WHERE ns = (SELECT id FROM state_namespace WHERE name = $1) AND name = $2 AND number > $3
ORDER BY number
LIMIT $4
