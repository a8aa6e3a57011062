-- Inserts several operations; answers the ids of those that were inserted.
INSERT INTO {operations} (id, version, token, state, owner, head, lease_until, request)
SELECT id, version, token, state, owner, head, now() + term * INTERVAL '1 microsecond', request
FROM unnest(
    (SELECT $1::text[]), (SELECT $2::bigint[]), (SELECT $3::bigint[]), (SELECT $4::text[]),
    (SELECT $5::bytea[]), (SELECT $6::bytea[]), (SELECT $7::bigint[]), (SELECT $8::bytea[])
) AS new (id, version, token, state, owner, head, term, request)
ON CONFLICT DO NOTHING
RETURNING id
