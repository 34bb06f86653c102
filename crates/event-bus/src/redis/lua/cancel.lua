-- Takes a delayed event back. ARGV: id. Answers whether it was delayed.
local known = call('HGET', IDS, ARGV[1])
local number = known and match(known, '^d(%d+)$')
if not number then
  return { 'ok', 0 }
end
load({})
local till = tonumber(call('ZSCORE', DELAYED, number) or 0)
call('HDEL', IDS, ARGV[1])
call('HDEL', DELAYS, number)
call('ZREM', DELAYED, number)
if meta.due > 0 and till + 1 <= meta.due then
  -- What the claims look out for may be gone with it: the next one finds out anew.
  meta.due = 1
  save()
end
return { 'ok', 1 }
