-- An answer that is kept already stays as it is.
UPDATE {keys} SET
    stands_for = 'answer',
    body = CASE stands_for WHEN 'answer' THEN body ELSE $3 END,
    until = CASE stands_for WHEN 'answer' THEN until ELSE now() + $4 * INTERVAL '1 microsecond' END
WHERE name = $1 AND token = $2 AND stands_for IN ('request', 'answer') AND until > now()
