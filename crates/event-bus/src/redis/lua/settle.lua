-- Ends claims. ARGV: group, incarnation, now, whose time counts (`server` or `bus`), dead_max, now as dead letters tell it; then as `end.lua` says.
local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
local now, shift = tonumber(ARGV[3]), 0
if ARGV[4] == 'server' then
  shift = server_time() - now
  now = now + shift
end
local claims = claims_of(g)
local lost, evicted = finish(g, claims, ARGV[2], now, shift, ARGV[5], ARGV[6], 7)
find_floor(g, claims)
save()
return { 'ok', lost, evicted }
