-- A window's slots: {until, amount}, the next to leave first. The arithmetic is that of `window.rs`.
function s.windows_part()
  local cells, read_cell, corrupt, now, int, refuse, key, arg, put = s.cells, s.read_cell, s.corrupt, s.now, s.int, s.refuse, s.key, s.arg, s.put
  local SLOTS_MAX = 128
  local part = {}

  local function read_slots(name)
    local cell = cells[name]
    if cell == nil or (cell and not cell[4]) then
      cell = read_cell(name, true)
    end
    local slots, used = {}, 0
    for word in string.gmatch(cell and cell[4] or '', '%S+') do
      local leaves, amount = string.match(word, '^(%d+):(%d+)$')
      if not leaves then
        corrupt(name, 'does not read as a window')
      end
      leaves, amount = tonumber(leaves), tonumber(amount)
      if now() < leaves then
        slots[#slots + 1] = { leaves, amount }
        used = used + amount
      end
    end
    return slots, used
  end

  local function refuse_full(slots, used, by, max)
    local left, wait = used, ''
    for i = 1, #slots do
      left = left - slots[i][2]
      if by <= max - left then
        wait = int(slots[i][1] - now())
        break
      end
    end
    refuse('full', int(used), wait)
  end

  local function count(slots, by, leaves)
    local place = 1
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
  end

  function part.W()
    local name, by, max = key(), tonumber(arg()), tonumber(arg())
    local length, slice = tonumber(arg()), tonumber(arg())
    local slots, used = read_slots(name)
    if by == 0 then
      return int(used)
    end
    if by > max - used then
      refuse_full(slots, used, by, max)
    end
    count(slots, by, now() - now() % slice + slice + length)
    local words = {}
    for i = 1, #slots do
      words[i] = int(slots[i][1]) .. ':' .. int(slots[i][2])
    end
    put(name, 'b', table.concat(words, ' '), slots[#slots][1])
    return int(used + by)
  end

  return part
end

