SELECT stands_for, fingerprint, head
FROM {reserve_scoped}(
    $1, $2, $3, $4, $5 * INTERVAL '1 microsecond',
    TIMESTAMPTZ 'epoch' + $6 * INTERVAL '1 microsecond'
)
