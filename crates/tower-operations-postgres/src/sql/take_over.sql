UPDATE {operations} SET
    version = $4, token = $5, state = $6, head = $7,
    lease_until = clock_timestamp() + $8 * INTERVAL '1 microsecond'
WHERE id = $1 AND version = $2 AND token = $3 AND lease_until <= clock_timestamp()
