-- Puts dead letters back to work: each becomes a copy at a new place, for this group alone. ARGV: group, backlog_max; then their places. Answers how
-- many, and their bodies' places.
-- Places of copies that are remembered when they are empty.
local COPIES_MAX = 10000

local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
local letters, there = {}, 0
for i = 3, #ARGV do
  letters[#letters + 1] = ARGV[i]
end
local packed, is_there = ask('HMGET', g.dead, letters), {}
for i = 1, #letters do
  if packed[i] then
    is_there[letters[i]], there = true, there + 1
  end
end
if g.s + there > tonumber(ARGV[2]) then
  return { 'full', g.s }
end
local moved = 0
for i = 1, #letters do
  local head, body
  if is_there[letters[i]] then
    is_there[letters[i]] = nil
    local _
    _, _, _, head, body = cmsgpack.unpack(packed[i])
  end
  local semicolon = head and find(head, ';', 1, true)
  if semicolon then
    local lane, seq = sub(head, semicolon + 1), meta.newest + 1
    meta.newest, meta.copy = seq, seq
    call('XADD', LOG, seq .. '-0', g.mine .. '=;' .. lane, body)
    call('ZADD', COPIES, seq, seq)
    call('HDEL', g.dead, letters[i])
    call('ZREM', g.deads, letters[i])
    if g.s == 0 then
      g.f = seq - 1
    end
    g.s, moved = g.s + 1, moved + 1
    if byte(lane, 1) == 112 then
      push(g, { seq, lane }, { lane }, 0)
    else
      if g.u == 0 then
        g.c, g.r = seq - 1, 0
      end
      g.u = g.u + 1
    end
  end
end
if moved > 0 then
  call('ZREMRANGEBYRANK', COPIES, 0, -COPIES_MAX - 1)
end
save()
return { 'ok', moved }
