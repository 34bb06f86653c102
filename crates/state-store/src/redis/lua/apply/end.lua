-- The parts that this batch made, in the order in which they write.
s.parts, s.made = {}, {}

function s.part_of(code)
  local part = s.parts[code]
  if not part then
    if code == 'L' or code == 'N' or code == 'U' or code == 'F' then
      part = s.leases_part()
    elseif code == 'P' or code == 'T' or code == 'Y' then
      part = s.lists_part()
    elseif code == 'W' then
      part = s.windows_part()
    elseif code == 'E' or code == 'Q' or code == 'M' then
      part = s.queues_part()
    else
      error({ err = 'ERR unknown operation of a batch' })
    end
    s.made[#s.made + 1] = part
    for known in pairs(part) do
      s.parts[known] = part
    end
  end
  return part
end

-- What is written to the indexes: score and name, score and name, of those that are there; names of those that are not.
function s.prepare_indexes()
  local listed, ended, unlisted, unended, swept = {}, {}, {}, {}, {}
  for i = 1, #s.dirty do
    local name = s.dirty[i]
    if s.is_record[name] then
      local cell, old, member = s.cells[name], s.was[name], string.sub(name, s.name_at)
      if not cell then
        unlisted[#unlisted + 1] = member
      elseif not old or (old[3] and s.now() >= old[3]) then
        listed[#listed + 1] = '0'
        listed[#listed + 1] = member
      end
      if cell and cell[3] then
        ended[#ended + 1] = s.int(cell[3])
        ended[#ended + 1] = member
      else
        unended[#unended + 1] = member
      end
    end
  end
  s.has_ends = s.had_ends or #ended > 0
  if s.has_ends then
    local prefix = string.sub(KEYS[2], 1, -2) .. 'r:'
    local due = redis.pcall('ZRANGEBYSCORE', KEYS[3], '-inf', s.int(s.now()), 'LIMIT', 0, 100)
    s.checked(KEYS[3], due)
    for i = 1, #due do
      if not s.is_dirty[prefix .. due[i]] then
        swept[#swept + 1] = due[i]
      end
    end
  end
  if #listed == 0 and (#unlisted > 0 or #swept > 0) then
    s.checked(KEYS[2], redis.pcall('ZCARD', KEYS[2]))
  end
  s.listed, s.ended, s.unlisted, s.unended, s.swept = listed, ended, unlisted, unended, swept
end

-- The last number, how many changes are kept, up to which number none is known, and whether a record ever had a time to live (only
-- then need the ends be looked at).
function s.read_numbers()
  local meta = s.checked(KEYS[1], redis.pcall('HMGET', KEYS[1], 'last', 'keep', 'floor', 'ends'))
  s.last, s.log_max, s.log_floor = tonumber(meta[1] or 0), tonumber(meta[2] or 0), tonumber(meta[3] or 0)
  s.had_ends = meta[4]
  if not (s.last and s.log_max and s.log_floor) then
    s.corrupt(KEYS[1], 'does not hold numbers')
  end
  s.last_before, s.log_max_before, s.log_floor_before = s.last, s.log_max, s.log_floor
end

function s.run()
  if s.name_at then
    s.read_numbers()
  end
  local results, arg_count, is_plain = { 'ok' }, #ARGV, ARGV[2] == 'P'
  while s.arg_at < arg_count do
    s.arg_at = s.arg_at + 1
    local code, result = ARGV[s.arg_at], ''
    if is_plain then
      result = s.put(s.key(), string.sub(code, 2), s.arg(), false, string.sub(code, 1, 1) == 'R')
    elseif code == 'R' then
      result = s.set(true)
    elseif code == 'S' then
      result = s.set(false)
    elseif code == 'C' then
      s.judge(s.key(), s.arg(), s.arg() == 'R')
    elseif code == 'X' then
      result = s.delete(true)
    elseif code == 'D' then
      result = s.delete(false)
    elseif code == 'A' then
      result = s.add(true)
    elseif code == 'a' then
      result = s.add(false)
    elseif code == 'K' then
      result = s.changes().keep()
    else
      result = s.part_of(code)[code]()
    end
    results[#results + 1] = result
    s.op_at = s.op_at + 1
  end
  if s.last and s.last > s.COUNTER_MAX then
    s.corrupt(KEYS[1], 'has no numbers left')
  end
  if s.log then
    s.log.prepare()
  end
  if s.has_records then
    s.prepare_indexes()
  end
  return table.concat(results, '\n')
end

function s.write_numbers()
  local is_log_changed = s.log_max ~= s.log_max_before or s.log_floor ~= s.log_floor_before
  if s.last ~= s.last_before or is_log_changed then
    local fields = { 'last', s.int(s.last) }
    if is_log_changed then
      fields[3], fields[4], fields[5], fields[6] = 'keep', s.int(s.log_max), 'floor', s.int(s.log_floor)
    end
    if s.has_ends and not s.had_ends then
      fields[#fields + 1] = 'ends'
      fields[#fields + 1] = '1'
    end
    s.write('HSET', KEYS[1], unpack(fields))
  end
end

function s.write_cells()
  local set, gone = {}, {}
  for i = 1, #s.dirty do
    local name = s.dirty[i]
    local cell = s.cells[name]
    if not cell then
      gone[#gone + 1] = s.was[name] ~= false and name or nil
    elseif cell[3] then
      -- Redis calls a key expired after its moment, the contract at its moment.
      local head = cell[1] .. ' ' .. cell[2] .. ' ' .. s.int(cell[3]) .. '\n'
      s.write('SET', name, head .. cell[4], 'PXAT', s.int(cell[3] - 1))
    else
      set[#set + 1] = name
      set[#set + 1] = cell[1] .. ' ' .. cell[2] .. ' -\n' .. cell[4]
    end
  end
  if #set > 0 then
    s.write('MSET', unpack(set))
  end
  if #gone > 0 then
    s.write('UNLINK', unpack(gone))
  end
end

function s.write_indexes()
  if #s.swept > 0 then
    local names, prefix = {}, string.sub(KEYS[2], 1, -2) .. 'r:'
    for i = 1, #s.swept do
      names[i] = prefix .. s.swept[i]
    end
    s.write('UNLINK', unpack(names))
    s.write('ZREM', KEYS[2], unpack(s.swept))
    s.write('ZREM', KEYS[3], unpack(s.swept))
  end
  if #s.unlisted > 0 then
    s.write('ZREM', KEYS[2], unpack(s.unlisted))
  end
  if s.had_ends and #s.unended > 0 then
    s.write('ZREM', KEYS[3], unpack(s.unended))
  end
  if #s.ended > 0 then
    s.write('ZADD', KEYS[3], unpack(s.ended))
  end
end

function s.write_all()
  -- These are first, because a server without memory refuses them: a batch that only removes is let through. The very first also
  -- tells whether the index is one, at no cost.
  if s.has_records and #s.listed > 0 then
    s.write('ZADD', KEYS[2], unpack(s.listed))
  end
  if s.name_at then
    s.write_numbers()
  end
  s.write_cells()
  for i = 1, #s.made do
    if s.made[i].write then
      s.made[i].write()
    end
  end
  if s.has_records then
    s.write_indexes()
  end
  if s.log then
    s.log.write()
  end
end

-- Ours begin with `!`, those of Redis with a code; anything else is a defect of this script.
function s.answer(failed)
  local words = type(failed) == 'table' and failed.err or tostring(failed)
  if string.sub(words, 1, 1) == '!' then
    return string.sub(words, 2)
  end
  return { err = string.match(words, '^%u%u%u+ ') and words or 'ERR ' .. words }
end

local ok, result = pcall(s.run)
if not ok then
  return s.answer(result)
end
local written, failed = pcall(s.write_all)
if written then
  return result
elseif not s.wrote then
  return s.answer(failed)
end
-- Cannot happen as far as is known; if it does, nobody may take it for nothing.
return 'half\n0\n' .. (type(failed) == 'table' and failed.err or tostring(failed))
