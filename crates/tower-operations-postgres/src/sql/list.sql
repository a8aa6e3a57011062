-- Ordered by both, so that the index serves the order for nobody's too. A result that is too long
-- ($7) is not read. Once the results that are read have so many bytes ($6), nothing more is read:
-- the length of a value is known without it.
SELECT server.is_standby, page.id, page.number, page.bytes < $6 AS is_read,
    CASE WHEN page.bytes < $6 THEN page.head END AS head,
    CASE WHEN page.bytes < $6 AND page.length <= $7::bigint THEN page.result END AS result
FROM (SELECT pg_is_in_recovery() AS is_standby) AS server
LEFT JOIN LATERAL (
    SELECT listed.*, coalesce(sum(length) FILTER (WHERE length <= $7::bigint) OVER (
        ORDER BY number DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), 0) AS bytes
    FROM (
        SELECT id, number, head, result, octet_length(result) AS length FROM {operations}
        WHERE owner {is_owner} AND number < $2
            AND ($3::text[] IS NULL OR state = ANY ($3))
            AND (expires_at IS NULL OR expires_at > TIMESTAMPTZ 'epoch' + $4 * INTERVAL '1 microsecond')
        ORDER BY owner DESC, number DESC
        LIMIT $5
    ) AS listed
) AS page ON true
ORDER BY page.number DESC
