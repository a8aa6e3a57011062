SELECT outcome, fingerprint, head, made_by
FROM {insert_scoped}(
    $1, $2, $3, $4, $5, $6, $7 * INTERVAL '1 microsecond', $8, $9, $10, $11,
    TIMESTAMPTZ 'epoch' + $12 * INTERVAL '1 microsecond'
)
