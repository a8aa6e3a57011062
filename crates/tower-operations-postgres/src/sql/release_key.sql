DELETE FROM {keys}
WHERE name = $1 AND token = $2 AND stands_for = 'request' AND until > now()
