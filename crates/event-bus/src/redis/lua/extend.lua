-- Prolongs claims. ARGV: group, incarnation, until when (empty: by their lease, as the server tells the time); then seq and attempt of each.
local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
local now = ARGV[3] == '' and server_time()
local seqs, is_meant = {}, {}
for at = 4, #ARGV, 2 do
  seqs[#seqs + 1] = ARGV[at]
  if ARGV[at + 1] == '1' then
    is_meant[tonumber(ARGV[at])] = true
  end
end
for _, r in ipairs(claims_of(g)) do
  if r.incarnation == ARGV[2] then
    local meant, of = 0, {}
    for i, seq in ipairs(open_claim(r).seqs) do
      if is_meant[seq] then
        meant, of[r.lanes[i]] = meant + 1, true
      end
    end
    if meant == #r.seqs then
      r.till = now and now + r.lease or tonumber(ARGV[3])
      write_claim(g, r, true)
    elseif meant > 0 then
      to_lanes(g, r, of, false, -1)
    end
  end
end
local packed, records, changed = ask('HMGET', g.slow, seqs), {}, {}
for i = 1, #seqs do
  local d = packed[i] and unpack_delivery(packed[i])
  if d and d.incarnation == ARGV[2] and d.attempts == tonumber(ARGV[3 + i * 2]) then
    d.till = now and now + d.lease or tonumber(ARGV[3])
    records[#records + 1], records[#records + 2] = seqs[i], pack_delivery(d)
    changed[#changed + 1] = d.lane
  end
end
many('HSET', g.slow, records)
-- A lane that waits for a moment that has come is set free by the next claim, so the time need not be known here.
place(g, changed, -1)
save()
return { 'ok' }
