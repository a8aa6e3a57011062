INSERT INTO operations (id, version, token, state, owner, lease_until, head) VALUES (
    'report-1', 3, 7, 'running', 'ada', now() + interval '1 hour',
    '{"format":1,"id":"report-1","version":3,"state":"running","owner":"ada","token":7,"node":"node 1","attempts":1,"started_by":7,"method":"POST","name":"render","created_at":1800000000000,"updated_at":1800000002000,"started_at":1800000001000,"progress":{"percent":33.333333333333336,"completed":1,"total":3,"unit":"pages"},"history":[{"state":"pending","at":1800000000000},{"state":"running","at":1800000001000}]}'
);
INSERT INTO operations (id, version, token, state, expires_at, head) VALUES (
    'report-2', 2, 8, 'canceled', '2100-01-01T00:00:00Z',
    '{"format":1,"id":"report-2","version":2,"state":"canceled","token":8,"attempts":0,"created_at":1800000000000,"updated_at":1800000003000,"finished_at":1800000003000,"expires_at":4102444800000,"history":[{"state":"pending","at":1800000000000}]}'
);
INSERT INTO operations_keys (name, fingerprint, stands_for, body, until) VALUES (
    'key-3', decode(repeat('07', 32), 'hex'), 'remains',
    '{"format":1,"id":"report-3","version":2,"state":"succeeded","token":9,"attempts":1,"started_by":9,"created_at":1800000000000,"updated_at":1800000003000,"finished_at":1800000003000,"expires_at":4102444800000,"history":[{"state":"pending","at":1800000000000}]}',
    '2100-01-01T00:00:00Z'
);
