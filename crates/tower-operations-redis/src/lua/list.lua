-- KEYS: list. ARGV: prefix, the number before which, or '+inf', now, the states with a
-- comma around each, or '' for all, limit, how many to look at, the bytes of results that
-- end it, the bytes up to which a result is read. Answers the number to go on before, if there may be more, then number, id, record
-- and result each; no record, if something else is in its place; a number alone where the
-- results have so many bytes already.
writable()
local before, now, states = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local function is_asked_for(state)
  return states == '' or (state and string.find(states, ',' .. state .. ',', 1, true))
end
local limit, most, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local max_result = tonumber(ARGV[8])
local numbers =
  redis.call('ZREVRANGEBYSCORE', KEYS[1], before, '-inf', 'WITHSCORES', 'LIMIT', 0, most)
local found, full, bytes = { false }, false, 0
for i = 1, #numbers, 2 do
  local id, number = numbers[i], numbers[i + 1]
  local about, is_foreign = values(cell_of(id), 'n', 'x', 's')
  if about[1] ~= number and not is_foreign then
    redis.call('ZREM', KEYS[1], id)
  elseif is_foreign or (not about[2] or tonumber(about[2]) > now) and is_asked_for(about[3]) then
    found[#found + 1] = number
    if bytes >= max_bytes then
      -- It is there, and was not read.
      found[#found + 1] = false
      found[#found + 1] = false
      found[#found + 1] = false
      full = true
      break
    end
    local cell = values(cell_of(id), 'h')
    local result = not is_foreign and result_of(cell_of(id), max_result)
    found[#found + 1] = id
    found[#found + 1] = cell[1] or false
    found[#found + 1] = result
    bytes = bytes + (result and #result or 0)
    if #found > 4 * limit then
      full = true
      break
    end
  end
end
if not full and #numbers == 2 * most then found[1] = numbers[#numbers] end
return found
