-- The secret that list cursors are sealed with, one for all nodes.
ALTER TABLE {versions} ADD COLUMN secret bytea;

INSERT INTO {versions} (version, secret) VALUES (
    3, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
);
