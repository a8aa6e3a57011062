-- Ordered by both, so that the index serves the order for nobody's too.
SELECT server.is_standby, page.number, page.head, page.result
FROM (SELECT pg_is_in_recovery() AS is_standby) AS server
LEFT JOIN LATERAL (
    SELECT number, head, result FROM {operations}
    WHERE owner {is_owner} AND number < $2
        AND ($3::text[] IS NULL OR state = ANY ($3))
        AND (expires_at IS NULL OR expires_at > TIMESTAMPTZ 'epoch' + $4 * INTERVAL '1 microsecond')
    ORDER BY owner DESC, number DESC
    LIMIT $5
) AS page ON true
ORDER BY page.number DESC
