-- Clears up behind one of the groups that were removed, a part of it in each call. Answers whether something is left.
local PART = 100

local gid = call('SRANDMEMBER', GONE)
if not gid then
  return { 'ok', 0 }
end
local g = load({ gid })[1]
local function finish(seqs)
  table.sort(seqs)
  g.s = g.s - #seqs
  done(seqs)
end
for _, r in ipairs(claims_of(g)) do
  finish(open_claim(r).seqs)
  call('HDEL', g.claims, r.id)
end
local page = call('HSCAN', g.slow, 0, 'COUNT', PART)[2]
if #page > 0 then
  local seqs, keys, seen = {}, {}, {}
  for i = 1, #page, 2 do
    if not seen[page[i]] then
      seen[page[i]] = true
      seqs[#seqs + 1] = tonumber(page[i])
      keys[#keys + 1] = g.lanes .. unpack_delivery(page[i + 1]).lane
    end
  end
  many('HDEL', g.slow, seqs)
  for i = 1, #keys do
    call('UNLINK', keys[i])
  end
  finish(seqs)
  save()
  return { 'ok', 1 }
end
if g.u > 0 then
  local at = meta.odd == 0 and max(g.c, meta.trimmed) or g.c
  local from, seqs = at == g.c and g.r > 0 and g.r or at + 1, {}
  local entries = call('XRANGE', LOG, from, '+', 'COUNT', PART)
  for i = 1, #entries do
    local first, last = range_of(entries[i])
    if is_for(g, entries[i]) then
      for seq = max(first, at + 1), last do
        seqs[#seqs + 1] = seq
      end
    end
    g.c, g.r = max(g.c, last), 0
  end
  g.u = #entries < PART and 0 or g.u - #seqs
  finish(seqs)
  save()
  return { 'ok', 1 }
end
save()
call('UNLINK', g.heads_n, g.heads_p, g.free_n, g.free_p, g.waits, g.slow, g.claims, g.dead, g.deads, g.names)
call('HDEL', META, 'g' .. gid)
call('SREM', GONE, gid)
return { 'ok', 1 }
