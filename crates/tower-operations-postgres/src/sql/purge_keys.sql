DELETE FROM {keys} WHERE name = ANY (ARRAY(
    SELECT name FROM {keys}
    WHERE until <= least(now(), TIMESTAMPTZ 'epoch' + $1 * INTERVAL '1 microsecond')
    ORDER BY until
    LIMIT $2
    FOR UPDATE SKIP LOCKED
))
