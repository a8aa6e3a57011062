-- Version 4: what a key or an id stands for is said without the result, which may be
-- large, and which no repetition is answered with; an early answer is left out where
-- another request asks for it. Nodes of the release before may go on meanwhile: the column
-- is there, and null.

CREATE OR REPLACE FUNCTION {lock_key}(
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
            SELECT o.head INTO head FROM {operations} AS o
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
            IF found_key.fingerprint <> key_fingerprint THEN
                head := '';
            END IF;
    END CASE;
    stands_for := found_key.stands_for;
END
$$;

CREATE OR REPLACE FUNCTION {insert_scoped}(
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

        SELECT o.head, o.key, o.expires_at INTO there FROM {operations} AS o
        WHERE o.id = new_id FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        IF there.expires_at IS NULL OR there.expires_at > at THEN
            IF key_is_made THEN
                DELETE FROM {keys} AS k WHERE k.name = key_name;
            END IF;
            outcome := 'id';
            head := there.head;
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

INSERT INTO {versions} (version) VALUES (4);
