-- ARGV: prefix, term, then ids whose leases are to last that long, if they are over.
writable()
local leases, now = prefix .. 'leases', clock()
for i = 3, #ARGV do
  local over = redis.call('ZSCORE', leases, ARGV[i])
  if over and tonumber(over) <= now then redis.call('ZADD', leases, now + ARGV[2], ARGV[i]) end
end
return 1
