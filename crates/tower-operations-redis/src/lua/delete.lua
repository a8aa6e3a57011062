-- KEYS: cell.
-- ARGV: prefix, id, version, token, what remains, until when or '', when the
-- server removes it or ''.
local id = ARGV[2]
writable()
local was = redis.call('HMGET', KEYS[1], 'v', 't', 'k', 'h')
if not was[1] then return 0 end
if was[1] ~= ARGV[3] or was[2] ~= ARGV[4] then return was[4] end
local key = bound(was[3], id)
if key then
  redis.call('HSET', key, 'c', 'remains', 'd', ARGV[5])
  if ARGV[6] == '' then
    redis.call('PERSIST', key)
  else
    redis.call('HSET', key, 'x', ARGV[6])
    redis.call('PEXPIREAT', key, ARGV[7])
  end
end
remove(id)
return 1
