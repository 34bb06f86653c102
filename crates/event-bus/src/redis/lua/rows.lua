-- Stores events in order, in rows: what `append` does for them one by one, where all of them are new and all groups have room. Changes nothing
-- and answers `single` where that is not so. ARGV: see `rows_fast.lua`, which is asked first.
local count = tonumber(ARGV[5])
local gids = {}
for g = 1, count do
  gids[g] = ARGV[5 + g]
end
local groups = load(gids)
if version ~= ARGV[1] then
  return { 'groups', version, call('HGETALL', GROUPS) }
end
local backlog_max, history_max, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local total, joined, ids_of = tonumber(ARGV[8 + count]), ARGV[10 + count], {}
for id in string.gmatch(joined, '[^\n]+') do
  ids_of[#ids_of + 1] = id
end
local found = call('HMGET', IDS, unpack(ids_of))
for n = 1, total do
  if found[n] then
    return { 'single' }
  end
end
local rows = 11 + count
for at = rows, #ARGV, 4 do
  for g = 1, count do
    if byte(ARGV[at], g) == 49 then
      groups[g].coming = (groups[g].coming or 0) + ARGV[at + 1]
    end
  end
end
for g = 1, count do
  if groups[g].coming and groups[g].s + groups[g].coming > backlog_max then
    return { 'single' }
  end
end

local begin, popped = meta.newest + 1, 0
local unwanted, shared, ids = {}, {}, {}
for at = rows, #ARGV, 4 do
  local wanted, size = ARGV[at], tonumber(ARGV[at + 1])
  local first, wants = meta.newest + 1, 0
  meta.wide, meta.heavy = size - 1, #ARGV[at + 3]
  call('XADD', LOG, first .. '-' .. size - 1, ARGV[at + 2], ARGV[at + 3])
  for i = 1, count do
    if byte(wanted, i) == 49 then
      local g = groups[i]
      wants = wants + 1
      if g.s == 0 then
        g.f = first - 1
      end
      if g.u == 0 then
        g.c, g.r = first - 1, 0
      end
      g.s, g.u = g.s + size, g.u + size
    end
  end
  meta.newest = meta.newest + size
  if wants == 0 then
    meta.history = meta.history + size
    for seq = first, meta.newest do
      unwanted[#unwanted + 1], unwanted[#unwanted + 2] = seq, seq
    end
  elseif wants > 1 then
    for seq = first, meta.newest do
      shared[#shared + 1], shared[#shared + 2] = seq, wants
    end
  end
  local pop = min(TRIM_MAX * size, max(0, meta.history - history_max))
  meta.history, popped = meta.history - pop, popped + pop
end
for n = 1, total do
  local at = n * 2
  ids[at - 1], ids[at] = ids_of[n], begin + n - 1
end
call('HSET', IDS, unpack(ids))
call('RPUSH', QUEUE, meta.newest .. '\n' .. joined)
many('ZADD', UNWANTED, unwanted)
many('HSET', LIVE, shared)
local evicted = 0
if popped > 0 then
  local gone = trim(popped, groups)
  if #gone > 0 and call('EXISTS', UNWANTED) == 1 then
    evicted = call('ZREM', UNWANTED, unpack(gone))
  end
end
forget(window)
save()
return { 'ok', begin, evicted, 0, {} }
