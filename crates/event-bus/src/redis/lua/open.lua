-- Creates a group, or answers what is stored of it. ARGV: name, pattern, where it begins (`new` or `earliest`). A part of the history that it begins with
-- is laid out in each call; answers `more` until that is done.
local PART = 128

local name, pattern = ARGV[1], ARGV[2]
local of, gids = call('HGETALL', GROUPS), {}
local gid, stored
for i = 1, #of, 2 do
  local number, text = match(of[i + 1], '^(%d+)\n(.*)$')
  gids[#gids + 1] = number
  if of[i] == name then
    gid, stored = number, text
  end
end
if gid and stored ~= pattern then
  return { 'there', stored }
end
if not gid then
  gid = int(call('HINCRBY', META, 'group', 1))
  gids[#gids + 1] = gid
  call('HSET', GROUPS, name, gid .. '\n' .. pattern)
  call('HSET', META, 'layout', LAYOUT, 'version', int(server_time()) .. '-' .. gid)
end
local groups, g = load(gids), nil
for i = 1, #groups do
  if gids[i] == gid then
    g = groups[i]
  end
end
if not stored then
  g.c, g.b = meta.newest, meta.newest
  if ARGV[3] == 'earliest' and meta.newest > 0 then
    g.o = 1
  end
end
if g.o == 0 then
  save()
  return { stored and 'there' or 'ok', stored }
end

local is_mine, from = matcher(pattern), meta.odd == 0 and max(g.o, meta.trimmed + 1) or g.o
local page = call('XRANGE', LOG, before(from), int(g.b), 'COUNT', PART)
local events, lanes, shared, wanted, held = {}, {}, {}, {}, {}
local lowest = meta.newest
for i = 1, #groups do
  if groups[i] ~= g and groups[i].s > 0 then
    lowest = min(lowest, groups[i].f)
  end
end
for i = 1, #page do
  local first, last = range_of(page[i])
  local numbers, lanes_of, bodies = open_row(page[i], first, last)
  for seq = max(first, from), last do
    g.o = seq + 1
    local n = seq - first + 1
    local is_kept = seq > meta.trimmed or call('ZSCORE', HELD, seq) or call('ZSCORE', FREED, seq)
    if is_kept and numbers and not find(numbers, '=', 1, true) and is_mine(topic_in(bodies[n])) then
      local lane = lanes_of[n]
      events[#events + 1], events[#events + 2], lanes[#lanes + 1] = seq, lane, lane
      wanted[#wanted + 1] = seq
      if seq <= lowest or call('ZSCORE', FREED, seq) or is_finished(seq, numbers .. lane, groups) then
        meta.history = meta.history - 1
        if seq <= meta.trimmed then
          held[#held + 1], held[#held + 2] = seq, seq
          call('ZREM', FREED, seq)
        end
      else
        shared[#shared + 1], shared[#shared + 2] = seq, (tonumber(call('HGET', LIVE, seq) or 1)) + 1
      end
    end
  end
end
many('ZADD', HELD, held)
many('HSET', LIVE, shared)
many('ZREM', UNWANTED, wanted)
if #lanes > 0 then
  if g.s == 0 then
    g.f = 0
  end
  g.s = g.s + #lanes
  push(g, events, lanes, 0)
end
local is_end = #page < PART
if is_end then
  g.o = 0
end
save()
return { is_end and (stored and 'there' or 'ok') or 'more', stored }
