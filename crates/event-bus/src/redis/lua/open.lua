-- Creates a group, or answers what is stored of it. ARGV: name, pattern, where it begins (`new` or `earliest`).
local name, pattern = ARGV[1], ARGV[2]
local stored = find_group(name)
if stored then
  return { 'there', string.match(stored, '^%d+\n(.*)$') }
end
use_group(int(call('HINCRBY', META, 'group', 1)))
call('HSET', GROUPS, name, gid .. '\n' .. pattern)
call('HSET', SIZES, gid, 0)
call('HSET', META, 'version', int(server_time()) .. '-' .. gid)
if ARGV[3] == 'new' then
  return { 'ok' }
end

-- The matcher of the crate, for what is already stored. A pattern is runs of fixed length between its stars: the first run must stand at
-- the beginning and the last at the end, and each other one where it is found first.
local runs, run, length, lengths, at = {}, '', 0, {}, 1
while at <= #pattern do
  local c = string.sub(pattern, at, at)
  if c == '*' then
    runs[#runs + 1], lengths[#lengths + 1] = run, length
    run, length = '', 0
  else
    if c == '?' then
      run = run .. '.'
    else
      if c == '\\' then
        at = at + 1
        c = string.sub(pattern, at, at)
      end
      run = run .. string.gsub(c, '%W', '%%%0')
    end
    length = length + 1
  end
  at = at + 1
end
runs[#runs + 1], lengths[#lengths + 1] = run, length

local function matches(topic)
  if #runs == 1 then
    return string.find(topic, '^' .. runs[1] .. '$') ~= nil
  end
  local _, till = string.find(topic, '^' .. runs[1])
  for i = 2, #runs - 1 do
    if not till then
      return false
    end
    _, till = string.find(topic, runs[i], till + 1)
  end
  local from = #topic - lengths[#runs]
  return till ~= nil and from >= till and string.find(topic, '^' .. runs[#runs] .. '$', from + 1) ~= nil
end

local from, size = '-', 0
while true do
  local page = call('XRANGE', LOG, from, '+', 'COUNT', 100)
  local mine, first_of_lane = {}, {}
  for i = 1, #page do
    local seq, fields = string.match(page[i][1], '^%d+'), {}
    for f = 1, #page[i][2], 2 do
      fields[page[i][2][f]] = page[i][2][f + 1]
    end
    if fields.topic and fields.lane and matches(fields.topic) then
      mine[#mine + 1] = seq
      local lane = fields.lane
      if call('RPUSH', lanes .. lane, seq) == 1 then
        first_of_lane[#first_of_lane + 1], first_of_lane[#first_of_lane + 2] = seq, lane
      end
    end
  end
  local counts, more = ask('HMGET', LIVE, mine), {}
  for i = 1, #mine do
    more[i * 2 - 1], more[i * 2] = mine[i], tonumber(counts[i] or 0) + 1
  end
  many('HSET', LIVE, more)
  many('ZREM', KEPT, mine)
  many('ZADD', heads, first_of_lane)
  many('ZADD', free, first_of_lane)
  size = size + #mine
  if #page < 100 then
    break
  end
  from = '(' .. page[#page][1]
end
call('HSET', SIZES, gid, size)
return { 'ok' }
