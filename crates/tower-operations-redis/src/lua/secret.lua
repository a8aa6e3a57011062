-- KEYS: the secret. ARGV: prefix, the secret to store if there is none.
redis.call('SET', KEYS[1], ARGV[2], 'NX')
return redis.call('GET', KEYS[1])
