UPDATE {operations} SET lease_until = clock_timestamp() + $2 * INTERVAL '1 microsecond'
WHERE id = ANY ($1) AND lease_until <= clock_timestamp() AND expires_at IS NULL
