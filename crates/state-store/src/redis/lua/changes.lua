#!lua flags=no-writes
-- Changes after a position. KEYS: meta, changes. ARGV: the position (empty: none), how many.
-- Answers nothing if none are kept, else the last number, whether there is a gap, and id and text of each change.
local meta = redis.call('HMGET', KEYS[1], 'last', 'keep', 'floor')
if not meta[2] or meta[2] == '0' then
  return false
end
local after, last = tonumber(ARGV[1]), tonumber(meta[1])
if not after then
  return { meta[1], 0 }
end
if after < tonumber(meta[3]) or after > last then
  return { meta[1], 1 }
end
local reply = { meta[1], 0 }
local rows = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
for i = 1, #rows do
  reply[#reply + 1] = rows[i][1]
  reply[#reply + 1] = rows[i][2][2]
end
return reply
