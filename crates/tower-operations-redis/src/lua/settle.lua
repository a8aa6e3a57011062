-- KEYS: key. ARGV: prefix, token, answer, how long it is kept.
local entry = redis.call('HMGET', KEYS[1], 'c', 't')
local mine = entry[2] == ARGV[2]
if mine and entry[1] == 'request' then
  redis.call('HSET', KEYS[1], 'c', 'answer', 'd', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return 1
end
writable()
return mine and entry[1] == 'answer' and 1 or 0
