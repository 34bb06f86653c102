-- Stores events in order and lays each out for the groups that want it. Which those are was found with the program's one matcher
-- on groups of a certain version; if that is no longer theirs, answers them instead and changes nothing.
--
-- ARGV: version, backlog_max, unrouted_max, dedup_window, how many groups, their numbers; then for each event: which groups want it (a
-- 0 or 1 for each), id, topic, lane (8 digits of the key's hash, and the key), rest.
local FIELDS = 5
-- Ids looked at in one write at most, beyond one for each event, so that no single publish pays for all.
local FORGET_MAX = 512

local version = call('HGET', META, 'version') or '0'
if version ~= ARGV[1] then
  return { 'groups', version, call('HGETALL', GROUPS) }
end
local backlog_max, unrouted_max, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local groups = {}
for g = 1, tonumber(ARGV[5]) do
  groups[g] = { gid = ARGV[5 + g], size = tonumber(call('HGET', SIZES, ARGV[5 + g]) or 0), added = 0, heads = {} }
  groups[g].lanes = base .. 'g' .. groups[g].gid .. ':lane:'
end
local from = 6 + #groups
local count = (#ARGV - from + 1) / FIELDS

local ids = {}
for n = 1, count do
  ids[n] = ARGV[from + (n - 1) * FIELDS + 1]
end
local scores = ask('ZMSCORE', IDS, ids)
local known = {}
for n = 1, count do
  known[ids[n]] = scores[n] and int(tonumber(scores[n])) or nil
end

local newest = tonumber(call('HGET', META, 'newest') or 0)
local kept = false
local answers, new_ids, live = {}, {}, {}

local function store(at, id, wanted)
  newest = newest + 1
  local seq = int(newest)
  local lane = ARGV[at + 3]
  call('XADD', LOG, seq .. '-0', 'id', id, 'topic', ARGV[at + 2], 'lane', lane, 'rest', ARGV[at + 4])
  known[id] = seq
  new_ids[#new_ids + 1], new_ids[#new_ids + 2] = seq, id
  local outstanding = 0
  for g = 1, #groups do
    if string.byte(wanted, g) == 49 then
      local group = groups[g]
      if call('RPUSH', group.lanes .. lane, seq) == 1 then
        group.heads[#group.heads + 1], group.heads[#group.heads + 2] = seq, lane
      end
      group.added = group.added + 1
      outstanding = outstanding + 1
    end
  end
  live[#live + 1], live[#live + 2] = seq, outstanding
  if outstanding > 0 then
    return seq, 0
  end
  kept = kept or call('ZCARD', KEPT)
  call('ZADD', KEPT, seq, seq)
  kept = kept + 1
  if kept <= unrouted_max then
    return seq, 0
  end
  local oldest = call('ZPOPMIN', KEPT)[1]
  kept = kept - 1
  -- It may be one of this batch.
  many('HSET', LIVE, live)
  live = {}
  finish({ oldest })
  return seq, 1
end

for n = 1, count do
  local at = from + (n - 1) * FIELDS
  local wanted, id = ARGV[at], ids[n]
  local full = false
  for g = 1, #groups do
    if not full and string.byte(wanted, g) == 49 and groups[g].size + groups[g].added >= backlog_max then
      full = g
    end
  end
  if known[id] then
    answers[n] = { tonumber(known[id]), 1, 0 }
  elseif full then
    answers[n] = { -full, groups[full].size + groups[full].added, 0 }
  else
    local seq, evicted = store(at, id, wanted)
    answers[n] = { tonumber(seq), 0, evicted }
  end
end

if #new_ids > 0 then
  call('HSET', META, 'newest', newest)
  many('ZADD', IDS, new_ids)
  many('HSET', LIVE, live)
  for g = 1, #groups do
    local group = groups[g]
    if group.added > 0 then
      call('HINCRBY', SIZES, group.gid, group.added)
      many('ZADD', base .. 'g' .. group.gid .. ':heads', group.heads)
      many('ZADD', base .. 'g' .. group.gid .. ':free', group.heads)
    end
  end
  -- Each id is looked at once, when it has left the window: a finished event's is forgotten, an unfinished one's when it finishes.
  local last = newest - window
  local forgotten = tonumber(call('HGET', META, 'forgotten') or 0)
  if last > forgotten then
    local old = call('ZRANGEBYSCORE', IDS, '(' .. int(forgotten), int(last), 'WITHSCORES', 'LIMIT', 0, FORGET_MAX + count)
    local seqs = {}
    for i = 2, #old, 2 do
      seqs[#seqs + 1] = int(tonumber(old[i]))
    end
    local counts, gone, late = ask('HMGET', LIVE, seqs), {}, {}
    for i = 1, #seqs do
      if counts[i] then
        late[#late + 1], late[#late + 2] = seqs[i], old[i * 2 - 1]
      else
        gone[#gone + 1] = old[i * 2 - 1]
      end
    end
    many('ZREM', IDS, gone)
    many('HSET', LATE, late)
    if #seqs < FORGET_MAX + count then
      call('HSET', META, 'forgotten', last)
    else
      call('HSET', META, 'forgotten', seqs[#seqs])
    end
  end
end
return { 'ok', answers }
