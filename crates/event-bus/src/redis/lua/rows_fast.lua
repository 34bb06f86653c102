-- What `rows.lua` does, where nothing is out of the ordinary: in one piece and without functions, whose making would cost more than all this. Changes
-- nothing and answers `slow` where that one has to look.
--
-- ARGV: version, backlog_max, history_max, dedup_window, how many groups, their numbers, which program this is, whether it may tell others what is
-- handed over to them (0 or 1), how many events, the length of their ids if they have one, these with a line end between them; then for each row: which groups want
-- it (a 0 or 1 for each), how many events, head, bodies.
-- `lay.lua` and `rows.lua` know them too.
local TRIM_MAX, FORGET_MAX, HANDED_MAX = 2, 64, 1048576

local call, pack, open, sub, find, byte, min, max = redis.call, cmsgpack.pack, cmsgpack.unpack, string.sub, string.find, string.byte, math.min, math.max
local base = KEYS[1]
local META, IDS, QUEUE = base .. 'meta', base .. 'ids', base .. 'queue'
local count = tonumber(ARGV[5])
local names = { 'numbers', 'version' }
for k = 1, count do
  names[k + 2] = 'g' .. ARGV[5 + k]
end
local values = call('HMGET', META, unpack(names))
local numbers = values[1]
if not numbers or values[2] ~= ARGV[1] then
  return { 'slow' }
end
local newest, history, trimmed, odd, copy, forgotten, due, delays, claims, wide, heavy = open(numbers)
local backlog_max, history_max, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local program, total, size_of_id, joined = ARGV[6 + count], tonumber(ARGV[8 + count]), tonumber(ARGV[9 + count]), ARGV[10 + count]
local rows = 11 + count

-- What the groups become, and what goes.
local groups, lowest, popped, first = {}, newest + total, 0, newest + 1
for k = 1, count do
  local g, packed = { s = 0, u = 0, c = 0, f = 0, o = 0, b = 0, r = 0, m = '', i = '', rows = false, was = 0 }, values[k + 2]
  if packed then
    g.s, g.u, g.c, g.f, g.o, g.b, g.r, g.m, g.i = open(packed)
  end
  g.was, groups[k] = g.s, g
end
local at_row, kept = first, history
for at = rows, #ARGV, 4 do
  local wanted, size, wants = ARGV[at], tonumber(ARGV[at + 1]), 0
  for k = 1, count do
    if byte(wanted, k) == 49 then
      local g = groups[k]
      wants = wants + 1
      if g.i ~= '' and (g.rows or g.s == 0 and g.o == 0) then
        local list = g.rows or {}
        list[#list + 1], list[#list + 2] = at_row, at
        g.rows = list
      end
      if g.s == 0 then
        g.f = at_row - 1
      end
      if g.u == 0 then
        g.c, g.r = at_row - 1, 0
      end
      g.s, g.u = g.s + size, g.u + size
    end
  end
  if wants == 0 then
    kept = kept + size
  end
  local pop = min(TRIM_MAX * size, max(0, kept - history_max))
  kept, popped = kept - pop, popped + pop
  at_row = at_row + size
end
for k = 1, count do
  local g = groups[k]
  if g.s > backlog_max and g.s > g.was then
    return { 'slow' }
  end
  if g.s > 0 then
    lowest = min(lowest, g.f)
  end
end
if popped > 0 and (odd > 0 or trimmed < copy or trimmed < forgotten or trimmed + popped > lowest) then
  return { 'slow' }
end
local later = newest + total - window
local leaving = forgotten < later and call('LINDEX', QUEUE, 0)
if leaving then
  local last = tonumber(string.match(leaving, '^%d+'))
  if last > later then
    leaving = false
  elseif last > trimmed or odd > 0 then
    return { 'slow' }
  end
end
local ids, n = {}, 0
if size_of_id > 0 then
  for at = 1, #joined, size_of_id + 1 do
    n = n + 1
    ids[n] = sub(joined, at, at + size_of_id - 1)
  end
else
  for id in string.gmatch(joined, '[^\n]+') do
    n = n + 1
    ids[n] = id
  end
end
local found = call('HMGET', IDS, unpack(ids))
for k = 1, n do
  if found[k] then
    return { 'slow' }
  end
end

-- From here on it is done.
newest, history = newest + total, kept
at_row = first
local unwanted, shared = nil, nil
for at = rows, #ARGV, 4 do
  local wanted, size, wants = ARGV[at], tonumber(ARGV[at + 1]), 0
  wide, heavy = size - 1, #ARGV[at + 3]
  call('XADD', base .. 'log', at_row .. '-' .. wide, ARGV[at + 2], ARGV[at + 3])
  for k = 1, count do
    if byte(wanted, k) == 49 then
      wants = wants + 1
    end
  end
  if wants ~= 1 then
    for seq = at_row, at_row + wide do
      if wants == 0 then
        unwanted = unwanted or {}
        unwanted[#unwanted + 1], unwanted[#unwanted + 2] = seq, seq
      else
        shared = shared or {}
        shared[#shared + 1], shared[#shared + 2] = seq, wants
      end
    end
  end
  at_row = at_row + size
end
-- One place for all of a batch: which is whose tells the queue.
local place, pairs_of = n == 1 and first .. '' or '=' .. newest, {}
for k = 1, n do
  pairs_of[k * 2 - 1], pairs_of[k * 2] = ids[k], place
end
call('HSET', IDS, unpack(pairs_of))
call('RPUSH', QUEUE, newest .. '\n' .. joined)
if unwanted then
  call('ZADD', base .. 'unwanted', unpack(unwanted))
end
if shared then
  call('HSET', base .. 'live', unpack(shared))
end

-- Lends the first of them to whoever waits for them, and tells it: in the answer if it is of this program, on its channel otherwise.
local handed, is_quiet = {}, 1
for k = 1, count do
  local g = groups[k]
  if g.s > g.was then
    local is_handed = false
    if g.rows then
      local expires, patience, nonce, token, hears, lease, till_of, limit, consumer, incarnation = open(g.i)
      local now = call('TIME')
      now = now[1] * 1000000 + now[2]
      local is_here = token == program
      g.i = ''
      if now < expires and expires - now <= patience and (is_here or ARGV[7 + count] == '1' and hears == '1') then
        local parts, ranges, told, taken, bytes, safe_row = {}, {}, {}, 0, 0, 0
        for j = 1, #g.rows, 2 do
          if taken >= limit or bytes > HANDED_MAX then
            break
          end
          local low, at = g.rows[j], g.rows[j + 1]
          local head, body = ARGV[at + 2], ARGV[at + 3]
          local last = low + ARGV[at + 1] - 1
          local till, p = min(last, low + limit - taken - 1), #parts
          parts[p + 1], parts[p + 2], parts[p + 3], parts[p + 4] = low, low, till, sub(head, find(head, ';', 1, true) + 1)
          if is_here then
            ranges[#ranges + 1], ranges[#ranges + 2] = low, till
          else
            told[#told + 1] = low .. ' ' .. last - low .. ' ' .. till .. ' ' .. #head .. ' ' .. #body .. '\n'
            told[#told + 1], told[#told + 2] = head, body
          end
          taken, bytes, safe_row = taken + till - low + 1, bytes + #body, till < last and low or 0
        end
        local record = claims + 1
        if is_here then
          handed[#handed + 1] = { incarnation, nonce, record, ranges }
          is_handed = true
        else
          is_handed = call('PUBLISH', base .. 'to:' .. token, incarnation .. '\n' .. nonce .. '\n' .. record .. '\n' .. table.concat(told)) > 0
        end
        if is_handed then
          claims = record
          call('HSET', base .. 'g' .. ARGV[5 + k] .. ':claims', record,
            pack(parts[2], till_of > 0 and till_of or now + lease, lease, nonce, consumer, incarnation, parts))
          g.c, g.r, g.u = parts[#parts - 1], safe_row, g.u - taken
          is_handed = g.u == 0
        end
      end
    end
    if not is_handed then
      is_quiet = 0
    end
  end
end

local evicted = 0
if popped > 0 then
  trimmed = trimmed + popped
  -- Not the row that it may stand in.
  call('XTRIM', base .. 'log', 'MINID', '~', string.format('%.0f', max(0, trimmed - 62)))
  evicted = call('ZREMRANGEBYSCORE', base .. 'unwanted', '-inf', trimmed)
end
for k = 1, FORGET_MAX do
  if not leaving then
    break
  end
  local gone, g = {}, 0
  for id in string.gmatch(leaving, '\n([^\n]+)') do
    g = g + 1
    gone[g] = id
  end
  forgotten = tonumber(string.match(leaving, '^%d+'))
  call('LTRIM', QUEUE, 1, -1)
  call('HDEL', IDS, unpack(gone))
  leaving = forgotten < later and k < FORGET_MAX and call('LINDEX', QUEUE, 0)
  local last = leaving and tonumber(string.match(leaving, '^%d+'))
  if last and (last > later or last > trimmed) then
    leaving = false
  end
end
local all = { 'numbers', pack(newest, history, trimmed, odd, copy, forgotten, due, delays, claims, wide, heavy) }
for k = 1, count do
  local g = groups[k]
  if g.s > g.was then
    all[#all + 1], all[#all + 2] = 'g' .. ARGV[5 + k], pack(g.s, g.u, g.c, g.f, g.o, g.b, g.r, g.m, g.i)
  end
end
call('HSET', META, unpack(all))
return { 'ok', first, evicted, is_quiet, handed }
