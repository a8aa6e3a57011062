-- KEYS: what names the format. ARGV: prefix, format.
writable()
redis.call('SET', KEYS[1], ARGV[2], 'NX')
return redis.call('GET', KEYS[1])
