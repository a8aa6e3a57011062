-- The key is locked first, as everywhere.
WITH bound AS MATERIALIZED (
    SELECT k.name FROM {keys} AS k
    WHERE k.name = (SELECT key FROM {operations} WHERE id = $1)
        AND k.stands_for = 'operation' AND k.operation = $1
    FOR UPDATE
), forgotten AS (
    DELETE FROM {operations}
    WHERE id = $1 AND version = $2 AND token = $3 AND (SELECT count(*) FROM bound) >= 0
    RETURNING key
), kept AS (
    UPDATE {keys} SET
        stands_for = 'remains', operation = NULL, body = $4,
        until = TIMESTAMPTZ 'epoch' + $5 * INTERVAL '1 microsecond'
    WHERE name = (SELECT key FROM forgotten)
        AND stands_for = 'operation' AND operation = $1
)
SELECT FROM forgotten
