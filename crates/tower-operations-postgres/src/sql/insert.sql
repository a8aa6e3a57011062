INSERT INTO {operations} (id, version, token, state, owner, head, lease_until, request)
VALUES ($1, $2, $3, $4, $5, $6, now() + $7 * INTERVAL '1 microsecond', $8)
ON CONFLICT DO NOTHING
