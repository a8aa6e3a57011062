-- Rows that another transaction has locked are left for the next time. Arrays, so that the
-- plan is by index however many there are.
WITH expired AS MATERIALIZED (
    SELECT id, key FROM {operations}
    WHERE expires_at <= TIMESTAMPTZ 'epoch' + $1 * INTERVAL '1 microsecond'
    ORDER BY expires_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
), bound AS MATERIALIZED (
    SELECT name, operation FROM {keys}
    WHERE name = ANY (ARRAY(SELECT key FROM expired WHERE key IS NOT NULL))
        AND stands_for = 'operation' AND operation = ANY (ARRAY(SELECT id FROM expired))
), locked AS MATERIALIZED (
    SELECT name, operation FROM {keys}
    WHERE name = ANY (ARRAY(SELECT name FROM bound))
        AND stands_for = 'operation' AND operation = ANY (ARRAY(SELECT id FROM expired))
    FOR UPDATE SKIP LOCKED
), freed AS (
    DELETE FROM {keys} WHERE name = ANY (ARRAY(SELECT name FROM locked))
), purged AS (
    DELETE FROM {operations}
    WHERE id = ANY (ARRAY(
        SELECT id FROM expired
        EXCEPT (SELECT operation FROM bound EXCEPT SELECT operation FROM locked)
    ))
    RETURNING 1
)
SELECT count(*) FROM purged
