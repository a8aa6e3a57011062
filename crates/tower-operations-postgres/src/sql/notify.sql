-- In a transaction of its own that does not wait for the disk: notifying holds a
-- lock over the commit.
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, payload)
FROM unnest($2::text[]) AS payload
