-- KEYS: cell.
-- ARGV: prefix, id, version, token, the next lease or '', 'over' if the last one must be
-- over or '', when it expires or '', when the server removes it, the same for others, the
-- next values.
local id, lease, if_over = ARGV[2], ARGV[5], ARGV[6]
local expires, removed, others = ARGV[7], ARGV[8], ARGV[9]
local was = redis.call('HMGET', KEYS[1], 'v', 't')
if not was[1] then
  writable()
  return 0
end
local leases = prefix .. 'leases'
local now = (lease ~= '' or expires ~= '') and clock()
local matches = was[1] == ARGV[3] and was[2] == ARGV[4]
if matches and if_over ~= '' then
  local over = redis.call('ZSCORE', leases, id)
  matches = over and tonumber(over) <= now
end
writable()
if not matches then return redis.call('HGET', KEYS[1], 'h') end
redis.call('HSET', KEYS[1], unpack(ARGV, 10))
if expires ~= '' then
  redis.call('HDEL', KEYS[1], 'q')
  redis.call('ZREM', leases, id)
  redis.call('PEXPIREAT', KEYS[1], removed)
  local about = redis.call('HMGET', KEYS[1], 'n', 'o', 'k')
  redis.call('ZADD', prefix .. 'ended', expires, ended_entry(about[1], id, about[2]))
  local key = bound(about[3], id)
  if key then redis.call('PEXPIREAT', key, removed) end
  -- Housekeeping: what expires goes at least as fast as it comes.
  sweep(now - others, 2)
elseif lease ~= '' then
  redis.call('ZADD', leases, now + lease, id)
end
return 1
