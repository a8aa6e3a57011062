-- KEYS: cell, list of the owner, key, if there is one.
-- ARGV: prefix, id, now, lease or '', reservation or '', scoped and bare name of the
-- key or '', number of values of the key's entry, these, those of the cell.
local id, now, lease, reservation, name = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local first, last = 9, 8 + tonumber(ARGV[8])
if KEYS[3] then
  part(ARGV[7])
  local stands_for, token = held(KEYS[3], name, now, ARGV[first + 3])
  if stands_for and not (token and token == reservation) then return stands_for end
end
local was = redis.call('HMGET', KEYS[1], 'h', 'k', 'x')
if was[1] then
  if not was[3] or tonumber(was[3]) > tonumber(now) then return { was[1], was[2] } end
end
-- The first write: a server that is full refuses it, and nothing has happened.
local number = redis.call('INCR', prefix .. 'number')
if was[1] then remove(id) end
-- An index that is none refuses: there is no cell by then.
redis.call('ZADD', KEYS[2], number, id)
redis.call('HSET', KEYS[1], 'n', number, unpack(ARGV, last + 1))
if lease ~= '' then
  redis.call('ZADD', prefix .. 'leases', clock() + lease, id)
end
if KEYS[3] then
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[3], unpack(ARGV, first, last))
end
return 1
