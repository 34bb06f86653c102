-- The kept events behind a place. ARGV: place, how many. Answers the newest place that was given, and place, head and body of each.
local BYTES_MAX = 4194304

load({})
local after, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local from, answers, bytes = (meta.odd == 0 and max(after, meta.trimmed) or after) + 1, {}, 0
while #answers < limit do
  local size = limit - #answers
  local page = call('XRANGE', LOG, int(from), '+', 'COUNT', size)
  for i = 1, #page do
    local seq, head, body = seq_of(page[i][1]), page[i][2][1], page[i][2][2] or ''
    from = seq + 1
    local copy, semicolon = find(head, '=', 1, true), find(head, ';', 1, true) or 0
    if not (copy and copy < semicolon) then
      answers[#answers + 1] = { seq, head, body }
      bytes = bytes + #body
      if bytes > BYTES_MAX then
        return { 'ok', meta.newest, answers, 1 }
      end
    end
  end
  if #page < size then
    break
  end
end
return { 'ok', meta.newest, answers, 0 }
