-- KEYS: cell. ARGV: prefix, the owner for whom it is read after a space, or '' for
-- nobody. Answers a record, and its result if it is that owner's.
writable()
local cell = redis.call('HMGET', KEYS[1], 'h', 'o')
if rest_of(cell[2]) ~= ARGV[2] then return { cell[1], false } end
return { cell[1], redis.call('HGET', KEYS[1], 'r') }
