-- ARGV: prefix, term or '' to release, then an id and a token each. Answers which of
-- them are not held, counted from 0. What is released ends before any moment, and is
-- not renewed.
writable()
local till, leases, lost = ARGV[2] == '' and 0 or clock() + ARGV[2], {}, {}
for i = 3, #ARGV, 2 do
  local cell = values(cell_of(ARGV[i]), 't', 'x')
  local is_held = cell[1] == ARGV[i + 1] and not cell[2]
  if is_held and till > 0 then
    is_held = redis.call('ZSCORE', prefix .. 'leases', ARGV[i]) ~= '0'
  end
  if is_held then
    leases[#leases + 1] = till
    leases[#leases + 1] = ARGV[i]
  else
    lost[#lost + 1] = (i - 3) / 2
  end
end
if #leases > 0 then redis.call('ZADD', prefix .. 'leases', unpack(leases)) end
return lost
