-- KEYS: key. ARGV: prefix, scoped and bare name, token, term, now, the values of its
-- entry.
part(ARGV[3])
local stands_for, token = held(KEYS[1], ARGV[2], ARGV[6], ARGV[10])
if stands_for and token ~= ARGV[4] then
  writable()
  return stands_for
end
-- A server that is full refuses this first write; not that of who has it already.
if stands_for then writable() end
redis.call('HSET', KEYS[1], 'c', 'request')
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
