-- Goes before each script. ARGV[1] is the prefix of all names.
local prefix = ARGV[1]

-- Milliseconds since 1970, the same throughout a script.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A write that changes nothing. A server that has become a replica refuses it,
-- and after it one that is full refuses nothing more: what it has accepted can
-- go on to its end.
local function writable()
  redis.call('PERSIST', prefix)
end

local function cell_of(id)
  return prefix .. '{' .. id .. '}'
end

-- `rest` is the owner after a space; nothing, if it is nobody's.
local function list_of(rest)
  if rest == '' then return prefix .. 'list' end
  return prefix .. 'list:' .. string.sub(rest, 2)
end

local function rest_of(owner)
  return owner and ' ' .. owner or ''
end

-- An entry of the index by expiry: it is enough to clean up after a cell that
-- the server has removed by itself.
local function ended_entry(number, id, owner)
  return number .. ' ' .. id .. rest_of(owner)
end

-- Values of a hash: none, if something else is under its name, which is not ours and
-- must keep nobody from what is.
local function values(key, ...)
  local found = redis.pcall('HMGET', key, ...)
  return found.err and {} or found, found.err
end

-- The result of a cell, if there is one of at most `longest` bytes.
local function result_of(cell, longest)
  if redis.call('HSTRLEN', cell, 'r') > longest then return false end
  return redis.call('HGET', cell, 'r')
end

-- The key of this name, if it is bound to this operation.
local function bound(name, id)
  if not name then return nil end
  local key = prefix .. 'key:' .. name
  local entry = values(key, 'c', 'd')
  return entry[1] == 'operation' and entry[2] == id and key or nil
end

-- Until format 2 an owner's key had the name that is nobody's now. It moves to its
-- own, with the operation it made, before anybody asks for either.
local function part(bare)
  local old = prefix .. 'key:' .. bare
  local entry = redis.call('HMGET', old, 'o', 'c', 'd')
  local owner = entry[1]
  if not owner then return end
  local name = '@' .. #owner .. ':' .. owner .. bare
  local key = prefix .. 'key:' .. name
  if redis.call('RENAMENX', old, key) == 0 then
    redis.call('DEL', old)
    return
  end
  redis.call('HDEL', key, 'o')
  if entry[2] == 'operation' and redis.call('HGET', cell_of(entry[3]), 'k') == bare then
    redis.call('HSET', cell_of(entry[3]), 'k', name)
  end
end

-- Removes a cell with what hangs on it.
local function remove(id)
  local cell = cell_of(id)
  local was = values(cell, 'n', 'o', 'k')
  redis.call('DEL', cell)
  redis.call('ZREM', prefix .. 'leases', id)
  redis.pcall('ZREM', list_of(rest_of(was[2])), id)
  redis.call('ZREM', prefix .. 'ended', ended_entry(was[1] or '', id, was[2]))
  local key = bound(was[3], id)
  if key then redis.call('DEL', key) end
end

-- Removes what is left of at most `limit` operations that had expired by `by`.
local function sweep(by, limit)
  local ended = redis.call('ZRANGEBYSCORE', prefix .. 'ended', '-inf', by, 'LIMIT', 0, limit)
  for _, entry in ipairs(ended) do
    local number, id, rest = string.match(entry, '^(%d+) ([^ ]+)(.*)$')
    if number and values(cell_of(id), 'n')[1] == number then
      remove(id)
    elseif number then
      -- The server has removed it, or another one has come in its place.
      local list = list_of(rest)
      if redis.pcall('ZSCORE', list, id) == number then redis.call('ZREM', list, id) end
    end
    redis.call('ZREM', prefix .. 'ended', entry)
  end
  return #ended
end

-- What a key stands for, and the token it is reserved by; nothing, if it is free. The
-- answer to a request with another fingerprint is left out.
local function held(key, name, by, fingerprint)
  local entry = redis.call('HMGET', key, 'c', 'f', 'd', 'x', 't')
  local class, data = entry[1], entry[3]
  if not class then return nil end
  if class == 'operation' then
    local cell = values(cell_of(data), 'h', 'k', 'x')
    local expired = cell[3] and tonumber(cell[3]) <= tonumber(by)
    if cell[2] ~= name or expired then return nil end
    return { class, entry[2], cell[1] }
  end
  if entry[4] and tonumber(entry[4]) <= tonumber(by) then return nil end
  if class == 'answer' and entry[2] ~= fingerprint then data = '' end
  return { class, entry[2], data }, class == 'request' and entry[5]
end
