-- Laying events out, and letting the oldest go that nobody needs.
local TRIM_MAX = 2
-- Events looked at in one write at most beyond those that go, and pieces of the row of ids.
local WALK_MAX, FORGET_MAX = 128, 64
-- With limits below this each event of a batch is laid out by itself, so that they hold to the event.
local SMALL = 1024

-- Whether no group needs the event any more.
local function is_finished(seq, head, groups)
  for i = 1, #groups do
    local g = groups[i]
    if g.s > 0 and seq > g.f then
      local semicolon = find(head, ';', 1, true)
      local at = find(head, g.mine, 1, true)
      if seq > g.c and at and at < semicolon and byte(head, semicolon + 1) == 110 then
        return false
      end
      if call('HEXISTS', g.slow, seq) == 1 then
        return false
      end
      if not g.lent then
        g.lent = {}
        for _, r in ipairs(claims_of(g)) do
          for _, one in ipairs(open_claim(r).seqs) do
            g.lent[one] = true
          end
        end
      end
      if g.lent[seq] then
        return false
      end
    end
  end
  return true
end

-- The id in a body: its second netstring.
local function id_in(body)
  local first = match(body, '^(%d+):')
  local at = first and #first + first + 3
  local size = at and match(body, '^(%d+):', at)
  return size and sub(body, at + #size + 1, at + #size + size) or ''
end

-- Forgets the ids of events that go, where the row of ids has passed them.
local function part_with(gone, bodies)
  local late = {}
  for i = 1, #gone do
    if gone[i] <= meta.forgotten then
      late[#late + 1] = id_in(bodies[i])
    end
  end
  many('HDEL', IDS, late)
end

-- Lets the oldest finished events go, so many of them; their places in order.
local function trim(count, groups)
  local lowest = meta.newest
  for i = 1, #groups do
    if groups[i].s > 0 then
      lowest = min(lowest, groups[i].f)
    end
  end
  local gone, trimmed = {}, meta.trimmed
  if meta.odd == 0 and trimmed >= meta.copy and trimmed >= meta.forgotten and trimmed + count <= lowest then
    meta.trimmed = trimmed + count
    -- Not the row that it may stand in.
    call('XTRIM', LOG, 'MINID', '~', before(meta.trimmed + 1))
    for i = 1, count do
      gone[i] = trimmed + i
    end
    return gone
  end
  local rows, bodies = {}, {}
  if meta.odd > 0 then
    local freed = call('ZPOPMIN', FREED, count)
    for i = 1, #freed, 2 do
      local seq = tonumber(freed[i])
      local _, body = entry_of(seq)
      gone[#gone + 1], bodies[#bodies + 1] = seq, body or ''
      rows[#rows + 1] = { row_of(seq) }
      meta.odd = meta.odd - 1
    end
    part_with(gone, bodies)
  end
  local walked, is_end, from = 0, false, before(trimmed + 1)
  while #gone < count and walked < WALK_MAX + 2 * count and not is_end do
    local page = call('XRANGE', LOG, from, '+', 'COUNT', 64)
    is_end = #page < 64
    for i = 1, #page do
      local first, last = range_of(page[i])
      from = int(first + 1)
      if last > meta.trimmed and #gone < count then
        local numbers, lanes, bodies_of = open_row(page[i], first, last)
        local is_copy = numbers and find(numbers, '=', 1, true)
        rows[#rows + 1] = { page[i], first, last }
        for seq = max(first, meta.trimmed + 1), last do
          if #gone < count then
            local lane = numbers and lanes[seq - first + 1]
            walked = walked + 1
            if not is_copy and (seq <= lowest or not lane or is_finished(seq, numbers .. lane, groups)) then
              gone[#gone + 1] = seq
              part_with({ seq }, { lane and bodies_of[seq - first + 1] or '' })
            else
              call('ZADD', HELD, seq, seq)
              meta.odd = meta.odd + 1
            end
            meta.trimmed = seq
          end
        end
      end
    end
    is_end = is_end and #gone < count
  end
  for i = 1, #rows do
    local entry, first, last = rows[i][1], rows[i][2], rows[i][3]
    if entry and last <= meta.trimmed and call('ZCOUNT', HELD, first, last) == 0 and call('ZCOUNT', FREED, first, last) == 0 then
      call('XDEL', LOG, entry[1])
    end
  end
  if meta.odd == 0 then
    call('ZREMRANGEBYSCORE', COPIES, '-inf', meta.trimmed)
  end
  if #gone < count then
    -- More stays than may until the next write looks further; there is none if somebody else took it away.
    meta.history = is_end and 0 or meta.history + count - #gone
  end
  return gone
end

-- Forgets the ids of those that left long enough ago.
local function forget(window)
  local last, gone = meta.newest - window, {}
  if meta.forgotten < last then
    for _ = 1, FORGET_MAX do
      local row = call('LINDEX', QUEUE, 0)
      local newest = row and tonumber(match(row, '^%d+'))
      if not row or newest > last then
        break
      end
      call('LPOP', QUEUE)
      meta.forgotten = newest
      local ids = {}
      for id in string.gmatch(row, '\n([^\n]+)') do
        ids[#ids + 1] = id
      end
      if newest <= meta.trimmed and meta.odd == 0 then
        for i = 1, #ids do
          gone[#gone + 1] = ids[i]
        end
      else
        local values, exact = ask('HMGET', IDS, ids), {}
        for i = 1, #ids do
          local seq = newest - #ids + i
          if values[i] == '=' .. newest or tonumber(values[i] or 0) == seq then
            local is_kept = seq > meta.trimmed or call('ZSCORE', HELD, seq) or call('ZSCORE', FREED, seq)
            if is_kept then
              -- The queue knows it no more.
              exact[#exact + 1], exact[#exact + 2] = ids[i], seq
            else
              gone[#gone + 1] = ids[i]
            end
          end
        end
        many('HSET', IDS, exact)
      end
    end
  end
  many('HDEL', IDS, gone)
end

-- Appends events: each `id head body wants`, wants being the groups that want it, and `lane` if it goes by the priority lane. They get `seq` and
-- `evicted`.
local function lay_row(events, from, to, groups, history_max, window)
  local ids, unwanted, shared, pops, popped = {}, {}, {}, {}, 0
  local row = {}
  for n = from, to do
    local e = events[n]
    local seq = meta.newest + 1
    meta.newest = seq
    call('XADD', LOG, seq .. '-0', e.head, e.body)
    meta.wide, meta.heavy = 0, #e.body
    e.seq, e.evicted = seq, 0
    ids[#ids + 1], ids[#ids + 2], row[#row + 1] = e.id, seq, e.id
    local wants = e.wants
    for i = 1, #wants do
      local g = wants[i]
      if g.s == 0 then
        g.f = seq - 1
      end
      g.s = g.s + 1
      if e.lane then
        push(g, { seq, e.lane }, { e.lane }, 0)
      else
        if g.u == 0 then
          g.c, g.r = seq - 1, 0
        end
        g.u = g.u + 1
      end
    end
    if #wants == 0 then
      meta.history = meta.history + 1
      unwanted[#unwanted + 1], unwanted[#unwanted + 2] = seq, seq
    elseif #wants > 1 then
      shared[#shared + 1], shared[#shared + 2] = seq, #wants
    end
    local pop = min(TRIM_MAX, max(0, meta.history - history_max))
    meta.history = meta.history - pop
    pops[n], popped = pop, popped + pop
  end
  many('HSET', IDS, ids)
  call('RPUSH', QUEUE, meta.newest .. '\n' .. table.concat(row, '\n'))
  many('ZADD', UNWANTED, unwanted)
  many('HSET', LIVE, shared)
  if popped > 0 then
    local gone = trim(popped, groups)
    if #gone > 0 and call('EXISTS', UNWANTED) == 1 then
      local was_unwanted, at, never = ask('ZMSCORE', UNWANTED, gone), 1, {}
      for n = from, to do
        for _ = 1, pops[n] do
          if was_unwanted[at] then
            events[n].evicted = events[n].evicted + 1
            never[#never + 1] = gone[at]
          end
          at = at + 1
        end
      end
      many('ZREM', UNWANTED, never)
    end
  end
  forget(window)
end

local function lay(events, groups, history_max, window)
  if history_max >= SMALL and window >= SMALL then
    if #events > 0 then
      lay_row(events, 1, #events, groups, history_max, window)
    end
    return
  end
  for n = 1, #events do
    lay_row(events, n, n, groups, history_max, window)
  end
end
