-- Version 1: operations, their keys, and the two functions that bind one to
-- the other.

CREATE TABLE {versions} (
    version integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- No index has a column that starting or reporting changes, so those updates
-- stay within their page (HOT) as long as it has room.
CREATE TABLE {operations} (
    id text COLLATE "C" PRIMARY KEY,
    -- The order of creation.
    number bigint GENERATED ALWAYS AS IDENTITY,
    version bigint NOT NULL,
    -- The fencing token of the latest holder.
    token bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    owner bytea,
    -- The name of the key that made it.
    key bytea,
    -- By the clock of this server. Null if it has ended, or nobody holds it.
    lease_until timestamptz,
    -- By the clock of the node that ended it. Null as long as it is live.
    expires_at timestamptz,
    -- The record without its result, as JSON.
    head bytea NOT NULL,
    result bytea,
    -- For running it again; null once it has ended.
    request bytea
) WITH (fillfactor = 80);

CREATE INDEX {by_owner} ON {operations} (owner, number);
CREATE INDEX {by_lease} ON {operations} (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX {by_expiry} ON {operations} (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE {keys} (
    name bytea PRIMARY KEY,
    owner bytea,
    fingerprint bytea NOT NULL,
    -- 'request', 'operation', 'remains' or 'answer'.
    stands_for text COLLATE "C" NOT NULL,
    -- The fencing token of its reservation.
    token bigint,
    -- The operation it stands for, as long as that is there.
    operation text COLLATE "C",
    -- The remains of a deleted operation, or a direct answer.
    body bytea,
    -- Null if it stands for an operation: it lives as long as that.
    until timestamptz
) WITH (fillfactor = 80);

CREATE INDEX {by_until} ON {keys} (until) WHERE until IS NOT NULL;

-- Locks the row of a key, and says what the key stands for: null if it is free.
-- A key without a row gets one ("made"), with what it is to stand for.
-- Each statement in here sees what was committed before it began, so what was
-- waited for is seen.
CREATE FUNCTION {lock_key}(
    key_name bytea,
    key_owner bytea,
    key_fingerprint bytea,
    reservation bigint,
    at timestamptz,
    new_stands_for text,
    new_token bigint,
    new_operation text,
    new_until timestamptz,
    OUT made boolean,
    OUT stands_for text,
    OUT owner bytea,
    OUT fingerprint bytea,
    OUT head bytea,
    OUT result bytea
) LANGUAGE plpgsql AS $$
DECLARE
    found_key record;
BEGIN
    made := false;
    LOOP
        SELECT k.* INTO found_key FROM {keys} AS k WHERE k.name = key_name FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO {keys} AS k (name, owner, fingerprint, stands_for, token, operation, until)
        VALUES (
            key_name, key_owner, key_fingerprint,
            new_stands_for, new_token, new_operation, new_until
        )
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            made := true;
            RETURN;
        END IF;
    END LOOP;

    owner := found_key.owner;
    fingerprint := found_key.fingerprint;
    head := found_key.body;
    CASE found_key.stands_for
        WHEN 'operation' THEN
            SELECT o.head, o.result INTO head, result FROM {operations} AS o
            WHERE o.id = found_key.operation AND o.key = key_name
                AND (o.expires_at IS NULL OR o.expires_at > at);
            IF NOT FOUND THEN
                RETURN;
            END IF;
        WHEN 'remains' THEN
            IF found_key.until <= at THEN
                RETURN;
            END IF;
        WHEN 'request' THEN
            IF found_key.until <= clock_timestamp() OR found_key.token = reservation THEN
                RETURN;
            END IF;
        WHEN 'answer' THEN
            IF found_key.until <= clock_timestamp() THEN
                RETURN;
            END IF;
    END CASE;
    stands_for := found_key.stands_for;
END
$$;

-- Puts in an operation together with its key, if it has one. "outcome" is
-- 'done', 'id' (the id is taken), or what the key stands for.
-- The row of the key is locked before that of the operation, here as everywhere.
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
) LANGUAGE plpgsql AS $$
DECLARE
    locked record;
    there record;
    key_is_made boolean := false;
BEGIN
    IF key_name IS NOT NULL THEN
        SELECT * INTO locked FROM {lock_key}(
            key_name, new_owner, key_fingerprint, reservation, at,
            'operation', NULL, new_id, NULL
        );
        IF locked.stands_for IS NOT NULL THEN
            outcome := locked.stands_for;
            owner := locked.owner;
            fingerprint := locked.fingerprint;
            head := locked.head;
            result := locked.result;
            RETURN;
        END IF;
        key_is_made := locked.made;
    END IF;

    LOOP
        INSERT INTO {operations} AS o (
            id, version, token, state, owner, key, lease_until, head, request
        ) VALUES (
            new_id, new_version, new_token, new_state, new_owner, key_name,
            clock_timestamp() + lease, new_head, new_request
        )
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;

        SELECT o.* INTO there FROM {operations} AS o WHERE o.id = new_id FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        IF there.expires_at IS NULL OR there.expires_at > at THEN
            IF key_is_made THEN
                DELETE FROM {keys} AS k WHERE k.name = key_name;
            END IF;
            outcome := 'id';
            head := there.head;
            result := there.result;
            made_by := there.key;
            RETURN;
        END IF;
        -- It has expired: another one comes in its place.
        UPDATE {operations} AS o SET
            number = DEFAULT, version = new_version, token = new_token,
            state = new_state, owner = new_owner, key = key_name,
            lease_until = clock_timestamp() + lease, expires_at = NULL,
            head = new_head, result = NULL, request = new_request
        WHERE o.id = new_id;
        IF there.key IS DISTINCT FROM key_name THEN
            DELETE FROM {keys} AS k WHERE k.name = ANY (ARRAY(
                SELECT old.name FROM {keys} AS old
                WHERE old.name = there.key
                    AND old.stands_for = 'operation' AND old.operation = new_id
                FOR UPDATE SKIP LOCKED
            ));
        END IF;
        EXIT;
    END LOOP;

    IF key_name IS NOT NULL AND NOT key_is_made THEN
        UPDATE {keys} AS k SET
            owner = new_owner, fingerprint = key_fingerprint, stands_for = 'operation',
            token = NULL, operation = new_id, body = NULL, until = NULL
        WHERE k.name = key_name;
    END IF;
    outcome := 'done';
END
$$;

-- Reserves a key, if it is free or reserved by the same token; "stands_for" is
-- null then.
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
) LANGUAGE plpgsql AS $$
DECLARE
    locked record;
BEGIN
    SELECT * INTO locked FROM {lock_key}(
        key_name, key_owner, key_fingerprint, reservation, at,
        'request', reservation, NULL, clock_timestamp() + term
    );
    stands_for := locked.stands_for;
    owner := locked.owner;
    fingerprint := locked.fingerprint;
    head := locked.head;
    result := locked.result;
    IF stands_for IS NULL AND NOT locked.made THEN
        UPDATE {keys} AS k SET
            owner = key_owner, fingerprint = key_fingerprint, stands_for = 'request',
            token = reservation, operation = NULL, body = NULL,
            until = clock_timestamp() + term
        WHERE k.name = key_name;
    END IF;
END
$$;

INSERT INTO {versions} (version) VALUES (1);
