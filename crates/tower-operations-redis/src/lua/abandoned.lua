-- ARGV: prefix, limit, 'released' for those only or ''. Answers an id, a record and a
-- request each; no record, if it is gone or was replaced by something that is none.
writable()
local leases, found = prefix .. 'leases', {}
local till = ARGV[3] == 'released' and 0 or clock()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', till, 'LIMIT', 0, ARGV[2])) do
  local cell, is_foreign = values(cell_of(id), 'h', 'q', 'x', 'v')
  if cell[3] then
    redis.call('ZREM', leases, id)
  else
    found[#found + 1] = id
    found[#found + 1] = cell[1] or false
    found[#found + 1] = cell[2] or false
    -- Nothing of it is left to come back to.
    if not (cell[1] or cell[4] or is_foreign) then redis.call('ZREM', leases, id) end
  end
end
return found
