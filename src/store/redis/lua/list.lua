-- KEYS: list. ARGV: prefix, the number before which, or '+inf', now, the states with a
-- comma around each, or '' for all, limit, how many to look at. Answers the number to go on before, if there may be
-- more, then number, record and result each.
writable()
local before, now, states = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local function is_asked_for(state)
  return states == '' or (state and string.find(states, ',' .. state .. ',', 1, true))
end
local limit, most = tonumber(ARGV[5]), tonumber(ARGV[6])
local numbers =
  redis.call('ZREVRANGEBYSCORE', KEYS[1], before, '-inf', 'WITHSCORES', 'LIMIT', 0, most)
local found, full = { false }, false
for i = 1, #numbers, 2 do
  local id, number = numbers[i], numbers[i + 1]
  local about = redis.call('HMGET', cell_of(id), 'n', 'x', 's')
  if about[1] ~= number then
    redis.call('ZREM', KEYS[1], id)
  elseif (not about[2] or tonumber(about[2]) > now) and is_asked_for(about[3]) then
    local cell = redis.call('HMGET', cell_of(id), 'h', 'r')
    found[#found + 1] = number
    found[#found + 1] = cell[1]
    found[#found + 1] = cell[2]
    if #found > 3 * limit then
      full = true
      break
    end
  end
end
if not full and #numbers == 2 * most then found[1] = numbers[#numbers] end
return found
