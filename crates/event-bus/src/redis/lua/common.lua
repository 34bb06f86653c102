-- What the scripts share. KEYS[1]: what all keys of the bus begin with; it holds the {tag}, so one bus is one slot of a Cluster.
-- How keys are laid out: ../keys.rs.
local call, int, floor, min = redis.call, function(n) return string.format('%.0f', n) end, math.floor, math.min
local base = KEYS[1]
local META, GROUPS, SIZES = base .. 'meta', base .. 'groups', base .. 'sizes'
local LOG, LIVE, KEPT, IDS, LATE = base .. 'log', base .. 'live', base .. 'kept', base .. 'ids', base .. 'late'

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

-- The group that the script is about: its number, and where its work is.
local gid, heads, free, waits, touched, dead, lanes

local function use_group(number)
  gid = number
  local of = base .. 'g' .. gid .. ':'
  heads, free, waits, touched, dead, lanes = of .. 'heads', of .. 'free', of .. 'waits', of .. 'touched', of .. 'dead', of .. 'lane:'
end

local function find_group(name)
  local stored = call('HGET', GROUPS, name)
  if not stored then
    return false
  end
  use_group(string.match(stored, '^(%d+)\n'))
  return stored
end

-- Moments are microseconds: exact in a double for two centuries.
local function server_time()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A delivery that was claimed once, or that has failed. `incarnation` is empty unless it is lent out.
local function unpack_delivery(packed)
  local d = {}
  d.attempts, d.next_at, d.till, d.lease, d.nonce, d.consumer, d.incarnation, d.lane, d.error = cmsgpack.unpack(packed)
  return d
end

local function pack_delivery(d)
  return cmsgpack.pack(d.attempts, d.next_at, d.till, d.lease, d.nonce, d.consumer, d.incarnation, d.lane, d.error)
end

local function free_at(d)
  if d.incarnation ~= '' and d.till > d.next_at then
    return d.till
  end
  return d.next_at
end

-- Sets the heads of lanes right: which event stands first, and whether it is free or waits, and until when.
local function place(changed, now)
  local firsts, of, gone = {}, {}, {}
  for i = 1, #changed do
    local first = call('LINDEX', lanes .. changed[i], 0)
    if first then
      firsts[#firsts + 1] = first
      of[#of + 1] = changed[i]
    else
      gone[#gone + 1] = changed[i]
    end
  end
  if #gone > 0 then
    many('ZREM', heads, gone)
    many('ZREM', free, gone)
    many('ZREM', waits, gone)
  end
  local packed = ask('HMGET', touched, firsts)
  local all, is_free, no_wait, is_waiting, not_free = {}, {}, {}, {}, {}
  for i = 1, #of do
    local at = packed[i] and free_at(unpack_delivery(packed[i])) or 0
    all[#all + 1], all[#all + 2] = firsts[i], of[i]
    if at > now then
      is_waiting[#is_waiting + 1], is_waiting[#is_waiting + 2] = int(at), of[i]
      not_free[#not_free + 1] = of[i]
    else
      is_free[#is_free + 1], is_free[#is_free + 2] = firsts[i], of[i]
      no_wait[#no_wait + 1] = of[i]
    end
  end
  many('ZADD', heads, all)
  many('ZADD', free, is_free)
  many('ZREM', waits, no_wait)
  many('ZADD', waits, is_waiting)
  many('ZREM', free, not_free)
end

-- Lets events go that nobody needs; their ids stay known for a while.
local function finish(seqs)
  if #seqs == 0 then
    return
  end
  many('HDEL', LIVE, seqs)
  many('XDEL', LOG, seqs)
  local forgotten, late = tonumber(call('HGET', META, 'forgotten') or 0), {}
  for i = 1, #seqs do
    if tonumber(seqs[i]) <= forgotten then
      late[#late + 1] = seqs[i]
    end
  end
  if #late > 0 then
    local ids, known = ask('HMGET', LATE, late), {}
    for i = 1, #late do
      if ids[i] then
        known[#known + 1] = ids[i]
      end
    end
    many('ZREM', IDS, known)
    many('HDEL', LATE, late)
  end
end

-- One group less needs the events.
local function done(seqs)
  local counts, finished, fewer = ask('HMGET', LIVE, seqs), {}, {}
  for i = 1, #seqs do
    local count = tonumber(counts[i] or 1)
    if count <= 1 then
      finished[#finished + 1] = seqs[i]
    else
      fewer[#fewer + 1], fewer[#fewer + 2] = seqs[i], count - 1
    end
  end
  many('HSET', LIVE, fewer)
  finish(finished)
end

-- Takes events off the group's work. `by_lane`: lane to array of seqs, in any order. The lanes' heads are for `place`.
local function take_off(by_lane)
  local all = {}
  for lane, seqs in pairs(by_lane) do
    local gone = {}
    for i = 1, #seqs do
      gone[seqs[i]] = true
      all[#all + 1] = seqs[i]
    end
    -- Nearly always they are the first ones.
    local first = call('LRANGE', lanes .. lane, 0, #seqs - 1)
    local is_prefix = true
    for i = 1, #first do
      is_prefix = is_prefix and gone[first[i]]
    end
    if is_prefix then
      call('LTRIM', lanes .. lane, #seqs, -1)
    else
      for i = 1, #seqs do
        call('LREM', lanes .. lane, 1, seqs[i])
      end
    end
  end
  if #all > 0 then
    many('HDEL', touched, all)
    call('HINCRBY', SIZES, gid, -#all)
    done(all)
  end
end

-- Copies an event to the dead letters; how many older ones made room. It is still part of the group's work.
local function bury(seq, attempts, why, at, dead_max)
  local entry = call('XRANGE', LOG, seq, seq)[1]
  local fields = { 'seq', seq, 'error', why, 'attempts', int(attempts), 'at', at }
  if entry then
    for i = 1, #entry[2] do
      fields[#fields + 1] = entry[2][i]
    end
  end
  call('XADD', dead, '*', unpack(fields))
  return call('XTRIM', dead, 'MAXLEN', '=', dead_max)
end
