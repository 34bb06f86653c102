-- The kept events behind a place. ARGV: place, how many. Answers the newest place that was given, and place, head and body of each.
local BYTES_MAX = 4194304

load({})
local after, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local answers, bytes, from, is_end = {}, 0, max(after, meta.odd == 0 and meta.trimmed or 0) + 1, false
local at = before(from)
while #answers < limit and not is_end do
  local size = max(2, math.ceil((limit - #answers) / (meta.wide + 1)))
  local page = call('XRANGE', LOG, at, '+', 'COUNT', size)
  is_end = #page < size
  for i = 1, #page do
    local first, last = range_of(page[i])
    at = int(first + 1)
    if last >= from then
      local numbers, lanes, bodies = open_row(page[i], first, last)
      for seq = max(from, first), last do
        local is_kept = seq > meta.trimmed or call('ZSCORE', HELD, seq) or call('ZSCORE', FREED, seq)
        if #answers < limit and is_kept and not (numbers and find(numbers, '=', 1, true)) then
          local body = numbers and bodies[seq - first + 1] or ''
          answers[#answers + 1] = { seq, numbers and numbers .. lanes[seq - first + 1] or '', body }
          bytes = bytes + #body
          if bytes > BYTES_MAX then
            return { 'ok', meta.newest, answers, 1 }
          end
        end
      end
    end
  end
end
return { 'ok', meta.newest, answers, 0 }
