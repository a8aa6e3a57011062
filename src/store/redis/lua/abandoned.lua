-- ARGV: prefix, limit, 'released' for those only or ''. Answers a record and a request
-- each.
writable()
local leases, found = prefix .. 'leases', {}
local till = ARGV[3] == 'released' and 0 or clock()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', till, 'LIMIT', 0, ARGV[2])) do
  local cell = redis.call('HMGET', cell_of(id), 'h', 'q', 'x')
  if cell[1] and not cell[3] then
    found[#found + 1] = cell[1]
    found[#found + 1] = cell[2]
  else
    redis.call('ZREM', leases, id)
  end
end
return found
