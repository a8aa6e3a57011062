-- One row, whether the operation is there or not. A standby may be behind: what
-- it says is not taken.
-- A result that is not for the reader is not looked at.
SELECT server.is_standby, o.head,
    CASE WHEN $2::boolean OR o.owner IS NOT DISTINCT FROM $3::bytea THEN o.result END AS result
FROM (SELECT pg_is_in_recovery() AS is_standby) AS server
LEFT JOIN {operations} AS o ON o.id = $1
