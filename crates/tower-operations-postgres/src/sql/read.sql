-- One row, whether the operation is there or not. A standby may be behind: what
-- it says is not taken.
-- A result that is not for the reader, or too long for it, is not read: the length of a value is
-- known without it.
SELECT server.is_standby, o.head,
    CASE WHEN ($2::boolean OR o.owner IS NOT DISTINCT FROM $3::bytea)
        AND octet_length(o.result) <= $4::bigint THEN o.result END AS result
FROM (SELECT pg_is_in_recovery() AS is_standby) AS server
LEFT JOIN {operations} AS o ON o.id = $1
