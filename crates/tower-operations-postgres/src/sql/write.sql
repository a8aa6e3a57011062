-- Inserts, changes and ends several operations; answers the ids of those that were written. No id
-- comes twice. Each row is looked up by its own index scan, whatever the statistics of the table
-- say, and is skipped if another transaction holds it. Only an insert waits, for another insert of
-- its id that has not committed. The arrays are subqueries, so that a plan for any number of rows
-- is as good as one for this number, and is kept. A place that is found is locked, so its row is
-- still the one with this version and token.
WITH inserted AS (
    INSERT INTO {operations} (id, version, token, state, owner, head, lease_until, request)
    SELECT id, version, token, state, owner, head, now() + term * INTERVAL '1 microsecond', request
    FROM unnest(
        (SELECT $1::text[]), (SELECT $2::bigint[]), (SELECT $3::bigint[]), (SELECT $4::text[]),
        (SELECT $5::bytea[]), (SELECT $6::bytea[]), (SELECT $7::bigint[]), (SELECT $8::bytea[])
    ) AS new (id, version, token, state, owner, head, term, request)
    -- A conflict would wait for a transaction that changes the row. OFFSET keeps the index scan.
    WHERE NOT EXISTS (SELECT FROM {operations} AS old WHERE old.id = new.id OFFSET 0)
    ON CONFLICT DO NOTHING
    RETURNING id
), changed AS (
    UPDATE {operations} AS o
    SET version = next.version, token = next.token, state = next.state, head = next.head
    FROM unnest(
        (SELECT $9::text[]), (SELECT $10::bigint[]), (SELECT $11::bigint[]),
        (SELECT $12::bigint[]), (SELECT $13::bigint[]), (SELECT $14::text[]),
        (SELECT $15::bytea[])
    ) AS next (id, was_version, was_token, version, token, state, head),
    LATERAL (
        SELECT ctid FROM {operations}
        WHERE id = next.id AND version = next.was_version AND token = next.was_token
        FOR UPDATE SKIP LOCKED LIMIT 1
    ) AS found
    -- The ids differ where partitions have equal places. IS TRUE keeps the join by place.
    WHERE o.ctid = found.ctid AND (o.id = next.id) IS TRUE
    RETURNING o.id
), ended AS (
    UPDATE {operations} AS o
    SET version = next.version, token = next.token, state = next.state, head = next.head,
        result = next.result,
        expires_at = TIMESTAMPTZ 'epoch' + next.expires_at * INTERVAL '1 microsecond',
        lease_until = NULL, request = NULL
    FROM unnest(
        (SELECT $16::text[]), (SELECT $17::bigint[]), (SELECT $18::bigint[]),
        (SELECT $19::bigint[]), (SELECT $20::bigint[]), (SELECT $21::text[]),
        (SELECT $22::bytea[]), (SELECT $23::bytea[]), (SELECT $24::bigint[])
    ) AS next (id, was_version, was_token, version, token, state, head, result, expires_at),
    LATERAL (
        SELECT ctid FROM {operations}
        WHERE id = next.id AND version = next.was_version AND token = next.was_token
        FOR UPDATE SKIP LOCKED LIMIT 1
    ) AS found
    -- The ids differ where partitions have equal places. IS TRUE keeps the join by place.
    WHERE o.ctid = found.ctid AND (o.id = next.id) IS TRUE
    RETURNING o.id
)
SELECT id FROM inserted UNION ALL SELECT id FROM changed UNION ALL SELECT id FROM ended
