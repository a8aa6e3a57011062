-- Ends several operations, as `change` changes them.
UPDATE {operations} AS o
SET version = next.version, token = next.token, state = next.state, head = next.head,
    result = next.result,
    expires_at = TIMESTAMPTZ 'epoch' + next.expires_at * INTERVAL '1 microsecond',
    lease_until = NULL, request = NULL
FROM unnest(
    (SELECT $1::text[]), (SELECT $2::bigint[]), (SELECT $3::bigint[]), (SELECT $4::bigint[]),
    (SELECT $5::bigint[]), (SELECT $6::text[]), (SELECT $7::bytea[]), (SELECT $8::bytea[]),
    (SELECT $9::bigint[])
) AS next (id, was_version, was_token, version, token, state, head, result, expires_at),
LATERAL (SELECT ctid FROM {operations} WHERE id = next.id FOR UPDATE SKIP LOCKED LIMIT 1) AS found
WHERE o.ctid = found.ctid AND o.version = next.was_version AND o.token = next.was_token
RETURNING o.id
