SELECT id, head, request FROM {operations}
WHERE lease_until <= now() AND expires_at IS NULL
ORDER BY lease_until
LIMIT $1
