-- How far a group is. ARGV: name, up to which place is asked (empty: the newest). Answers the newest place, the place of the oldest event that is not
-- done with (0: there is none up to there), how many there are, how many dead letters, and the beginning of the oldest one's body.
local SCAN_MAX = 10000

local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
local oldest = false
local function older(seq)
  if seq and (not oldest or seq < oldest) then
    oldest = seq
  end
end
for _, heads in ipairs({ g.heads_n, g.heads_p }) do
  older(tonumber(call('ZRANGE', heads, 0, 0, 'WITHSCORES')[2]))
end
for _, r in ipairs(claims_of(g)) do
  older(r.low)
end
local through, at, looked = tonumber(ARGV[2]) or meta.newest, meta.odd == 0 and max(g.c, meta.trimmed) or g.c, 0
local from = at == g.c and g.r > 0 and g.r or at + 1
while g.u > 0 and not (oldest and oldest <= at) and at < through do
  local page = call('XRANGE', LOG, from, '+', 'COUNT', 16)
  for i = 1, #page do
    local first, last = range_of(page[i])
    if last > at then
      if is_for(g, page[i]) then
        older(max(first, at + 1))
        at = last
        break
      end
      at = last
    end
    looked = looked + 1
  end
  from = at + 1
  if looked >= SCAN_MAX then
    -- It is further on, among what others want: as if it stood here.
    older(at)
  end
  if #page < 16 then
    break
  end
end
if not oldest and g.u > 0 and at >= meta.newest then
  -- It was there, and somebody else removed it.
  older(g.c + 1)
end
local body = ''
if oldest then
  local _, stored = entry_of(oldest)
  body = stored and sub(stored, 1, 32) or ''
end
return { 'ok', meta.newest, oldest or 0, g.s, call('ZCARD', g.deads), body }
