-- What a claim does, where nothing is out of the ordinary: the only thing that is lent out is what this consumer took with one claim and is done with, and
-- what comes next can be lent as it stands in the log. In one piece and without functions, whose making would cost more than all this. Changes nothing
-- and answers `slow` where `claim.lua` has to look.
--
-- ARGV: as `claim.lua` says up to whether the program hears; then the record that is done with (empty: none), how many events that is, and its first place.
local BYTES_MAX, PAGES_MAX = 4194304, 6

local call, open, find, byte, min, max = redis.call, cmsgpack.unpack, string.find, string.byte, math.min, math.max
local base = KEYS[1]
local META, LOG = base .. 'meta', base .. 'log'
local stored = call('HGET', base .. 'groups', ARGV[1])
if not stored then
  return { 'nogroup' }
end
local gid = string.match(stored, '^%d+')
local field, of, mine = 'g' .. gid, base .. 'g' .. gid .. ':', ',' .. gid .. ','
local owner = call('HGET', of .. 'names', ARGV[2])
if owner and owner ~= ARGV[3] then
  return { 'slow' }
end
local values = call('HMGET', META, 'numbers', field)
if not values[1] or not values[2] then
  return { 'slow' }
end
local newest, history, trimmed, odd, copy, forgotten, due, delays, claims, wide, heavy = open(values[1])
local s, u, c, f, o, b, r, m, i = open(values[2])
local incarnation, lease, limit = ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[8])
local now, shift, time = tonumber(ARGV[4]), 0, false
if ARGV[5] == 'server' then
  time = call('TIME')
  time = time[1] * 1000000 + time[2]
  shift, now = time - now, time
end
local record, size = ARGV[21], tonumber(ARGV[22])
if o > 0 or odd > 0 or m ~= '' or due > 0 and due - 1 <= now or s - u ~= size then
  return { 'slow' }
end

-- What can be lent: of the log behind the cursor.
local at, lent, parts, taken, bytes = max(c, trimmed), {}, {}, 0, 0
local cursor, row = c, r
if u > 0 then
  if find(string.sub(ARGV[11], 1, tonumber(ARGV[10])), '0', 1, true) then
    return { 'slow' }
  end
  local from = at == c and r > 0 and r or at + 1
  local pages, wanted, is_end = 0, wide > 30 and 1 or 4, false
  while taken < limit and not is_end and bytes <= BYTES_MAX do
    if pages == PAGES_MAX then
      return { 'slow' }
    end
    pages = pages + 1
    local asked = max(1, min(wanted, math.floor(BYTES_MAX / (heavy + 1))))
    local page = call('XRANGE', LOG, from, '+', 'COUNT', asked)
    wanted, is_end = wanted * 2, #page < asked
    for k = 1, #page do
      if taken == limit or bytes > BYTES_MAX then
        is_end = false
        break
      end
      local entry = page[k]
      local first, more = string.match(entry[1], '^(%d+)-(%d+)$')
      first = tonumber(first)
      local last, head = first + more, entry[2][1]
      if first > at + 1 and first - 1 > trimmed then
        return { 'slow' }
      end
      from = last + 1
      if last > at then
        local low, semicolon = max(first, at + 1), find(head, ';', 1, true)
        local is_mine = semicolon and find(head, mine, 1, true)
        if not semicolon then
          return { 'slow' }
        end
        if is_mine and is_mine < semicolon and byte(head, semicolon + 1) ~= 112 then
          local till, p = min(last, low + limit - taken - 1), #parts
          if till - low < last - first then
            entry[3], entry[4] = low, till
          end
          lent[#lent + 1] = entry
          parts[p + 1], parts[p + 2], parts[p + 3], parts[p + 4] = first, low, till, string.sub(head, semicolon + 1)
          taken, bytes = taken + till - low + 1, bytes + #entry[2][2]
          at, row = till, till < last and first or 0
        else
          at, row = last, 0
        end
        cursor = at
      end
    end
  end
  if taken == 0 or is_end and taken < limit and (at < newest or u ~= taken) then
    -- Something is missing.
    return { 'slow' }
  end
end
if size > 0 then
  if copy >= tonumber(ARGV[23]) or call('EXISTS', base .. 'live') == 1 or call('HDEL', of .. 'claims', record) == 0 then
    return { 'slow' }
  end
end

-- From here on it is done.
s, u, history = s - size, u - taken, history + size
c, r = cursor, row
local next_due, waits, made = due > 0 and due - 1 or false, '', ''
local low = u > 0 and c or newest
-- `claim_first.lua` says what is remembered of who waits.
local waited = i ~= '' and find(i, incarnation, 1, true) and i or ''
if waited ~= '' then
  i = ''
end
if taken > 0 then
  made, claims = claims + 1, claims + 1
  low = min(low, parts[2] - 1)
  local till = now + lease
  call('HSET', of .. 'claims', made, cmsgpack.pack(parts[2], till, lease, ARGV[17], ARGV[2], incarnation, parts))
  next_due = taken < limit and min(next_due or till, till)
elseif ARGV[18] ~= '0' then
  local patience = tonumber(ARGV[18])
  local till = time and 0 or now + lease
  if not time then
    time = call('TIME')
    time = time[1] * 1000000 + time[2]
  end
  waits = ARGV[17]
  if waited ~= '' then
    local expires, _, nonce, token, hears, lease_of, till_of = open(waited)
    local left = expires - time
    if left > patience / 2 and left <= patience and token == ARGV[19] and hears == ARGV[20] and till_of == till and lease_of == lease then
      i, waits = waited, nonce
    end
  end
  if i ~= waited or waited == '' then
    i = cmsgpack.pack(time + patience, patience, ARGV[17], ARGV[19], ARGV[20], lease, till, limit, ARGV[2], incarnation)
  end
end
f = low
local numbers = cmsgpack.pack(newest, history, trimmed, odd, copy, forgotten, due, delays, claims, wide, heavy)
local of_group = cmsgpack.pack(s, u, c, f, o, b, r, m, i)
if numbers ~= values[1] or of_group ~= values[2] then
  call('HSET', META, 'numbers', numbers, field, of_group)
end
return { 'ok', {}, lent, 0, 0, next_due and string.format('%.0f', next_due - shift) or '', 0, 0, waits, 0, 0, made ~= '' and string.format('%.0f', made) or '' }
