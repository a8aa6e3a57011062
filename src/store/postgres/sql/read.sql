-- One row, whether the operation is there or not. A standby may be behind: what
-- it says is not taken.
SELECT server.is_standby, o.head, o.result
FROM (SELECT pg_is_in_recovery() AS is_standby) AS server
LEFT JOIN {operations} AS o ON o.id = $1
