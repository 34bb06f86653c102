-- One batch. Every operation runs against what was read and what operations before it did; only when none refuses is anything
-- written, because Redis does not roll back. A refusal is one text: code, place of the operation, fields, a line each.
--
-- KEYS: if the batch needs numbers: meta, index, ends, changes; then one key an operation (but for `K`).
-- ARGV: where a record's name begins in its key (empty: no numbers); whether all operations are sets for ever without a condition
-- (`P`); then each operation's code and arguments, or code and kind as one word and the text.
--
-- Most batches only overwrite. Where no changes are kept and no record ever had a time to live, that takes neither functions nor a
-- clock, and what is below says the same for all the rest. The index is written first: if it is none, nothing is written.
if ARGV[2] == 'P' then
  local KEYS, ARGV, sub = KEYS, ARGV, string.sub
  local name_at, first, last, keeps, has_ends = tonumber(ARGV[1]), 0, 0, false, false
  if name_at then
    first = 4
    local meta = redis.call('HMGET', KEYS[1], 'last', 'keep', 'ends')
    last, keeps, has_ends = tonumber(meta[1] or 0), meta[2] and meta[2] ~= '0', meta[3]
  end
  -- Up to 14 digits a number becomes its text by itself.
  if last and last < 99999999990000 and not keeps and not has_ends then
    local set, listed, results, listed_at = {}, {}, { 'ok' }, 0
    for i = 1, #KEYS - first do
      local name, code = KEYS[first + i], ARGV[2 * i + 1]
      set[2 * i - 1] = name
      if code == 'Rb' or code == 'Rn' then
        last = last + 1
        listed[listed_at + 1], listed[listed_at + 2] = '0', sub(name, name_at)
        listed_at = listed_at + 2
        results[i + 1] = last
        set[2 * i] = (code == 'Rb' and 'b ' or 'n ') .. last .. ' -\n' .. ARGV[2 * i + 2]
      else
        results[i + 1] = ''
        set[2 * i] = (code == 'Sb' and 'b 0 -\n' or 'n 0 -\n') .. ARGV[2 * i + 2]
      end
    end
    if name_at then
      redis.call('ZADD', KEYS[2], unpack(listed))
      redis.call('HSET', KEYS[1], 'last', last)
    end
    redis.call('MSET', unpack(set))
    return table.concat(results, '\n')
  end
end

-- Every call makes its functions anew, which costs more the more of the variables around them they use. So everything stands in one
-- table, and what few batches need (changes, lists, windows, leases, outboxes) is made when a batch needs it.
local s = {
  name_at = tonumber(ARGV[1]),
  -- The places of the newest key and argument that were taken, and of the operation.
  key_at = ARGV[1] ~= '' and 4 or 0, arg_at = 2, op_at = 0,
  -- Cells: {kind, version, expires or false, text}; false where there is none. `was` is what Redis had, where that was asked for.
  cells = {}, was = {}, dirty = {}, is_dirty = {}, is_record = {},
  -- A counter's largest value, and the last millisecond that a timestamp can name.
  COUNTER_MAX = 9007199254740991, LAST_MS = 9223372036854,
  -- Set by the first write: afterwards, nothing may fail.
  wrote = false,
}

-- Redis judges a key's expiry by the moment when the script began; this clock is never behind that, so what is alive here was
-- alive there, and each cell's own moment decides.
function s.now()
  if not s.now_ms then
    local time = redis.call('TIME')
    s.now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return s.now_ms
end

function s.int(n)
  return string.format('%.0f', n)
end

function s.arg()
  s.arg_at = s.arg_at + 1
  return ARGV[s.arg_at]
end

function s.key()
  s.key_at = s.key_at + 1
  return KEYS[s.key_at]
end

-- Caught at the end. In a table with `err`, because a server of version 7.0 dies of any other that is not caught.
function s.refuse(code, ...)
  error({ err = '!' .. table.concat({ code, s.int(s.op_at), ... }, '\n') })
end

function s.corrupt(name, why)
  s.refuse('corrupt', name .. ' ' .. why)
end

-- The reply of a reading command; a key of another type is not ours.
function s.checked(name, reply)
  if type(reply) == 'table' and reply.err then
    if string.match(reply.err, '^WRONGTYPE') then
      s.corrupt(name, 'holds another type of key')
    end
    error(reply)
  end
  return reply
end

function s.read_cell(name, whole)
  local raw = s.checked(name, whole and redis.pcall('GET', name) or redis.pcall('GETRANGE', name, 0, 63))
  local cell = false
  if raw and raw ~= '' then
    local kind, version, expires, from = string.match(raw, '^([bnm]) (%d+) ([%d-]+)\n()')
    if kind then
      local has_text = whole or kind == 'n'
      cell = { kind, version, expires ~= '-' and tonumber(expires), has_text and string.sub(raw, from) }
    end
    if not cell or cell[3] == nil or (kind == 'n' and not string.match(cell[4], '^%-?%d+$')) then
      s.corrupt(name, 'does not begin as values of this library do')
    end
  end
  s.cells[name], s.was[name] = cell, cell
  return cell
end

function s.live(name)
  local cell = s.cells[name]
  if cell == nil then
    cell = s.read_cell(name)
  end
  return cell and (not cell[3] or s.now() < cell[3]) and cell
end

function s.must_hold(holds, found)
  if not holds then
    s.refuse('mismatch', found or '')
  end
end

function s.judge(name, when, is_versioned)
  local cell = s.live(name)
  if when == 'A' then
    return cell
  elseif when == 'N' then
    s.must_hold(not cell, is_versioned and cell and cell[2])
  elseif when == 'E' then
    s.must_hold(cell)
  else
    s.must_hold(cell and cell[2] == when, cell and cell[2])
  end
  return cell
end

function s.after(ttl)
  local at = s.now() + tonumber(ttl)
  return at < s.LAST_MS and at or s.LAST_MS
end

function s.expires(ttl, found)
  if ttl == '-' then
    return false
  elseif ttl == 'k' then
    return found and found[3] or false
  end
  return s.after(ttl)
end

function s.number()
  s.last = s.last + 1
  return s.last
end

function s.put(name, kind, text, at, versioned)
  if not s.is_dirty[name] then
    s.is_dirty[name] = true
    s.dirty[#s.dirty + 1] = name
  end
  if not versioned then
    s.cells[name] = { kind, '0', at, text }
    return ''
  end
  s.is_record[name], s.has_records = true, true
  local n = s.last + 1
  local version = string.format('%.0f', n)
  s.last = n
  s.cells[name] = { kind, version, at, text }
  if s.log_max > 0 then
    s.changes().note(n, name, version, at)
  end
  return version
end

function s.set(versioned)
  local at, name = s.arg_at, s.key()
  local kind, text, ttl, when = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  s.arg_at = at + 4
  -- An overwrite that depends on nothing reads nothing.
  local found = (when ~= 'A' or ttl == 'k' or kind == 'o') and s.judge(name, when, versioned)
  if kind == 'o' then
    s.refuse('overflow', found and found[1] == 'n' and found[4] or '0')
  end
  return s.put(name, kind, text, ttl ~= '-' and s.expires(ttl, found), versioned)
end

function s.add(versioned)
  local name, by, min, max, ttl = s.key(), s.arg(), tonumber(s.arg()), tonumber(s.arg()), s.arg()
  local found = s.live(name)
  if found and found[1] ~= 'n' then
    s.refuse('type')
  end
  local current = found and found[4] or '0'
  local new = tonumber(current) + (tonumber(by) or 0)
  if by == 'o' or new > s.COUNTER_MAX or new < -s.COUNTER_MAX then
    s.refuse('overflow', current)
  end
  if new < min or new > max then
    s.refuse('bounds', current)
  end
  local text = s.int(new)
  s.put(name, 'n', text, s.expires(ttl, found), versioned)
  return text
end

function s.delete(versioned)
  local name, when = s.key(), s.arg()
  local found = s.judge(name, when, versioned)
  if not s.is_dirty[name] then
    s.is_dirty[name] = true
    s.dirty[#s.dirty + 1] = name
  end
  s.cells[name] = false
  if versioned then
    s.is_record[name], s.has_records = true, true
    if found and s.log_max > 0 then
      s.changes().note(s.number(), name, '-', false)
    end
  end
  return found and '1' or '0'
end

function s.write(...)
  local reply = redis.call(...)
  s.wrote = true
  return reply
end

-- Appending to a stream fails if it holds a greater id: that must be known before anything is written.
function s.stream_length(name)
  local length = s.checked(name, redis.pcall('XLEN', name))
  if length > 0 and s.name_at then
    local next_id = s.int(s.last_before + 1) .. '-0'
    if #redis.call('XRANGE', name, next_id, '+', 'COUNT', 1) > 0 then
      s.corrupt(name, 'holds numbers that its namespace never gave')
    end
  end
  return length
end

