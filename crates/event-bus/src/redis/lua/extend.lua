-- Prolongs claims. ARGV: group, incarnation, until when (empty: by their lease, as the server tells the time); then seq and attempt of each.
if not find_group(ARGV[1]) then
  return { 'nogroup' }
end
local now = ARGV[3] == '' and server_time()
local seqs = {}
for at = 4, #ARGV, 2 do
  seqs[#seqs + 1] = ARGV[at]
end
local packed, records, changed = ask('HMGET', touched, seqs), {}, {}
for i = 1, #seqs do
  local d = packed[i] and unpack_delivery(packed[i])
  if d and d.incarnation == ARGV[2] and d.attempts == tonumber(ARGV[3 + i * 2]) then
    d.till = now and now + d.lease or tonumber(ARGV[3])
    records[#records + 1], records[#records + 2] = seqs[i], pack_delivery(d)
    changed[#changed + 1] = d.lane
  end
end
many('HSET', touched, records)
-- A lane that waits for a moment that has come is set free by the next claim, so the time need not be known here.
place(changed, -1)
return { 'ok' }
