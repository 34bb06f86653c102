-- The beginning of a claim, before what only a longer one needs: who has nothing to do hears it at once. ARGV: see `claim.lua`.
local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
local owner = call('HGET', g.names, ARGV[2])
if owner and owner ~= ARGV[3] then
  return { 'displaced' }
end
local consumer, incarnation, lease, horizon = ARGV[2], ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
local limit, crashes_max, shards, open = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local now, shift = tonumber(ARGV[4]), 0
if ARGV[5] == 'server' then
  shift = server_time() - now
  now = now + shift
end

if g.s == 0 and (meta.due == 0 or meta.due - 1 > now) then
  return { 'ok', {}, {}, 0, 0, meta.due > 0 and int(meta.due - 1 - shift) or '', 0, 0 }
end
