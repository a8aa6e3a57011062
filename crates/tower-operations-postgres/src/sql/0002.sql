-- Version 2: a key is its owner's, by its name. Nodes of the release before may go on
-- meanwhile: what they call files keys the new way.

-- No key is filed the old way while the others move.
LOCK TABLE {keys} IN ACCESS EXCLUSIVE MODE;
LOCK TABLE {operations} IN SHARE ROW EXCLUSIVE MODE;

-- Owner and name of a key as one value: the name, if it is nobody's and begins with no
-- '@', which is 40; else '@', the length of the owner in bytes, ':', the owner, and the
-- name; of nobody '@' and the name.
CREATE FUNCTION {scope}(owner bytea, name bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN owner IS NOT NULL
        THEN convert_to('@' || octet_length(owner) || ':', 'UTF8') || owner || name
        WHEN substr(name, 1, 1) = '\x40'::bytea THEN '\x40'::bytea || name
        ELSE name
    END
$$;

UPDATE {operations} SET key = {scope}(owner, key)
WHERE key IS NOT NULL AND (owner IS NOT NULL OR substr(key, 1, 1) = '\x40'::bytea);

-- First the names that another name would become.
UPDATE {keys} SET name = {scope}(owner, name)
WHERE owner IS NULL AND substr(name, 1, 1) = '\x40'::bytea;
UPDATE {keys} SET name = {scope}(owner, name) WHERE owner IS NOT NULL;

-- Writes under way are refused, and their callers retry them.
ALTER TABLE {keys} ADD CHECK (owner IS NULL OR substr(name, 1, 1) = '\x40'::bytea);

-- These take scoped names now, and are called by them.
ALTER FUNCTION {insert}(
    text, bigint, bigint, text, bytea, bytea, interval, bytea, bytea, bytea, bigint,
    timestamptz
) RENAME TO {as_insert_scoped};
ALTER FUNCTION {reserve}(
    bytea, bytea, bytea, bigint, interval, timestamptz
) RENAME TO {as_reserve_scoped};

-- For nodes of the release before, which bring bare ones.
CREATE FUNCTION {insert}(
    new_id text,
    new_version bigint,
    new_token bigint,
    new_state text,
    new_owner bytea,
    new_head bytea,
    lease interval,
    new_request bytea,
    key_name bytea,
    key_fingerprint bytea,
    reservation bigint,
    at timestamptz,
    OUT outcome text,
    OUT owner bytea,
    OUT fingerprint bytea,
    OUT head bytea,
    OUT result bytea,
    OUT made_by bytea
) LANGUAGE sql AS $$
    SELECT * FROM {insert_scoped}(
        new_id, new_version, new_token, new_state, new_owner, new_head, lease,
        new_request, {scope}(new_owner, key_name), key_fingerprint, reservation, at
    )
$$;

CREATE FUNCTION {reserve}(
    key_name bytea,
    key_owner bytea,
    key_fingerprint bytea,
    reservation bigint,
    term interval,
    at timestamptz,
    OUT stands_for text,
    OUT owner bytea,
    OUT fingerprint bytea,
    OUT head bytea,
    OUT result bytea
) LANGUAGE sql AS $$
    SELECT * FROM {reserve_scoped}(
        {scope}(key_owner, key_name), key_owner, key_fingerprint, reservation, term, at
    )
$$;

INSERT INTO {versions} (version) VALUES (2);
