-- KEYS: what names the format. ARGV: prefix, format. An older format becomes this one.
writable()
redis.call('SET', KEYS[1], ARGV[2], 'NX')
local format = tonumber(redis.call('GET', KEYS[1]))
if format and format < tonumber(ARGV[2]) then redis.call('SET', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
