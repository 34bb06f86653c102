-- Lists: what they were, what they are, and what is appended; `is_new` if nothing of the old list stays.
function s.lists_part()
  local checked, now, must_hold, key, arg, expires, int, write = s.checked, s.now, s.must_hold, s.key, s.arg, s.expires, s.int, s.write
  local lists, dirty_lists = {}, {}

  local function open(name)
    local list = lists[name]
    if not list then
      local length = checked(name, redis.pcall('LLEN', name))
      local at = length > 0 and redis.call('PEXPIRETIME', name) or -1
      list = { length = length, expires = at >= 0 and at + 1, values = {}, old_length = length, had_time = at >= 0 }
      lists[name] = list
    end
    if list.expires and now() >= list.expires then
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
    local list = open(name)
    must_hold(when == 'A' or (when == 'E') == (list.length > 0))
    return list
  end

  local part = {}

  function part.T()
    judge_list(key(), arg())
    return ''
  end

  function part.Y()
    local name, when = key(), arg()
    local list = judge_list(name, when)
    local was_there = list.length > 0
    list.length, list.expires, list.values, list.is_new = 0, false, {}, true
    touch_list(name, list)
    return was_there and '1' or '0'
  end

  function part.P()
    local name, value, cap, ttl = key(), arg(), tonumber(arg()), arg()
    local list = open(name)
    if ttl ~= 'k' then
      list.expires = expires(ttl, false)
    end
    list.values[#list.values + 1] = value
    list.length = math.min(list.length + 1, cap)
    touch_list(name, list)
    return int(list.length)
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

  function part.write()
    for i = 1, #dirty_lists do
      write_list(dirty_lists[i], lists[dirty_lists[i]])
    end
  end

  return part
end

