#!lua flags=no-writes
-- Records in the byte order of their names. KEYS: index, ends. ARGV: what a record's key begins with, the range of names from and
-- to, how many records at most. Answers where to go on (empty: the range ends), then name and value of each record; no value
-- where the index names a record that is not there and did not run out.
local call = redis.call
-- One call looks at so many names and answers about so many bytes at most, so that others get their turn.
local NAMES_MAX, BYTES_MAX, CHUNK = 4000, 4194304, 64

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local from, limit = ARGV[2], tonumber(ARGV[4])
local reply, looked, bytes = { '' }, 0, 0

while true do
  local wanted = math.min(limit, CHUNK)
  local names = call('ZRANGEBYLEX', KEYS[1], from, ARGV[3], 'LIMIT', 0, wanted)
  if #names == 0 then
    break
  end
  local keys = {}
  for i = 1, #names do
    keys[i] = ARGV[1] .. names[i]
  end
  local values = call('MGET', unpack(keys))
  for i = 1, #names do
    local value, is_gone = values[i], false
    if value then
      local at = tonumber(string.match(value, '^%S+ %S+ (%d+)\n'))
      is_gone = at and now >= at
      bytes = bytes + #value
    else
      local at = call('ZSCORE', KEYS[2], names[i])
      is_gone = at and now >= tonumber(at)
    end
    if not is_gone then
      reply[#reply + 1] = names[i]
      reply[#reply + 1] = value
      limit = limit - 1
    end
  end
  from = '(' .. names[#names]
  looked = looked + #names
  if #names < wanted then
    break
  end
  if limit == 0 or looked >= NAMES_MAX or bytes >= BYTES_MAX then
    reply[1] = from
    break
  end
end
return reply
