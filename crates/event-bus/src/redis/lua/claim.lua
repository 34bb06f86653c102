-- Lends out the oldest events that are due: of each lane the first one that is free, followed by its lane as far as that is free.
--
-- ARGV: group, consumer, incarnation, now, whose time counts (`server` or `bus`), lease, horizon, max, crashes_max, how many shards, which
-- of them are open (a 0 or 1 for each), dead_max, now as dead letters tell it, number of this claim; then the numbers of earlier
-- claims of this incarnation whose answers were lost: it never got those events, so they are given back first.
local BYTES_MAX, PAGE = 4194304, 16

if not find_group(ARGV[1]) then
  return { 'nogroup' }
end
local consumer, incarnation, lease, horizon = ARGV[2], ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
local max, crashes_max, shards, open = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local now, shift = tonumber(ARGV[4]), 0
if ARGV[5] == 'server' then
  shift = server_time() - now
  now = now + shift
end

if #ARGV > 14 then
  local lost, changed = {}, {}
  for i = 15, #ARGV do
    lost[ARGV[i]] = true
  end
  local all = call('HGETALL', touched)
  for i = 1, #all, 2 do
    local d = unpack_delivery(all[i + 1])
    if d.incarnation == incarnation and lost[d.nonce] then
      d.attempts, d.incarnation, d.consumer, d.till = d.attempts - 1, '', '', 0
      call('HSET', touched, all[i], pack_delivery(d))
      changed[#changed + 1] = d.lane
    end
  end
  place(changed, now)
end

-- Those whose wait is over, and those whose wait was set before the clock stepped back, are free.
local over = call('ZRANGEBYSCORE', waits, '-inf', int(now))
local beyond = call('ZRANGEBYSCORE', waits, '(' .. int(now + min(horizon, lease * 2)), '+inf', 'LIMIT', 0, 1000)
if #beyond > 0 then
  local seqs = ask('ZMSCORE', heads, beyond)
  for i = 1, #seqs do
    seqs[i] = int(tonumber(seqs[i]))
  end
  local packed = ask('HMGET', touched, seqs)
  for i = 1, #beyond do
    local d = packed[i] and unpack_delivery(packed[i])
    local is_due = not d or d.next_at <= now or d.next_at - now > horizon
    local is_over = not d or d.incarnation == '' or d.till <= now or d.till - now > d.lease * 2
    if is_due and is_over then
      over[#over + 1] = beyond[i]
    end
  end
end
if #over > 0 then
  local seqs, pairs_ = ask('ZMSCORE', heads, over), {}
  for i = 1, #over do
    pairs_[i * 2 - 1], pairs_[i * 2] = seqs[i], over[i]
  end
  many('ZADD', free, pairs_)
  many('ZREM', waits, over)
end

local function is_open(lane)
  local shard = tonumber(string.sub(lane, 1, 8), 16) % shards
  return string.byte(open, shard + 1) == 49
end

-- The lanes whose heads are free and whose shards have room: `max` of them at most, oldest first.
local function free_lanes()
  local found, at = {}, 0
  while true do
    local page = call('ZRANGE', free, at, at + 127, 'WITHSCORES')
    for i = 1, #page, 2 do
      if is_open(page[i]) then
        found[#found + 1] = { seq = tonumber(page[i + 1]), lane = page[i], behind = 0 }
        if #found == max then
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

local has_touched = call('HLEN', touched) > 0

-- The next of a lane behind the place that `turn` is at; nil at its end, and where the next is lent out or waits.
local function follow(turn)
  local ahead = turn.ahead
  if not ahead or turn.next > #ahead then
    ahead = call('LRANGE', lanes .. turn.lane, turn.behind + 1, turn.behind + PAGE)
    if #ahead == 0 then
      return nil
    end
    turn.ahead, turn.next = ahead, 1
    turn.packed = has_touched and call('HMGET', touched, unpack(ahead)) or {}
  end
  local seq, packed = ahead[turn.next], turn.packed[turn.next]
  turn.next, turn.behind = turn.next + 1, turn.behind + 1
  turn.seq, turn.delivery = tonumber(seq), packed and unpack_delivery(packed) or nil
  local d = turn.delivery
  if d then
    local is_due = d.next_at <= now or d.next_at - now > horizon
    local is_over = d.incarnation == '' or d.till <= now or d.till - now > d.lease * 2
    if not (is_due and is_over) then
      return nil
    end
  end
  return turn
end

-- Events in stored order, and whether the one is alone because its consumer died with it.
local function select()
  local turns = free_lanes()
  if has_touched and #turns > 0 then
    local seqs = {}
    for i = 1, #turns do
      seqs[i] = int(turns[i].seq)
    end
    local packed = ask('HMGET', touched, seqs)
    for i = 1, #turns do
      turns[i].delivery = packed[i] and unpack_delivery(packed[i]) or nil
    end
  end
  local chosen = {}
  while #chosen < max and #turns > 0 do
    local turn = table.remove(turns, 1)
    local d = turn.delivery
    local pick = { seq = int(turn.seq), lane = turn.lane, delivery = d }
    if d and d.incarnation ~= '' then
      if #chosen > 0 then
        return chosen, false
      end
      return { pick }, true
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
  return chosen, false
end

local dead_lettered = 0
local chosen, alone = select()
while alone and chosen[1].delivery.attempts >= crashes_max do
  local killer = chosen[1]
  local why = 'its consumer died or lost its lease while handling it, ' .. int(killer.delivery.attempts) .. ' attempts'
  if killer.delivery.error ~= '' then
    why = why .. '; before that: ' .. killer.delivery.error
  end
  bury(killer.seq, killer.delivery.attempts, why, ARGV[13], ARGV[12])
  take_off({ [killer.lane] = { killer.seq } })
  place({ killer.lane }, now)
  dead_lettered = dead_lettered + 1
  chosen, alone = select()
end

-- What is stored of the chosen ones, as many as one answer should hold. An event that is gone from the log answers false.
local events, bytes = {}, 0
local function read(first, last)
  local low, high = tonumber(chosen[first].seq), tonumber(chosen[last].seq)
  local found = {}
  if high - low < 2 * (last - first + 1) then
    local entries = call('XRANGE', LOG, int(low), int(high))
    for i = 1, #entries do
      found[string.match(entries[i][1], '^%d+')] = entries[i][2]
    end
  else
    for i = first, last do
      local entry = call('XRANGE', LOG, chosen[i].seq, chosen[i].seq)[1]
      found[chosen[i].seq] = entry and entry[2]
    end
  end
  for i = first, last do
    local fields = found[chosen[i].seq] or false
    if fields then
      bytes = bytes + #fields[#fields]
    end
    events[i] = fields
    if bytes > BYTES_MAX then
      return false
    end
  end
  return true
end
for first = 1, #chosen, PAGE do
  if not read(first, min(first + PAGE - 1, #chosen)) then
    break
  end
end

local answers, records, is_lent, not_free, waiting = {}, {}, {}, {}, {}
local till = now + lease
for i = 1, #events do
  local pick = chosen[i]
  local d = pick.delivery or { attempts = 0, next_at = 0, error = '', lane = pick.lane }
  d.attempts, d.till, d.lease, d.nonce, d.consumer, d.incarnation = d.attempts + 1, till, lease, ARGV[14], consumer, incarnation
  records[#records + 1], records[#records + 2] = pick.seq, pack_delivery(d)
  answers[i] = { tonumber(pick.seq), d.attempts, events[i] }
  if not is_lent[pick.lane] then
    -- The first of its lane in this claim is its head.
    is_lent[pick.lane] = true
    not_free[#not_free + 1] = pick.lane
    waiting[#waiting + 1], waiting[#waiting + 2] = int(free_at(d)), pick.lane
  end
end
many('HSET', touched, records)
many('ZREM', free, not_free)
many('ZADD', waits, waiting)

local next_due = ''
if #answers < max then
  local first = call('ZRANGEBYSCORE', waits, '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if first[2] then
    next_due = int(tonumber(first[2]) - shift)
  end
end
return { 'ok', answers, alone and 1 or 0, dead_lettered, next_due }
