UPDATE {operations} SET
    version = $4, token = $5, state = $6, head = $7, result = $8,
    expires_at = TIMESTAMPTZ 'epoch' + $9 * INTERVAL '1 microsecond',
    lease_until = NULL, request = NULL
WHERE id = $1 AND version = $2 AND token = $3
