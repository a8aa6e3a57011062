-- Changes several operations; answers the ids of those that were changed. Each row is looked up
-- by its own index scan, whatever the statistics of the table say. The arrays are subqueries, so
-- that a plan for any number of rows is as good as one for this number, and is kept.
UPDATE {operations} AS o
SET version = next.version, token = next.token, state = next.state, head = next.head
FROM unnest(
    (SELECT $1::text[]), (SELECT $2::bigint[]), (SELECT $3::bigint[]), (SELECT $4::bigint[]),
    (SELECT $5::bigint[]), (SELECT $6::text[]), (SELECT $7::bytea[])
) AS next (id, was_version, was_token, version, token, state, head),
LATERAL (SELECT ctid FROM {operations} WHERE id = next.id FOR UPDATE SKIP LOCKED LIMIT 1) AS found
WHERE o.ctid = found.ctid AND o.version = next.was_version AND o.token = next.was_token
RETURNING o.id
