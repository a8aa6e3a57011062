-- KEYS: key. ARGV: prefix, token.
writable()
local entry = redis.call('HMGET', KEYS[1], 'c', 't')
if entry[1] ~= 'request' or entry[2] ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
return 1
