-- What is found beside the change is as old as this statement; if it is what was
-- expected, somebody else was faster since.
WITH changed AS (
    UPDATE {operations} SET version = $4, token = $5, state = $6, head = $7
    WHERE id = $1 AND version = $2 AND token = $3
    RETURNING 1
)
SELECT true AS is_done, NULL::bytea AS head, NULL::bytea AS result FROM changed
UNION ALL
SELECT false, head, result FROM {operations}
WHERE id = $1 AND NOT EXISTS (SELECT FROM changed)
