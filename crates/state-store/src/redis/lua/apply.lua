-- One batch. Every operation runs against what was read and what operations before it did; only when none refuses is anything
-- written, because Redis does not roll back. A refusal is one text: code, place of the operation, fields, a line each.
--
-- KEYS: if the batch needs numbers: meta, index, ends, changes; then one key an operation (but for `keep`).
-- ARGV: where a record's name begins in its key (empty: no numbers); then each operation's code and arguments.
local call, try = redis.call, redis.pcall
local match, format, sub, floor = string.match, string.format, string.sub, math.floor
-- A counter's largest value, and the last millisecond that a timestamp can name.
local COUNTER_MAX, LAST_MS = 9007199254740991, 9223372036854
-- Members of the indexes removed by one write.
local SWEEP_MAX = 100

-- Redis judges a key's expiry by the moment when the script began; this clock is never behind that, so what is alive here was
-- alive there, and each cell's own moment decides.
local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

local name_at = tonumber(ARGV[1])
local key_at, arg_at = name_at and 4 or 0, 1
local op_at = 0

local function int(n)
  return format('%.0f', n)
end

local function arg()
  arg_at = arg_at + 1
  return ARGV[arg_at]
end

local function key()
  key_at = key_at + 1
  return KEYS[key_at]
end

-- Caught at the end. In a table with `err`, because a server of version 7.0 dies of any other that is not caught.
local function refuse(code, ...)
  error({ err = '!' .. table.concat({ code, int(op_at), ... }, '\n') })
end

local function corrupt(name, why)
  refuse('corrupt', name .. ' ' .. why)
end

-- The reply of a reading command; a key of another type is not ours.
local function checked(name, reply)
  if type(reply) == 'table' and reply.err then
    if match(reply.err, '^WRONGTYPE') then
      corrupt(name, 'holds another type of key')
    end
    error(reply)
  end
  return reply
end

-- Cells: {kind, version, expires or false, text}; false where there is none. `was` keeps what Redis had.
local cells, was, dirty, is_dirty, is_record = {}, {}, {}, {}, {}

local function read_cell(name, whole)
  local raw = checked(name, whole and try('GET', name) or try('GETRANGE', name, 0, 63))
  local cell = false
  if raw and raw ~= '' then
    local kind, version, expires, from = match(raw, '^([bnm]) (%d+) ([%d-]+)\n()')
    cell = kind and { kind, version, expires ~= '-' and tonumber(expires), (whole or kind == 'n') and sub(raw, from) }
    if not cell or cell[3] == nil or (kind == 'n' and not match(cell[4], '^%-?%d+$')) then
      corrupt(name, 'does not begin as values of this library do')
    end
  end
  cells[name], was[name] = cell, cell
  return cell
end

local function live(name)
  local cell = cells[name]
  if cell == nil then
    cell = read_cell(name)
  end
  return cell and (not cell[3] or now < cell[3]) and cell
end

local function must_hold(holds, found)
  if not holds then
    refuse('mismatch', found or '')
  end
end

local function judge(name, when, is_versioned)
  local cell = live(name)
  if when == 'A' then
    return cell
  elseif when == 'N' then
    must_hold(not cell, is_versioned and cell and cell[2])
  elseif when == 'E' then
    must_hold(cell)
  else
    must_hold(cell and cell[2] == when, cell and cell[2])
  end
  return cell
end

local function after(ttl)
  local at = now + tonumber(ttl)
  return at < LAST_MS and at or LAST_MS
end

local function expires(ttl, found)
  if ttl == '-' then
    return false
  elseif ttl == 'k' then
    return found and found[3] or false
  end
  return after(ttl)
end

-- Numbers of the namespace, and the changes that it keeps: `stored` in the stream, of which the first `gone` are trimmed, then
-- `notes` from `note_at` on.
local last, last_before, log_max, log_max_before, log_floor, log_floor_before
local stored, gone, is_forgotten, notes, note_at = nil, 0, false, {}, 1

local function read_numbers()
  local meta = checked(KEYS[1], try('HMGET', KEYS[1], 'last', 'keep', 'floor'))
  last, log_max, log_floor = tonumber(meta[1] or 0), tonumber(meta[2] or 0), tonumber(meta[3] or 0)
  if not (last and log_max and log_floor) then
    corrupt(KEYS[1], 'does not hold numbers')
  end
  last_before, log_max_before, log_floor_before = last, log_max, log_floor
end

local function number()
  last = last + 1
  return last
end

-- Appending to a stream fails if it holds a greater id: that must be known before anything is written.
local function stream_length(name)
  local length = checked(name, try('XLEN', name))
  if length > 0 and name_at and #call('XRANGE', name, int(last_before + 1) .. '-0', '+', 'COUNT', 1) > 0 then
    corrupt(name, 'holds numbers that its namespace never gave')
  end
  return length
end

local function trim_log()
  stored = stored or stream_length(KEYS[4])
  local beyond = (stored - gone) + (#notes - note_at + 1) - log_max
  if beyond > 0 then
    local old = math.min(beyond, stored - gone)
    gone, beyond = gone + old, beyond - old
    if beyond > 0 then
      note_at = note_at + beyond
      log_floor = notes[note_at - 1][1]
    end
  end
end

local function note(n, name, version, at)
  notes[#notes + 1] = { n, version .. ' ' .. (at and int(at) or '-') .. ' ' .. sub(name, name_at) }
  trim_log()
end

local function touch(name)
  if not is_dirty[name] then
    is_dirty[name] = true
    dirty[#dirty + 1] = name
  end
end

local function put(name, kind, text, at, versioned)
  local version = '0'
  touch(name)
  if versioned then
    is_record[name] = true
    local n = number()
    version = int(n)
    cells[name] = { kind, version, at, text }
    if log_max > 0 then
      note(n, name, version, at)
    end
  else
    cells[name] = { kind, version, at, text }
  end
  return version
end

local function set(versioned)
  local name, kind, text, ttl, when = key(), arg(), arg(), arg(), arg()
  -- A plain overwrite of a cache key depends on nothing that was there.
  local found = (versioned or when ~= 'A' or ttl == 'k' or kind == 'o') and judge(name, when, versioned)
  if kind == 'o' then
    refuse('overflow', found and found[1] == 'n' and found[4] or '0')
  end
  local version = put(name, kind, text, expires(ttl, found), versioned)
  return versioned and version or ''
end

local function add(versioned)
  local name, by, min, max, ttl = key(), arg(), tonumber(arg()), tonumber(arg()), arg()
  local found = live(name)
  if found and found[1] ~= 'n' then
    refuse('type')
  end
  local current = found and found[4] or '0'
  local new = tonumber(current) + (tonumber(by) or 0)
  if by == 'o' or new > COUNTER_MAX or new < -COUNTER_MAX then
    refuse('overflow', current)
  end
  if new < min or new > max then
    refuse('bounds', current)
  end
  local text = int(new)
  put(name, 'n', text, expires(ttl, found), versioned)
  return text
end

local function delete(versioned)
  local name, when = key(), arg()
  local found = judge(name, when, versioned)
  touch(name)
  cells[name] = false
  if versioned then
    is_record[name] = true
    if found and log_max > 0 then
      note(number(), name, '-', false)
    end
  end
  return found and '1' or '0'
end

-- Lists: what they were, what they are, and what is appended; `is_new` if nothing of the old list stays.
local lists, dirty_lists = {}, {}

local function open_list(name)
  local list = lists[name]
  if not list then
    local length = checked(name, try('LLEN', name))
    local at = length > 0 and call('PEXPIRETIME', name) or -1
    list = { length = length, expires = at >= 0 and at + 1, values = {}, old_length = length, had_time = at >= 0 }
    lists[name] = list
  end
  if list.expires and now >= list.expires then
    list.length, list.expires, list.values, list.is_new = 0, false, {}, true
  end
  return list
end

local function touch_list(name, list)
  if not list.is_dirty then
    list.is_dirty = true
    dirty_lists[#dirty_lists + 1] = name
  end
end

local function judge_list(name, when)
  local list = open_list(name)
  must_hold(when == 'A' or (when == 'E') == (list.length > 0))
  return list
end

local function delete_list()
  local name, when = key(), arg()
  local list = judge_list(name, when)
  local was_there = list.length > 0
  list.length, list.expires, list.values, list.is_new = 0, false, {}, true
  touch_list(name, list)
  return was_there and '1' or '0'
end

local function push()
  local name, value, cap, ttl = key(), arg(), tonumber(arg()), arg()
  local list = open_list(name)
  if ttl ~= 'k' then
    list.expires = expires(ttl, false)
  end
  list.values[#list.values + 1] = value
  list.length = math.min(list.length + 1, cap)
  touch_list(name, list)
  return int(list.length)
end

-- A window's slots: {until, amount}, the next to leave first. The arithmetic is that of `window.rs`.
local SLOTS_MAX = 128

local function admit()
  local name, by, max, length, slice = key(), tonumber(arg()), tonumber(arg()), tonumber(arg()), tonumber(arg())
  local cell = cells[name]
  if cell == nil or (cell and not cell[4]) then
    cell = read_cell(name, true)
  end
  local slots, used = {}, 0
  for word in string.gmatch(cell and cell[4] or '', '%S+') do
    local leaves, amount = match(word, '^(%d+):(%d+)$')
    if not leaves then
      corrupt(name, 'does not read as a window')
    end
    leaves, amount = tonumber(leaves), tonumber(amount)
    if now < leaves then
      slots[#slots + 1] = { leaves, amount }
      used = used + amount
    end
  end
  if by == 0 then
    return int(used)
  end
  if by > max - used then
    local left, wait = used, ''
    for i = 1, #slots do
      left = left - slots[i][2]
      if by <= max - left then
        wait = int(slots[i][1] - now)
        break
      end
    end
    refuse('full', int(used), wait)
  end
  local leaves, place = now - now % slice + slice + length, 1
  while slots[place] and slots[place][1] < leaves do
    place = place + 1
  end
  if slots[place] and slots[place][1] == leaves then
    slots[place][2] = slots[place][2] + by
  else
    table.insert(slots, place, { leaves, by })
  end
  if #slots > SLOTS_MAX then
    slots[2][2] = slots[2][2] + slots[1][2]
    table.remove(slots, 1)
  end
  local words = {}
  for i = 1, #slots do
    words[i] = int(slots[i][1]) .. ':' .. int(slots[i][2])
  end
  put(name, 'b', table.concat(words, ' '), slots[#slots][1])
  return int(used + by)
end

-- Leases; nobody holds one with an empty holder. Fences are texts, so that any of them compares exactly.
local leases, dirty_leases = {}, {}

local function open_lease(name)
  local lease = leases[name]
  if not lease then
    local raw = checked(name, try('GET', name))
    lease = { fence = '0', expires = 0, holder = '' }
    if raw then
      local fence, at, holder = match(raw, '^l (%d+) (%d+)\n(.*)$')
      if not fence then
        corrupt(name, 'does not read as a lease')
      end
      lease = { fence = fence, expires = tonumber(at), holder = holder }
    end
    leases[name] = lease
  end
  return lease
end

local function fenced(name, fence)
  local lease = open_lease(name)
  if fence == '0' or lease.fence ~= fence then
    refuse('fenced', lease.fence)
  end
  return lease
end

local function grant(name, lease, holder, ttl)
  lease.expires, lease.holder = after(ttl), holder
  dirty_leases[#dirty_leases + 1] = name
  return lease.fence .. ' ' .. int(lease.expires)
end

local function acquire()
  local name, holder, ttl = key(), arg(), arg()
  local lease = open_lease(name)
  if lease.holder == '' or now >= lease.expires then
    lease.fence = int(tonumber(lease.fence) + 1)
  elseif lease.holder ~= holder then
    refuse('held', int(lease.expires), lease.holder)
  end
  return grant(name, lease, holder, ttl)
end

local function renew()
  local name, holder, fence, ttl = key(), arg(), arg(), arg()
  local lease = fenced(name, fence)
  if lease.holder ~= holder then
    refuse('fenced', lease.fence)
  end
  return grant(name, lease, holder, ttl)
end

local function release()
  local name, fence = key(), arg()
  fenced(name, fence).holder = ''
  dirty_leases[#dirty_leases + 1] = name
  return ''
end

-- Outboxes: how much is stored, up to where it is removed, and what is appended, from the first message that is left.
local outboxes, dirty_outboxes = {}, {}

local function open_outbox(name)
  local outbox = outboxes[name]
  if not outbox then
    outbox = { length = stream_length(name), messages = {}, first = 1 }
    outboxes[name] = outbox
    dirty_outboxes[#dirty_outboxes + 1] = name
  end
  return outbox
end

local function enqueue()
  local messages = open_outbox(key()).messages
  messages[#messages + 1] = { number(), arg(), arg(), arg() }
  return ''
end

local function acknowledge()
  local outbox, up_to = open_outbox(key()), tonumber(arg())
  outbox.up_to = math.max(outbox.up_to or 0, up_to)
  while outbox.first <= #outbox.messages and outbox.messages[outbox.first][1] <= up_to do
    outbox.first = outbox.first + 1
  end
  return ''
end

local function mark()
  local name, ttl = key(), arg()
  if live(name) then
    refuse('processed')
  end
  put(name, 'm', '', expires(ttl, false))
  return ''
end

local function keep_changes()
  local max = tonumber(arg())
  if max ~= log_max then
    if log_max == 0 then
      log_floor = last
    end
    log_max = max
    if max == 0 then
      stored, gone, is_forgotten, notes, note_at = 0, 0, true, {}, 1
    else
      trim_log()
    end
  end
  return ''
end

local function run()
  local results = { 'ok' }
  if name_at then
    read_numbers()
  end
  while arg_at < #ARGV do
    local code = arg()
    local result
    if code == 'R' then
      result = set(true)
    elseif code == 'S' then
      result = set(false)
    elseif code == 'C' then
      judge(key(), arg(), arg() == 'R')
      result = ''
    elseif code == 'X' then
      result = delete(true)
    elseif code == 'D' then
      result = delete(false)
    elseif code == 'A' then
      result = add(true)
    elseif code == 'a' then
      result = add(false)
    elseif code == 'F' then
      fenced(key(), arg())
      result = ''
    elseif code == 'E' then
      result = enqueue()
    elseif code == 'Q' then
      result = acknowledge()
    elseif code == 'M' then
      result = mark()
    elseif code == 'P' then
      result = push()
    elseif code == 'W' then
      result = admit()
    elseif code == 'L' then
      result = acquire()
    elseif code == 'N' then
      result = renew()
    elseif code == 'U' then
      result = release()
    elseif code == 'T' then
      judge_list(key(), arg())
      result = ''
    elseif code == 'Y' then
      result = delete_list()
    elseif code == 'K' then
      result = keep_changes()
    else
      error({ err = 'ERR unknown operation of a batch' })
    end
    results[#results + 1] = result
    op_at = op_at + 1
  end
  if last and last > COUNTER_MAX then
    corrupt(KEYS[1], 'has no numbers left')
  end
  return table.concat(results, '\n')
end

-- What the writing below needs to know, asked before anything is written: afterwards nothing may fail.
local floor_new, swept, has_ends

local function prepare()
  if gone > 0 and note_at == 1 then
    local old = call('XRANGE', KEYS[4], '-', '+', 'COUNT', gone)
    log_floor = tonumber(match(old[#old][1], '^%d+'))
  end
  if next(is_record) then
    checked(KEYS[2], try('ZCARD', KEYS[2]))
    has_ends = checked(KEYS[3], try('ZCARD', KEYS[3])) > 0
    swept = has_ends and call('ZRANGEBYSCORE', KEYS[3], '-inf', int(now), 'LIMIT', 0, SWEEP_MAX) or {}
  end
end

local wrote = false

local function write(...)
  local reply = call(...)
  wrote = true
  return reply
end

local function write_cell(name, cell)
  local head = cell[1] .. ' ' .. cell[2] .. ' '
  if cell[3] then
    -- Redis calls a key expired after its moment, the contract at its moment.
    write('SET', name, head .. int(cell[3]) .. '\n' .. cell[4], 'PXAT', int(cell[3] - 1))
  else
    write('SET', name, head .. '-\n' .. cell[4])
  end
end

local function write_cells()
  if swept and #swept > 0 then
    local names, prefix = {}, sub(KEYS[2], 1, -2) .. 'r:'
    for i = 1, #swept do
      names[i] = prefix .. swept[i]
    end
    write('UNLINK', unpack(names))
    write('ZREM', KEYS[2], unpack(swept))
    write('ZREM', KEYS[3], unpack(swept))
  end
  local listed, ended, unlisted, unended = {}, {}, {}, {}
  for i = 1, #dirty do
    local name = dirty[i]
    local cell, old = cells[name], was[name]
    if cell then
      write_cell(name, cell)
    elseif old ~= false then
      write('UNLINK', name)
    end
    if is_record[name] then
      local member = sub(name, name_at)
      if cell then
        if not old or (old[3] and now >= old[3]) then
          listed[#listed + 1] = 0
          listed[#listed + 1] = member
        end
        if cell[3] then
          ended[#ended + 1] = int(cell[3])
          ended[#ended + 1] = member
        elseif has_ends then
          unended[#unended + 1] = member
        end
      else
        unlisted[#unlisted + 1] = member
        if has_ends then
          unended[#unended + 1] = member
        end
      end
    end
  end
  if #unlisted > 0 then
    write('ZREM', KEYS[2], unpack(unlisted))
  end
  if #unended > 0 then
    write('ZREM', KEYS[3], unpack(unended))
  end
  if #listed > 0 then
    write('ZADD', KEYS[2], unpack(listed))
  end
  if #ended > 0 then
    write('ZADD', KEYS[3], unpack(ended))
  end
end

local function write_list(name, list)
  if list.is_new and list.old_length > 0 then
    write('UNLINK', name)
  end
  if list.length == 0 then
    return
  end
  write('RPUSH', name, unpack(list.values))
  local stored = (list.is_new and 0 or list.old_length) + #list.values
  if stored > list.length then
    write('LTRIM', name, -list.length, -1)
  end
  if list.expires then
    write('PEXPIREAT', name, int(list.expires - 1))
  elseif list.had_time and not list.is_new then
    write('PERSIST', name)
  end
end

local function write_outbox(name, outbox)
  local messages = outbox.messages
  if outbox.up_to and outbox.length > 0 then
    write('XTRIM', name, 'MINID', int(outbox.up_to + 1) .. '-0')
    if outbox.first > #messages and call('XLEN', name) == 0 then
      write('UNLINK', name)
    end
  end
  for i = outbox.first, #messages do
    local number, order, id, payload = unpack(messages[i])
    write('XADD', name, int(number) .. '-0', 'o', order, 'i', id, 'p', payload)
  end
end

local function write_changes()
  if is_forgotten then
    write('UNLINK', KEYS[4])
  elseif gone > 0 then
    write('XTRIM', KEYS[4], 'MAXLEN', stored - gone)
  end
  for i = note_at, #notes do
    write('XADD', KEYS[4], int(notes[i][1]) .. '-0', 'c', notes[i][2])
  end
end

local function write_all()
  -- First, because a server without memory refuses it: a batch that only removes is let through.
  if name_at and (last ~= last_before or log_max ~= log_max_before or log_floor ~= log_floor_before) then
    write('HSET', KEYS[1], 'last', int(last), 'keep', int(log_max), 'floor', int(log_floor))
  end
  write_cells()
  for i = 1, #dirty_leases do
    local lease = leases[dirty_leases[i]]
    write('SET', dirty_leases[i], 'l ' .. lease.fence .. ' ' .. int(lease.expires) .. '\n' .. lease.holder)
  end
  for i = 1, #dirty_lists do
    write_list(dirty_lists[i], lists[dirty_lists[i]])
  end
  for i = 1, #dirty_outboxes do
    write_outbox(dirty_outboxes[i], outboxes[dirty_outboxes[i]])
  end
  if name_at then
    write_changes()
  end
end

-- Ours begin with `!`, those of Redis with a code; anything else is a defect of this script.
local function answer(failed)
  local words = type(failed) == 'table' and failed.err or tostring(failed)
  if sub(words, 1, 1) == '!' then
    return sub(words, 2)
  end
  return { err = match(words, '^%u%u%u+ ') and words or 'ERR ' .. words }
end

local ok, result = pcall(run)
if not ok then
  return answer(result)
end
local prepared, why = pcall(prepare)
if not prepared then
  return answer(why)
end
local written, failed = pcall(write_all)
if written then
  return result
elseif not wrote then
  return answer(failed)
end
-- Cannot happen as far as is known; if it does, nobody may take it for nothing.
local words = type(failed) == 'table' and failed.err or tostring(failed)
return 'half\n0\n' .. words
