INSERT INTO state_probe (id, at_ms) VALUES (1, state_now()) ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms
