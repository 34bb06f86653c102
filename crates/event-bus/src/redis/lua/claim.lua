-- Lends out the oldest events that are due: from the lanes those that are free, then from the log in its order.
--
-- ARGV: group, consumer, incarnation, now, whose time counts (`server` or `bus`), lease, horizon, max, crashes_max, how many shards, which
-- of them are open (64 times 0 or 1), dead_max, now as dead letters tell it, backlog_max, history_max, dedup_window, number of this claim, for how long
-- it waits if there is nothing, which program it belongs to and whether that hears what is handed over (0 or 1), how many numbers follow, those of
-- earlier claims of this incarnation whose answers were lost (it never got those events, so they are given back first); and what it ends before, as
-- `end.lua` says.
local BYTES_MAX, PAGE = 4194304, 16
-- Entries of the log that one claim looks at, delayed events that it appends, lost ones that it makes dead letters.
local SCAN_MAX, DUE_MAX, LOST_MAX = 512, 64, 1000
-- broker::REST
local REST = 1000000

-- Appends what was delayed until now; when to look again. It walks along what is due, a part in each claim: those whose groups are full stay, and it goes
-- on behind them. It begins anew when it is at its end and REST is over.
local released, evicted, next_delay = 0, 0, false
local function release()
  local walk = call('HMGET', WALK, 'began', 'till', 'number', 'held')
  local began, held = tonumber(walk[1]), walk[4] or ','
  local function part()
    local behind = 0
    if began then
      -- The one that it left last may be gone.
      local is_gone = call('ZADD', DELAYED, 'NX', walk[2], walk[3])
      behind = call('ZRANK', DELAYED, walk[3]) + 1 - is_gone
      if is_gone == 1 then
        call('ZREM', DELAYED, walk[3])
      end
    end
    return call('ZRANGEBYSCORE', DELAYED, '-inf', int(now), 'WITHSCORES', 'LIMIT', behind, DUE_MAX)
  end
  local due = part()
  if began and #due < DUE_MAX * 2 and now >= began + REST then
    call('UNLINK', WALK)
    began, held = nil, ','
    due = part()
  end
  if #due > 0 then
    local of, matchers, groups = call('HGETALL', GROUPS), {}, {}
    local stored, names = {}, {}
    for i = 1, #of, 2 do
      names[#names + 1], stored[of[i]] = of[i], of[i + 1]
    end
    table.sort(names)
    for i = 1, #names do
      local gid, pattern = match(stored[names[i]], '^(%d+)\n(.*)$')
      matchers[i] = matcher(pattern)
      if gid == g.gid then
        groups[i] = g
      else
        groups[i] = load({ gid })[1]
      end
    end
    local backlog_max, gone, left = tonumber(ARGV[14]), {}, nil
    for i = 1, #due, 2 do
      local id, topic, lane, body = cmsgpack.unpack(call('HGET', DELAYS, due[i]))
      local wants, head, full, is_behind = {}, ',', nil, false
      for k = 1, #groups do
        if matchers[k](topic) then
          wants[#wants + 1] = groups[k]
          head = head .. groups[k].gid .. ','
          if not full and groups[k].s >= backlog_max then
            full = groups[k]
          end
          is_behind = is_behind or find(held, groups[k].mine, 1, true)
        end
      end
      if full or is_behind then
        -- Also if there is room by now: nothing overtakes on the way to a group.
        left = i
        if full and not find(held, full.mine, 1, true) then
          held = held .. full.gid .. ','
        end
      else
        local e = { id = id, head = head .. ';' .. lane, body = body, wants = wants, lane = byte(lane, 1) == 112 and lane or nil }
        lay({ e }, groups, tonumber(ARGV[15]), tonumber(ARGV[16]))
        gone[#gone + 1] = due[i]
        released, evicted = released + 1, evicted + e.evicted
      end
    end
    many('ZREM', DELAYED, gone)
    many('HDEL', DELAYS, gone)
    if left then
      began = began or now
      call('HSET', WALK, 'began', int(began), 'till', due[left + 1], 'number', due[left], 'held', held)
    end
  end
  local at = now
  if #due < DUE_MAX * 2 then
    local later = call('ZRANGEBYSCORE', DELAYED, '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    at = later and tonumber(later)
    if began and (not at or began + REST < at) then
      at = began + REST
    end
  end
  -- It is one more than the time, so that 0 is none.
  meta.due = at and at + 1 or 0
  return at
end
if meta.due > 0 then
  if meta.due - 1 <= now then
    next_delay = release()
  else
    next_delay = meta.due - 1
  end
end
if g.o > 0 then
  -- Somebody is still giving it the history that it began with.
  find_floor(g, claims)
  save()
  return { 'ok', {}, {}, 0, 0, int(now + 1000 - shift), released, evicted, '', lost, buried, '' }
end

-- The claims straight off the log: those that are over go into their lanes, so do those whose answers were lost.
do
  local is_lost, all = {}, claims
  claims = {}
  for i = 22, ends_at - 1 do
    is_lost[ARGV[i]] = true
  end
  for _, r in ipairs(all) do
    if is_empty(r) then
      -- It was settled in this very step.
    elseif r.incarnation == incarnation and is_lost[r.nonce] then
      to_lanes(g, r, nil, true, now)
    elseif r.till <= now or r.till - now > r.lease * 2 then
      to_lanes(g, r, nil, false, now)
    else
      claims[#claims + 1] = r
    end
  end
  if lost_count > 0 then
    local changed, all = {}, call('HGETALL', g.slow)
    for i = 1, #all, 2 do
      local d = unpack_delivery(all[i + 1])
      if d.incarnation == incarnation and is_lost[d.nonce] then
        d.attempts, d.incarnation, d.consumer, d.till = d.attempts - 1, '', '', 0
        call('HSET', g.slow, all[i], pack_delivery(d))
        changed[#changed + 1] = d.lane
      end
    end
    place(g, changed, now)
  end
end

local function is_open(lane)
  local shard = part_of(lane) == 'p' and 63 or tonumber(sub(lane, 2, 9), 16) % shards
  return byte(open, shard + 1) == 49
end

local function is_free(d)
  local is_due = d.next_at <= now or d.next_at - now > horizon
  return is_due and (d.incarnation == '' or d.till <= now or d.till - now > d.lease * 2)
end

local has_lanes = call('EXISTS', g.slow) == 1

-- Those whose wait is over, and those whose wait was set before the clock stepped back, are free.
local function wake()
  local over = call('ZRANGEBYSCORE', g.waits, '-inf', int(now))
  local beyond = call('ZRANGEBYSCORE', g.waits, '(' .. int(now + min(horizon, lease * 2)), '+inf', 'LIMIT', 0, 1000)
  for i = 1, #beyond do
    local first = call('LINDEX', g.lanes .. beyond[i], 0)
    local packed = first and call('HGET', g.slow, first)
    if not packed or is_free(unpack_delivery(packed)) then
      over[#over + 1] = beyond[i]
    end
  end
  local firsts = { n = {}, p = {} }
  for i = 1, #over do
    local list, first = firsts[part_of(over[i])], call('LINDEX', g.lanes .. over[i], 0)
    if first then
      list[#list + 1], list[#list + 2] = first, over[i]
    end
  end
  many('ZADD', g.free_n, firsts.n)
  many('ZADD', g.free_p, firsts.p)
  many('ZREM', g.waits, over)
end

-- The lanes whose heads are free and whose shards have room: `room` of them at most, oldest first.
local function free_lanes(free, room)
  local found, at = {}, 0
  while true do
    local page = call('ZRANGE', free, at, at + 127, 'WITHSCORES')
    for i = 1, #page, 2 do
      if is_open(page[i]) then
        found[#found + 1] = { seq = tonumber(page[i + 1]), lane = page[i], behind = 0 }
        if #found == room then
          return found
        end
      end
    end
    if #page < 256 then
      return found
    end
    at = at + 128
  end
end

-- Lanes that are chosen to their ends, so that what follows in the log may come with them.
local through = {}

-- The next of a lane behind the place that `turn` is at; nil at its end, and where the next is lent out or waits.
local function follow(turn)
  local ahead = turn.ahead
  if not ahead or turn.next > #ahead then
    ahead = call('LRANGE', g.lanes .. turn.lane, turn.behind + 1, turn.behind + PAGE)
    if #ahead == 0 then
      through[turn.lane] = true
      return nil
    end
    turn.ahead, turn.next = ahead, 1
    turn.packed = call('HMGET', g.slow, unpack(ahead))
  end
  local seq, packed = ahead[turn.next], turn.packed[turn.next]
  turn.next, turn.behind = turn.next + 1, turn.behind + 1
  turn.seq, turn.delivery = tonumber(seq), unpack_delivery(packed or turn.lane)
  return is_free(turn.delivery) and turn or nil
end

-- Adds events of one part in stored order; whether the one that is chosen comes alone because its consumer died with it.
local function select_of(free, chosen)
  local turns = free_lanes(free, limit - #chosen)
  local seqs = {}
  for i = 1, #turns do
    seqs[i] = turns[i].seq
  end
  local packed = ask('HMGET', g.slow, seqs)
  for i = 1, #turns do
    turns[i].delivery = unpack_delivery(packed[i] or turns[i].lane)
  end
  while #chosen < limit and #turns > 0 do
    local turn = table.remove(turns, 1)
    local d = turn.delivery
    local pick = { seq = turn.seq, lane = turn.lane, delivery = d }
    if d.incarnation ~= '' then
      -- Alone, or not in this round.
      if #chosen == 0 then
        chosen[1] = pick
        return true, true
      end
      return false, true
    end
    chosen[#chosen + 1] = pick
    turn = follow(turn)
    if turn then
      -- Turns stay sorted.
      local low, high = 1, #turns + 1
      while low < high do
        local middle = floor((low + high) / 2)
        if turns[middle].seq < turn.seq then
          low = middle + 1
        else
          high = middle
        end
      end
      table.insert(turns, low, turn)
    end
  end
  return false, false
end

-- What is chosen from the lanes; whether it is alone, and whether the log has to wait.
local function select()
  local chosen = {}
  through = {}
  local alone, ends = select_of(g.free_p, chosen)
  if not alone then
    alone, ends = select_of(g.free_n, chosen)
  end
  return chosen, alone, ends
end

local dead_lettered, chosen, alone, ends = 0, {}, false, false
if has_lanes then
  wake()
  chosen, alone, ends = select()
  while alone and chosen[1].delivery.attempts >= crashes_max do
    local killer = chosen[1]
    local why = 'its consumer died or lost its lease while handling it, ' .. int(killer.delivery.attempts) .. ' attempts'
    if killer.delivery.error ~= '' then
      why = why .. '; before that: ' .. killer.delivery.error
    end
    bury(g, killer.seq, killer.delivery.attempts, why, ARGV[13], ARGV[12])
    take_off(g, { [killer.lane] = { killer.seq } })
    place(g, { killer.lane }, now)
    dead_lettered = dead_lettered + 1
    chosen, alone, ends = select()
  end
end

-- What is stored of those from the lanes, as many as one answer should hold. An event that is gone from the log has neither head nor body.
local answers, bytes, till = {}, 0, now + lease
do
  local records, is_lent, not_free, waiting = {}, {}, { n = {}, p = {} }, {}
  for i = 1, #chosen do
    if bytes > BYTES_MAX then
      ends = true
      break
    end
    local pick = chosen[i]
    local head, body = entry_of(pick.seq)
    local d = pick.delivery
    d.attempts, d.till, d.lease, d.nonce, d.consumer, d.incarnation = d.attempts + 1, till, lease, ARGV[17], consumer, incarnation
    records[#records + 1], records[#records + 2] = pick.seq, pack_delivery(d)
    answers[i] = { pick.seq, d.attempts, head or '', body or '' }
    bytes = bytes + (body and #body or 0)
    if not is_lent[pick.lane] then
      -- The first of its lane in this claim is its head.
      is_lent[pick.lane] = true
      local list = not_free[part_of(pick.lane)]
      list[#list + 1] = pick.lane
      waiting[#waiting + 1], waiting[#waiting + 2] = int(free_at(d)), pick.lane
    end
  end
  many('HSET', g.slow, records)
  many('ZREM', g.free_n, not_free.n)
  many('ZREM', g.free_p, not_free.p)
  many('ZADD', g.waits, waiting)
end

-- Straight off the log: what stands behind the cursor, but what is in the way of an open shard's events goes into its lane.
local lent, is_more = {}, false
local normal = sub(open, 1, shards)
local taken = 0
local function scan(room)
  local all_open, busy = not find(normal, '0', 1, true), {}
  for _, r in ipairs(claims) do
    for _, lane in ipairs(open_claim(r).lanes) do
      busy[lane] = r
    end
  end
  -- Nothing can be in the way: rows are lent as they are.
  local is_simple = all_open and not has_lanes and not next(busy)
  local at = meta.odd == 0 and max(g.c, meta.trimmed) or g.c
  local from = at == g.c and g.r > 0 and g.r or at + 1
  local safe, safe_row, looked, is_end = at, at == g.c and g.r or 0, 0, false
  local blocked, of_blocked, aside, of_aside, parts = {}, {}, {}, {}, {}
  local gaps, events, of_events = {}, {}, {}
  local in_lanes, rows = {}, meta.wide > 30 and 0.5 or 2
  while taken < room and looked < SCAN_MAX and not is_end and bytes <= BYTES_MAX do
    -- Few rows at first: each may hold as many events as are wanted.
    rows = min(rows * 2, 64)
    local size = max(1, min(rows, floor(BYTES_MAX / (meta.heavy + 1))))
    local page = call('XRANGE', LOG, from, '+', 'COUNT', size)
    is_end = #page < size
    for i = 1, #page do
      local entry = page[i]
      local first, last = range_of(entry)
      if taken == room or bytes > BYTES_MAX then
        is_end = false
        break
      end
      if first > at + 1 and first - 1 > meta.trimmed then
        gaps[#gaps + 1] = { max(at, meta.trimmed) + 1, first - 1 }
      end
      from = last + 1
      local low = max(first, at + 1)
      if last <= at then
        looked = looked + 1
      elseif not is_for(g, entry) then
        at, looked = last, looked + 1
        if #blocked == 0 then
          safe, safe_row = at, 0
        end
      elseif is_simple then
        local till = min(last, low + room - taken - 1)
        local head = entry[2][1]
        if till - low < last - first then
          entry[3], entry[4] = low, till
        end
        lent[#lent + 1] = entry
        local n = #parts
        parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4] = first, low, till, sub(head, find(head, ';', 1, true) + 1)
        taken, looked, bytes = taken + till - low + 1, looked + till - low + 1, bytes + #entry[2][2]
        at, safe, safe_row = till, till, till < last and first or 0
      else
        local numbers, lanes, bodies = open_row(entry, first, last)
        local asked = {}
        if has_lanes then
          for k = low - first + 1, #lanes do
            if in_lanes[lanes[k]] == nil then
              in_lanes[lanes[k]] = false
              asked[#asked + 1] = lanes[k]
            end
          end
          local scores = ask('ZMSCORE', g.heads_n, asked)
          for k = 1, #asked do
            in_lanes[asked[k]] = scores[k] and true or false
          end
        end
        for seq = low, last do
          if taken == room or bytes > BYTES_MAX then
            break
          end
          local lane, is_lent = lanes[seq - first + 1], false
          at, looked = seq, looked + 1
          if in_lanes[lane] and through[lane] then
            events[#events + 1] = seq
            events[#events + 1] = pack_delivery({ attempts = 1, next_at = 0, till = till, lease = lease, nonce = ARGV[17],
              consumer = consumer, incarnation = incarnation, lane = lane, error = '' })
            of_events[#of_events + 1] = lane
            is_lent = true
          elseif not (busy[lane] or in_lanes[lane]) and (all_open or is_open(lane)) then
            local n = #parts
            parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4] = seq, seq, seq, lane
            is_lent = true
          end
          if is_lent then
            for k = 1, #blocked do
              aside[#aside + 1], of_aside[#of_aside + 1] = blocked[k], of_blocked[k]
            end
            if #blocked > 0 then
              blocked, of_blocked = {}, {}
            end
            local body = bodies[seq - first + 1]
            lent[#lent + 1] = { seq .. '-0', { numbers .. lane, body } }
            taken, bytes = taken + 1, bytes + #body
          else
            blocked[#blocked + 1], of_blocked[#of_blocked + 1] = seq, lane
          end
          if #blocked == 0 then
            safe, safe_row = seq, seq < last and first or 0
          end
        end
        if at < last then
          -- There is more of this row.
          from = first
        end
      end
    end
    if #page > 0 then
      local _, final = range_of(page[#page])
      is_end = is_end and at >= final
    end
  end
  is_more = taken < room and not is_end
  if taken == 0 and is_more then
    -- Nothing for so long: out of the way with them.
    aside, of_aside, blocked, safe, safe_row = blocked, of_blocked, {}, at, from <= at and from or 0
  end
  g.u = g.u - taken - #aside
  if is_end and #blocked == 0 and safe < meta.newest and safe_row == 0 then
    if meta.newest > meta.trimmed then
      gaps[#gaps + 1] = { max(safe, meta.trimmed) + 1, meta.newest }
    end
    safe = meta.newest
  end
  if safe > g.c then
    g.c, g.r = safe, safe_row
  end
  if #aside > 0 then
    local changed = {}
    for i = 1, #aside do
      local r = busy[of_aside[i]]
      if r then
        changed[r] = changed[r] or {}
        changed[r][of_aside[i]] = true
      end
    end
    for r, of in pairs(changed) do
      to_lanes(g, r, of, false, now)
    end
    local put = {}
    for i = 1, #aside do
      put[i * 2 - 1], put[i * 2] = aside[i], of_aside[i]
    end
    push(g, put, of_aside, now)
  end
  if #of_events > 0 then
    push(g, events, of_events, now)
  end
  if #parts > 0 then
    local r = { id = '', till = till, lease = lease, nonce = ARGV[17], consumer = consumer, incarnation = incarnation, parts = parts }
    write_claim(g, r)
    claims[#claims + 1] = r
  end
  return gaps, is_end, #blocked
end

-- Events that should stand in the log and do not: each becomes a dead letter. Where they stood is remembered until the end of the log tells how
-- many of those places were this group's.
local function miss(gaps, is_end, waiting)
  for i = 1, #gaps do
    local first, last = gaps[i][1], gaps[i][2]
    if (is_end or last <= g.c) and call('ZCOUNT', COPIES, first, last) < last - first + 1 and #g.m < 1000 then
      g.m = g.m .. int(first) .. '-' .. int(last) .. ','
    end
  end
  if not is_end then
    return
  end
  local lost = g.u - waiting
  if lost > 0 then
    local why = 'what is stored cannot be read: somebody else removed it from the log (XDEL, XTRIM)'
    local places, rest, last_seen = {}, '', 0
    for first, last in string.gmatch(g.m, '(%d+)-(%d+),') do
      local seq = max(tonumber(first), last_seen + 1)
      last = tonumber(last)
      while seq <= last and #places < min(lost, LOST_MAX) do
        if not call('ZSCORE', COPIES, seq) then
          places[#places + 1] = seq
        end
        seq = seq + 1
      end
      last_seen = max(last_seen, seq - 1)
      if seq <= last then
        rest = rest .. int(seq) .. '-' .. int(last) .. ','
      end
    end
    g.m = rest
    if #places == 0 and waiting == 0 then
      -- Nobody knows where it stood.
      meta.newest = meta.newest + 1
      places[1] = meta.newest
      call('ZADD', COPIES, meta.newest, meta.newest)
      meta.copy = meta.newest
    end
    for i = 1, #places do
      bury(g, places[i], 0, why, ARGV[13], ARGV[12])
    end
    dead_lettered = dead_lettered + #places
    g.s, g.u = g.s - #places, g.u - #places
    is_more = is_more or #places > 0 and g.u > waiting
  end
  if g.u == waiting then
    g.m = ''
  end
end

if not alone and not ends and #answers < limit and g.u > 0 and find(normal, '1', 1, true) then
  miss(scan(limit - #answers))
end

local next_due = ''
if #answers + taken < limit then
  local first = next_delay
  local function sooner(at)
    if at > now and (not first or at < first) then
      first = at
    end
  end
  for i = 1, #claims do
    if not is_empty(claims[i]) then
      sooner(claims[i].till)
    end
  end
  local waits = call('ZRANGEBYSCORE', g.waits, '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if waits then
    sooner(tonumber(waits))
  end
  if is_more then
    first = now
  end
  if first then
    next_due = int(first - shift)
  end
end
local waits = ''
if #answers + taken == 0 then
  waits = wait()
end
find_floor(g, claims)
save()
return { 'ok', answers, lent, alone and 1 or 0, dead_lettered, next_due, released, evicted, waits, lost, buried, '' }
