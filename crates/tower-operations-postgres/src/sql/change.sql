UPDATE {operations} SET version = $4, token = $5, state = $6, head = $7
WHERE id = $1 AND version = $2 AND token = $3
