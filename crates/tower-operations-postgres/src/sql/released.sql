SELECT id, head, request FROM {operations}
WHERE lease_until = '-infinity' AND expires_at IS NULL
LIMIT $1
