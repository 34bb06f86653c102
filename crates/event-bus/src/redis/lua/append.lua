-- Stores events in order and lays each out for the groups that want it. Which those are was found with the program's one matcher
-- on groups of a certain version; if that is no longer theirs, answers them instead and changes nothing.
--
-- ARGV: version, backlog_max, history_max, dedup_window, how many groups, their numbers; then for each event: which groups want it (a
-- 0 or 1 for each), id, head, body.
local FIELDS = 4

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
local from = 6 + count
local total = (#ARGV - from + 1) / FIELDS
local is_small = history_max < SMALL or window < SMALL

local ids = {}
for n = 1, total do
  ids[n] = ARGV[from + (n - 1) * FIELDS + 1]
end
local found, known = call('HMGET', IDS, unpack(ids)), {}
for n = 1, total do
  if found[n] then
    known[ids[n]] = place_of(ids[n], found[n])
  end
end

local answers, events, wants_of = {}, {}, {}
for n = 1, total do
  local at = from + (n - 1) * FIELDS
  local wanted, id = ARGV[at], ids[n]
  local wants = wants_of[wanted]
  if not wants then
    wants = {}
    for g = 1, count do
      if byte(wanted, g) == 49 then
        wants[#wants + 1], groups[g].nth = groups[g], g
      end
    end
    wants_of[wanted] = wants
  end
  if is_small then
    -- Laying out the one before may have forgotten it.
    local seq = call('HGET', IDS, id)
    known[id] = seq and place_of(id, seq) or nil
  end
  local full
  for g = 1, #wants do
    -- Of those that are still to be laid out each takes a place.
    if not full and wants[g].s + (wants[g].coming or 0) >= backlog_max then
      full = wants[g]
    end
  end
  if known[id] then
    answers[n] = { known[id], 1, 0 }
  elseif full then
    answers[n] = { -full.nth, full.s + (full.coming or 0), 0 }
  else
    local head = ARGV[at + 2]
    local lane_at = find(head, ';', 1, true) + 1
    local e = { id = id, head = head, body = ARGV[at + 3], wants = wants, lane = byte(head, lane_at) == 112 and sub(head, lane_at) or nil }
    answers[n] = e
    if is_small then
      lay({ e }, groups, history_max, window)
    else
      events[#events + 1], known[id] = e, true
      for g = 1, #wants do
        wants[g].coming = (wants[g].coming or 0) + 1
      end
    end
  end
end
if not is_small then
  lay(events, groups, history_max, window)
end
-- One that repeats another of its batch has its place.
local places = {}
for n = 1, total do
  local a = answers[n]
  if a.seq then
    places[a.id] = a.seq
    answers[n] = { a.seq, 0, a.evicted }
  elseif a[1] == true then
    a[1] = places[ids[n]]
  end
end
save()
return { 'ok', answers, meta.newest }
