-- Ends what a consumer's earlier runs hold. ARGV: group, consumer, incarnation.
if not find_group(ARGV[1]) then
  return { 'nogroup' }
end
local all, records, changed = call('HGETALL', touched), {}, {}
for i = 1, #all, 2 do
  local d = unpack_delivery(all[i + 1])
  if d.incarnation ~= '' and d.incarnation ~= ARGV[3] and d.consumer == ARGV[2] then
    d.till = 0
    records[#records + 1], records[#records + 2] = all[i], pack_delivery(d)
    changed[#changed + 1] = d.lane
  end
end
many('HSET', touched, records)
place(changed, -1)
return { 'ok', #changed }
