-- Need not be durable: a lease that a crash takes back is over a little sooner.
WITH relaxed AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), held AS MATERIALIZED (
    SELECT held.id, held.token FROM relaxed, unnest($1::text[], $2::bigint[]) AS held (id, token)
), renewed AS (
    UPDATE {operations} AS o SET lease_until = now() + $3 * INTERVAL '1 microsecond'
    FROM held
    WHERE o.id = held.id AND o.token = held.token AND o.expires_at IS NULL
        -- A released lease stays released.
        AND o.lease_until IS DISTINCT FROM '-infinity'
    RETURNING o.id
)
SELECT held.id, held.token FROM held
WHERE NOT EXISTS (SELECT FROM renewed WHERE renewed.id = held.id)
