INSERT INTO operations (id, version, token, state, owner, key, head) VALUES (
    'report-5', 1, 9, 'pending', 'ada', 'key-5',
    '{"format":1,"id":"report-5","version":1,"state":"pending","owner":"ada","token":9,"attempts":0,"created_at":1800000000000,"updated_at":1800000000000}'
);
INSERT INTO operations_keys (name, owner, fingerprint, stands_for, operation) VALUES (
    'key-5', 'ada', decode(repeat('07', 32), 'hex'), 'operation', 'report-5'
);
INSERT INTO operations_keys (name, owner, fingerprint, stands_for, token, until) VALUES (
    'key-6', 'ada', decode(repeat('07', 32), 'hex'), 'request', 77, now() + interval '1 hour'
);
INSERT INTO operations_keys (name, fingerprint, stands_for, token, until) VALUES (
    '@3:adakey-5', decode(repeat('07', 32), 'hex'), 'request', 78, now() + interval '1 hour'
);
