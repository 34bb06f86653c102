-- What the scripts share. KEYS[1]: what all keys of the bus begin with; it holds the {tag}, so one bus is one slot of a Cluster.
-- How keys are laid out: ../keys.rs.
local call, floor, min, max = redis.call, math.floor, math.min, math.max
local sub, find, match, byte = string.sub, string.find, string.match, string.byte
local function int(n)
  return string.format('%.0f', n)
end
local base = KEYS[1]
local META, GROUPS, GONE, LOG, IDS, QUEUE = base .. 'meta', base .. 'groups', base .. 'gone', base .. 'log', base .. 'ids', base .. 'queue'
local LIVE, COPIES, UNWANTED = base .. 'live', base .. 'copies', base .. 'unwanted'
local HELD, FREED = base .. 'held', base .. 'freed'
local DELAYED, DELAYS, WALK = base .. 'delayed', base .. 'delays', base .. 'walk'
local LAYOUT = '3'

-- Calls a command of many arguments in pieces that Lua's stack holds; an even number, for those that take pairs.
local function many(cmd, key, args)
  for at = 1, #args, 1000 do
    call(cmd, key, unpack(args, at, min(at + 999, #args)))
  end
end

-- The replies of a command that answers one for each argument.
local function ask(cmd, key, args)
  if #args <= 1000 then
    return #args == 0 and {} or call(cmd, key, unpack(args))
  end
  local all = {}
  for at = 1, #args, 1000 do
    local last = min(at + 999, #args)
    local part = call(cmd, key, unpack(args, at, last))
    for i = 1, last - at + 1 do
      all[at + i - 1] = part[i]
    end
  end
  return all
end

-- The numbers of the bus and of its groups, read once and written once: packed in one field for the bus and in one for each group. The first one is
-- the newest place, for those who look from outside.
local meta, version, loaded, packed_meta = {}, '0', {}, nil

local function read_group(gid, packed)
  local of = base .. 'g' .. gid .. ':'
  local g = { gid = gid, mine = ',' .. gid .. ',', packed = packed, s = 0, u = 0, c = 0, f = 0, o = 0, b = 0, r = 0, m = '', i = '',
    claims = of .. 'claims', slow = of .. 'slow', waits = of .. 'waits', lanes = of .. 'lane:', dead = of .. 'dead', deads = of .. 'deads', names = of .. 'names',
    heads_n = of .. 'heads:n', heads_p = of .. 'heads:p', free_n = of .. 'free:n', free_p = of .. 'free:p' }
  if packed then
    g.s, g.u, g.c, g.f, g.o, g.b, g.r, g.m, g.i = cmsgpack.unpack(packed)
  end
  loaded[#loaded + 1] = g
  return g
end

-- Reads the numbers of the bus, or of groups (by their numbers); the groups.
local function load(gids)
  local names, groups = { 'numbers', 'version' }, {}
  for i = 1, #gids do
    names[i + 2] = 'g' .. gids[i]
  end
  local values = call('HMGET', META, unpack(names))
  if not meta.newest then
    packed_meta, version = values[1], values[2] or '0'
    if packed_meta then
      meta.newest, meta.history, meta.trimmed, meta.odd, meta.copy, meta.forgotten, meta.due, meta.delays, meta.claims, meta.wide, meta.heavy =
        cmsgpack.unpack(packed_meta)
    else
      meta = { newest = 0, history = 0, trimmed = 0, odd = 0, copy = 0, forgotten = 0, due = 0, delays = 0, claims = 0, wide = 0, heavy = 0 }
    end
  end
  for i = 1, #gids do
    groups[i] = read_group(gids[i], values[i + 2])
  end
  return groups
end

-- Writes what has changed.
local function save()
  local args = {}
  local packed = cmsgpack.pack(meta.newest, meta.history, meta.trimmed, meta.odd, meta.copy, meta.forgotten, meta.due, meta.delays, meta.claims,
    meta.wide, meta.heavy)
  if packed ~= packed_meta then
    args[1], args[2] = 'numbers', packed
  end
  for i = 1, #loaded do
    local g = loaded[i]
    local of_group = cmsgpack.pack(g.s, g.u, g.c, g.f, g.o, g.b, g.r, g.m, g.i)
    if of_group ~= g.packed then
      args[#args + 1], args[#args + 2] = 'g' .. g.gid, of_group
    end
  end
  if #args > 0 then
    if not packed_meta then
      args[#args + 1], args[#args + 2] = 'layout', LAYOUT
    end
    call('HSET', META, unpack(args))
  end
end

-- The group of a name, with the numbers of the bus; and its pattern.
local function find_group(name)
  local stored = call('HGET', GROUPS, name)
  if not stored then
    return false
  end
  local gid, pattern = match(stored, '^(%d+)\n(.*)$')
  return load({ gid })[1], pattern
end

-- Moments are microseconds: exact in a double for two centuries.
local function server_time()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Who waits for what comes to a group next, in `g.i`: until when by the server's time, and as which claim it would be lent to it.
local function unpack_waiter(packed)
  local w = {}
  w.expires, w.patience, w.nonce, w.token, w.hears, w.lease, w.till, w.limit, w.consumer, w.incarnation = cmsgpack.unpack(packed)
  return w
end

-- An entry of the log is a row of events that follow each other and that the same groups want: `FIRST-MORE` is its id, MORE being how many there
-- are beside the first. Its head is `NUMBERS;LANE`, the numbers of those groups between commas (with a `=` behind them if it is a copy); with more than
-- one event it has all their lanes, packed, and so have the bodies.
local ROW_MAX = 64

-- The first and the last place of a row.
local function range_of(entry)
  local first, more = match(entry[1], '^(%d+)-(%d+)$')
  first = tonumber(first)
  return first, first + tonumber(more)
end

-- Which groups want a row, and its lanes and bodies in order. Nil if somebody else wrote it.
local function open_row(entry, first, last)
  local head = entry[2][1]
  local semicolon = find(head, ';', 1, true)
  if not semicolon then
    return nil
  end
  local lanes, bodies = sub(head, semicolon + 1), entry[2][2]
  if first == last then
    return sub(head, 1, semicolon), { lanes }, { bodies }
  end
  return sub(head, 1, semicolon), cmsgpack.unpack(lanes), cmsgpack.unpack(bodies)
end

-- Whether a group wants a row, and takes it off the log itself.
local function is_for(g, entry)
  local head = entry[2][1]
  local semicolon, wanted = find(head, ';', 1, true) or 0, find(head, g.mine, 1, true)
  -- Priority goes by the lanes.
  return wanted and wanted < semicolon and byte(head, semicolon + 1) ~= 112
end

-- The row that a place is in.
local function row_of(seq)
  local entry = call('XREVRANGE', LOG, seq, '-', 'COUNT', 1)[1]
  if entry then
    local first, last = range_of(entry)
    if last >= seq then
      return entry, first, last
    end
  end
end

-- What is stored of an event: its head and its body. None if somebody else removed it.
local function entry_of(seq)
  seq = tonumber(seq)
  local entry, first, last = row_of(seq)
  if entry then
    local numbers, lanes, bodies = open_row(entry, first, last)
    if numbers then
      return numbers .. lanes[seq - first + 1], bodies[seq - first + 1]
    end
  end
end

-- The place of an id, as it is remembered: 0 if it is delayed. Those of a batch have its newest place in common (`=PLACE`), and stand in the queue in
-- their order.
local function place_of(id, value)
  if byte(value, 1) ~= 61 then
    return tonumber(value) or 0
  end
  local newest = tonumber(sub(value, 2))
  local low, high = 0, call('LLEN', QUEUE) - 1
  while low <= high do
    local middle = floor((low + high) / 2)
    local row = call('LINDEX', QUEUE, middle)
    local last = tonumber(match(row, '^%d+'))
    if last == newest then
      local count, at = 0, 0
      for one in string.gmatch(row, '\n([^\n]+)') do
        count = count + 1
        if one == id then
          at = count
        end
      end
      return newest - count + at
    elseif last < newest then
      low = middle + 1
    else
      high = middle - 1
    end
  end
  return newest
end

-- Where to begin to read so that the row of a place is among what comes.
local function before(seq)
  return int(max(0, seq - ROW_MAX + 1))
end
