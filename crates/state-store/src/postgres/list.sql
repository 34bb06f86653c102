-- A part of a list, with its length in every row; an empty part has one row without bytes. Places are dense, so what is skipped is
-- never read. $3 are skipped, $4 wanted; $5: from the newest back.
SELECT l.newest - l.oldest + 1 AS length, v.bytes
FROM state_list l
LEFT JOIN LATERAL (
    SELECT place, bytes FROM state_list_value
    WHERE list = l.id
        AND place BETWEEN CASE WHEN $5 THEN greatest(l.newest - $3 - $4 + 1, l.oldest) ELSE l.oldest + $3 END
            AND CASE WHEN $5 THEN l.newest - $3 ELSE least(l.oldest + $3 + $4 - 1, l.newest) END
    ) AS v ON true
WHERE l.ns = (SELECT id FROM state_namespace WHERE name = $1) AND l.name = $2
    AND (l.expires_ms IS NULL OR l.expires_ms > state_now())
ORDER BY CASE WHEN $5 THEN -v.place ELSE v.place END
