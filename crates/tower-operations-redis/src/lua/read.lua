-- KEYS: cell. ARGV: prefix, the owner for whom it is read after a space, or '' for
-- nobody, the bytes up to which a result is read. Answers a record, and its result if it is that
-- owner's and not too long.
writable()
local cell = redis.call('HMGET', KEYS[1], 'h', 'o')
if rest_of(cell[2]) ~= ARGV[2] then return { cell[1], false } end
return { cell[1], result_of(KEYS[1], tonumber(ARGV[3])) }
