-- Before any moment, so that it is told from a lease that has lapsed.
WITH relaxed AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), held AS MATERIALIZED (
    SELECT held.id, held.token FROM relaxed, unnest($1::text[], $2::bigint[]) AS held (id, token)
)
UPDATE {operations} AS o SET lease_until = '-infinity'
FROM held
WHERE o.id = held.id AND o.token = held.token AND o.expires_at IS NULL
