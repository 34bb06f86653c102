-- The lanes of a group: what cannot simply be taken off the log in its order. A lane is its kind (`n`; `p` for priority; `a` and `b` for one event of
-- theirs that stepped aside), 8 digits of its key's hash, and the key (or the place of the event that stepped aside). An event is in the field of its place in
-- `slow`: its lane alone, or, if it was claimed or has failed, what `pack` gives.

-- A delivery that was claimed once, or that has failed. `incarnation` is empty unless it is lent out.
local function unpack_delivery(packed)
  if byte(packed, 1) >= 97 and byte(packed, 1) <= 122 then
    return { attempts = 0, next_at = 0, till = 0, lease = 0, nonce = '', consumer = '', incarnation = '', lane = packed, error = '' }
  end
  local d = {}
  d.attempts, d.next_at, d.till, d.lease, d.nonce, d.consumer, d.incarnation, d.lane, d.error = cmsgpack.unpack(sub(packed, 2))
  return d
end

local function pack_delivery(d)
  if d.attempts == 0 and d.next_at == 0 and d.error == '' and d.incarnation == '' then
    return d.lane
  end
  return '+' .. cmsgpack.pack(d.attempts, d.next_at, d.till, d.lease, d.nonce, d.consumer, d.incarnation, d.lane, d.error)
end

local function free_at(d)
  if d.incarnation ~= '' and d.till > d.next_at then
    return d.till
  end
  return d.next_at
end

local function part_of(lane)
  local kind = byte(lane, 1)
  -- n and a, or p and b.
  return (kind == 110 or kind == 97) and 'n' or 'p'
end

-- Sets the heads of lanes right: which event stands first, and whether it is free or waits, and until when.
local function place(g, changed, now)
  local firsts, of, gone = {}, {}, { n = {}, p = {} }
  local no_wait = {}
  for i = 1, #changed do
    local first = call('LINDEX', g.lanes .. changed[i], 0)
    if first then
      firsts[#firsts + 1] = first
      of[#of + 1] = changed[i]
    else
      local part = gone[part_of(changed[i])]
      part[#part + 1] = changed[i]
      no_wait[#no_wait + 1] = changed[i]
    end
  end
  local packed = ask('HMGET', g.slow, firsts)
  local all, is_free, not_free, waiting = { n = {}, p = {} }, { n = {}, p = {} }, gone, {}
  many('ZREM', g.heads_n, gone.n)
  many('ZREM', g.heads_p, gone.p)
  for i = 1, #of do
    local part, at = part_of(of[i]), packed[i] and free_at(unpack_delivery(packed[i])) or 0
    local a = all[part]
    a[#a + 1], a[#a + 2] = firsts[i], of[i]
    if at > now then
      waiting[#waiting + 1], waiting[#waiting + 2] = int(at), of[i]
      local list = not_free[part]
      list[#list + 1] = of[i]
    else
      local list = is_free[part]
      list[#list + 1], list[#list + 2] = firsts[i], of[i]
      no_wait[#no_wait + 1] = of[i]
    end
  end
  many('ZADD', g.heads_n, all.n)
  many('ZADD', g.heads_p, all.p)
  many('ZADD', g.free_n, is_free.n)
  many('ZADD', g.free_p, is_free.p)
  many('ZREM', g.waits, no_wait)
  many('ZADD', g.waits, waiting)
  many('ZREM', g.free_n, not_free.n)
  many('ZREM', g.free_p, not_free.p)
end

-- Puts events at the ends of their lanes. `events`: place, value in turns, in stored order; `of`: the lane of each.
local function push(g, events, of, now)
  local by_lane, changed = {}, {}
  for i = 1, #of do
    local list = by_lane[of[i]]
    if not list then
      list = {}
      by_lane[of[i]], changed[#changed + 1] = list, of[i]
    end
    list[#list + 1] = events[i * 2 - 1]
  end
  many('HSET', g.slow, events)
  for i = 1, #changed do
    many('RPUSH', g.lanes .. changed[i], by_lane[changed[i]])
  end
  place(g, changed, now)
end

-- Claims straight off the log: what one took, until all of it is settled or one of it needs more than that. `parts` holds in turns the first place of a
-- row, the first and the last one that are meant of it, and its lanes as they stand in its head.
local function unpack_claim(id, packed)
  local r = { id = id }
  r.low, r.till, r.lease, r.nonce, r.consumer, r.incarnation, r.parts = cmsgpack.unpack(packed)
  return r
end

-- Its events and their lanes, one by one.
local function open_claim(r)
  if not r.seqs then
    local seqs, lanes, parts = {}, {}, r.parts
    for i = 1, #parts, 4 do
      local row, first, last, of = parts[i], parts[i + 1], parts[i + 2], parts[i + 3]
      local all = byte(of, 1) ~= 110 and cmsgpack.unpack(of) or { of }
      for seq = first, last do
        seqs[#seqs + 1], lanes[#lanes + 1] = seq, all[seq - row + 1]
      end
    end
    r.seqs, r.lanes = seqs, lanes
  end
  return r
end

local function claims_of(g)
  local all, claims = call('HGETALL', g.claims), {}
  for i = 1, #all, 2 do
    claims[#claims + 1] = unpack_claim(all[i], all[i + 1])
  end
  return claims
end

local function is_empty(r)
  return #(r.seqs or r.parts) == 0
end

-- A record that has become another one gets another number, so that who knows its number knows what is in it.
local function write_claim(g, r, is_same)
  if r.seqs then
    local parts = {}
    for i = 1, #r.seqs do
      local at = i * 4 - 3
      parts[at], parts[at + 1], parts[at + 2], parts[at + 3] = r.seqs[i], r.seqs[i], r.seqs[i], r.lanes[i]
    end
    r.parts = parts
  end
  if #r.parts == 0 then
    call('HDEL', g.claims, r.id)
    return
  end
  r.low = r.parts[2]
  if not is_same then
    if r.id ~= '' then
      call('HDEL', g.claims, r.id)
    end
    meta.claims = meta.claims + 1
    r.id = meta.claims
  end
  call('HSET', g.claims, r.id, cmsgpack.pack(r.low, r.till, r.lease, r.nonce, r.consumer, r.incarnation, r.parts))
end

-- Moves the events of a claim into their lanes: those of the given lanes, or all. They stay lent out, unless they are given back.
local function to_lanes(g, r, of, is_back, now)
  open_claim(r)
  local events, lanes, left, left_lanes = {}, {}, {}, {}
  for i = 1, #r.seqs do
    local lane = r.lanes[i]
    if not of or of[lane] then
      local d = { attempts = 1, next_at = 0, till = r.till, lease = r.lease, nonce = r.nonce, consumer = r.consumer,
        incarnation = r.incarnation, lane = lane, error = '' }
      events[#events + 1], events[#events + 2] = r.seqs[i], is_back and lane or pack_delivery(d)
      lanes[#lanes + 1] = lane
    else
      left[#left + 1], left_lanes[#left_lanes + 1] = r.seqs[i], lane
    end
  end
  if #lanes > 0 then
    r.seqs, r.lanes = left, left_lanes
    write_claim(g, r)
    push(g, events, lanes, now)
  end
end

-- One group less needs the events.
local function done(seqs)
  if #seqs == 0 then
    return
  end
  if meta.copy > 0 then
    local low = seqs[1]
    for i = 2, #seqs do
      low = min(low, seqs[i])
    end
    if low <= meta.copy then
      -- A copy leaves with the one group that wanted it. Its place stays known as one that is rightly empty.
      local is_copy, rest, copies, held = ask('ZMSCORE', COPIES, seqs), {}, {}, {}
      for i = 1, #seqs do
        if is_copy[i] then
          copies[#copies + 1] = int(seqs[i])
          if seqs[i] <= meta.trimmed then
            held[#held + 1] = seqs[i]
          end
        else
          rest[#rest + 1] = seqs[i]
        end
      end
      many('XDEL', LOG, copies)
      many('ZREM', HELD, held)
      meta.odd = meta.odd - #held
      seqs = rest
    end
  end
  local finished = seqs
  if #seqs > 0 and call('EXISTS', LIVE) == 1 then
    local counts, fewer, last = ask('HMGET', LIVE, seqs), {}, {}
    finished = {}
    for i = 1, #seqs do
      local count = tonumber(counts[i] or 1)
      if count <= 1 then
        finished[#finished + 1] = seqs[i]
      elseif count == 2 then
        last[#last + 1] = seqs[i]
      else
        fewer[#fewer + 1], fewer[#fewer + 2] = seqs[i], count - 1
      end
    end
    many('HDEL', LIVE, last)
    many('HSET', LIVE, fewer)
  end
  meta.history = meta.history + #finished
  if meta.odd > 0 then
    local held, freed = {}, {}
    for i = 1, #finished do
      if finished[i] <= meta.trimmed then
        held[#held + 1], freed[#freed + 1], freed[#freed + 2] = finished[i], finished[i], finished[i]
      end
    end
    many('ZREM', HELD, held)
    many('ZADD', FREED, freed)
  end
end

-- Takes events off their lanes. `by_lane`: lane to array of places, in any order. The lanes' heads are for `place`.
local function take_off(g, by_lane)
  local all = {}
  for lane, seqs in pairs(by_lane) do
    local gone = {}
    for i = 1, #seqs do
      gone[seqs[i]] = true
      all[#all + 1] = seqs[i]
    end
    -- Nearly always they are the first ones.
    local first, is_prefix = call('LRANGE', g.lanes .. lane, 0, #seqs - 1), true
    for i = 1, #first do
      is_prefix = is_prefix and gone[tonumber(first[i])]
    end
    if is_prefix then
      call('LTRIM', g.lanes .. lane, #seqs, -1)
    else
      for i = 1, #seqs do
        call('LREM', g.lanes .. lane, 1, seqs[i])
      end
    end
  end
  if #all > 0 then
    table.sort(all)
    many('HDEL', g.slow, all)
    g.s = g.s - #all
    done(all)
  end
end

-- Copies an event to the dead letters; how many older ones made room.
local function bury(g, seq, attempts, why, at, dead_max)
  local head, body = entry_of(seq)
  call('HSET', g.dead, seq, cmsgpack.pack(why, attempts, at, head or '', body or ''))
  call('ZADD', g.deads, seq, seq)
  local beyond = call('ZCARD', g.deads) - tonumber(dead_max)
  if beyond <= 0 then
    return 0
  end
  local old, gone = call('ZPOPMIN', g.deads, beyond), {}
  for i = 1, #old, 2 do
    gone[#gone + 1] = old[i]
  end
  many('HDEL', g.dead, gone)
  return beyond
end

-- Below what a group needs nothing: not more than that, so it may stay behind.
local function find_floor(g, claims)
  local low = g.u > 0 and g.c or meta.newest
  for i = 1, #claims do
    if not is_empty(claims[i]) then
      low = min(low, claims[i].low - 1)
    end
  end
  if g.s > 0 and call('EXISTS', g.slow) == 1 then
    for _, heads in ipairs({ g.heads_n, g.heads_p }) do
      local first = call('ZRANGE', heads, 0, 0, 'WITHSCORES')[2]
      if first then
        low = min(low, tonumber(first) - 1)
      end
    end
  end
  g.f = low
end
