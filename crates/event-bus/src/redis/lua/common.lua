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
local LAYOUT = '2'

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

-- The numbers of the bus and of its groups, read once and written once. What is 0 need not be there.
local NUMBERS = { 'newest', 'history', 'trimmed', 'odd', 'copy', 'forgotten', 'due', 'delays', 'claims', 'wide', 'heavy' }
local OF_GROUP = { 's', 'u', 'c', 'f', 'o', 'b', 'r' }
local meta, was, version, loaded = {}, {}, '0', {}

-- Reads the numbers of the bus, or of groups (by their numbers); the groups.
local function load(gids)
  local names, groups = {}, {}
  if not meta.newest then
    for i = 1, #NUMBERS do
      names[i] = NUMBERS[i]
    end
    names[#names + 1] = 'version'
  end
  local of_bus = #names
  for i = 1, #gids do
    for k = 1, #OF_GROUP do
      names[#names + 1] = OF_GROUP[k] .. gids[i]
    end
    names[#names + 1] = 'm' .. gids[i]
  end
  if #names == 0 then
    return groups
  end
  local values = call('HMGET', META, unpack(names))
  if of_bus > 0 then
    for i = 1, #NUMBERS do
      local n = tonumber(values[i] or 0)
      meta[NUMBERS[i]], was[NUMBERS[i]] = n, n
    end
    version = values[of_bus] or '0'
  end
  for i = 1, #gids do
    local at, gid = of_bus + (i - 1) * (#OF_GROUP + 1), gids[i]
    local of = base .. 'g' .. gid .. ':'
    local g = { gid = gid, mine = ',' .. gid .. ',', old = {}, m = values[at + #OF_GROUP + 1] or '' }
    g.old.m = g.m
    for k = 1, #OF_GROUP do
      local n = tonumber(values[at + k] or 0)
      g[OF_GROUP[k]], g.old[OF_GROUP[k]] = n, n
    end
    g.claims, g.slow, g.waits, g.lanes = of .. 'claims', of .. 'slow', of .. 'waits', of .. 'lane:'
    g.dead, g.deads, g.names = of .. 'dead', of .. 'deads', of .. 'names'
    g.heads_n, g.heads_p, g.free_n, g.free_p = of .. 'heads:n', of .. 'heads:p', of .. 'free:n', of .. 'free:p'
    groups[i], loaded[#loaded + 1] = g, g
  end
  return groups
end

-- Writes what has changed.
local function save()
  local args = {}
  for i = 1, #NUMBERS do
    local name = NUMBERS[i]
    if meta[name] ~= was[name] then
      args[#args + 1], args[#args + 2] = name, meta[name]
    end
  end
  for i = 1, #loaded do
    local g = loaded[i]
    for k = 1, #OF_GROUP do
      local name = OF_GROUP[k]
      if g[name] ~= g.old[name] then
        args[#args + 1], args[#args + 2] = name .. g.gid, g[name]
      end
    end
    if g.m ~= g.old.m then
      args[#args + 1], args[#args + 2] = 'm' .. g.gid, g.m
    end
  end
  if #args > 0 then
    call('HSET', META, 'layout', LAYOUT, unpack(args))
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

-- Where to begin to read so that the row of a place is among what comes.
local function before(seq)
  return int(max(0, seq - ROW_MAX + 1))
end
