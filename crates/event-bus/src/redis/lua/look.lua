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
while g.u > 0 and not (oldest and oldest <= at) and at < through do
  local page = call('XRANGE', LOG, at + 1, '+', 'COUNT', 128)
  for i = 1, #page do
    local seq, head = seq_of(page[i][1]), page[i][2][1]
    at = seq
    local semicolon, wanted = find(head, ';', 1, true) or 0, find(head, g.mine, 1, true)
    if wanted and wanted < semicolon and byte(head, semicolon + 1) == 110 then
      older(seq)
      break
    end
  end
  looked = looked + #page
  if looked >= SCAN_MAX then
    -- It is further on, among what others want: as if it stood here.
    older(at)
  end
  if #page < 128 then
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
