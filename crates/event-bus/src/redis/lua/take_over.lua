-- Makes this run of a consumer the one that has its name, and ends what its other runs hold. ARGV: group, consumer, incarnation.
local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
-- broker::NAMES_MAX
local NAMES_MAX = 1000
call('HSET', g.names, ARGV[2], ARGV[3])
if call('HLEN', g.names) > NAMES_MAX then
  local some = call('HSCAN', g.names, 0)[2]
  local other = some[1] ~= ARGV[2] and some[1] or some[3]
  if other then
    call('HDEL', g.names, other)
  end
end
local taken = 0
for _, r in ipairs(claims_of(g)) do
  if r.consumer == ARGV[2] and r.incarnation ~= ARGV[3] then
    taken = taken + #open_claim(r).seqs
    r.till = 0
    write_claim(g, r, true)
  end
end
local all, records, changed = call('HGETALL', g.slow), {}, {}
for i = 1, #all, 2 do
  local d = unpack_delivery(all[i + 1])
  if d.incarnation ~= '' and d.incarnation ~= ARGV[3] and d.consumer == ARGV[2] then
    d.till = 0
    records[#records + 1], records[#records + 2] = all[i], pack_delivery(d)
    changed[#changed + 1] = d.lane
  end
end
many('HSET', g.slow, records)
place(g, changed, -1)
local waiter = g.i ~= '' and unpack_waiter(g.i)
if waiter and waiter.consumer == ARGV[2] and waiter.incarnation ~= ARGV[3] then
  g.i = ''
  save()
end
return { 'ok', #changed + taken }
