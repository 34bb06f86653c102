-- Kept changes: `stored` in the stream, of which the first `gone` are trimmed, then `notes` from `first` on.
function s.changes_part()
  local stream_length, int, arg, write = s.stream_length, s.int, s.arg, s.write
  local name = KEYS[4]
  local stored, gone, is_forgotten, notes, first = nil, 0, false, {}, 1

  local function trim()
    stored = stored or stream_length(name)
    local beyond = (stored - gone) + (#notes - first + 1) - s.log_max
    if beyond > 0 then
      local old = math.min(beyond, stored - gone)
      gone, beyond = gone + old, beyond - old
      if beyond > 0 then
        first = first + beyond
        s.log_floor = notes[first - 1][1]
      end
    end
  end

  local part = {}

  function part.note(n, record, version, at)
    notes[#notes + 1] = { n, version .. ' ' .. (at and int(at) or '-') .. ' ' .. string.sub(record, s.name_at) }
    trim()
  end

  function part.keep()
    local max = tonumber(arg())
    if max ~= s.log_max then
      if s.log_max == 0 then
        s.log_floor = s.last
      end
      s.log_max = max
      if max == 0 then
        stored, gone, is_forgotten, notes, first = 0, 0, true, {}, 1
      else
        trim()
      end
    end
    return ''
  end

  function part.prepare()
    if gone > 0 and first == 1 then
      local old = redis.call('XRANGE', name, '-', '+', 'COUNT', gone)
      s.log_floor = tonumber(string.match(old[#old][1], '^%d+'))
    end
  end

  function part.write()
    if is_forgotten then
      write('UNLINK', name)
    elseif gone > 0 then
      write('XTRIM', name, 'MAXLEN', stored - gone)
    end
    for i = first, #notes do
      write('XADD', name, int(notes[i][1]) .. '-0', 'c', notes[i][2])
    end
  end

  return part
end

function s.changes()
  s.log = s.log or s.changes_part()
  return s.log
end

