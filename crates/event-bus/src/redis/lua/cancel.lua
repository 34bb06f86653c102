-- Takes a delayed event back. ARGV: id. Answers whether it was delayed.
local known = call('HGET', IDS, ARGV[1])
local number = known and match(known, '^d(%d+)$')
if not number then
  return { 'ok', 0 }
end
call('HDEL', IDS, ARGV[1])
call('HDEL', DELAYS, number)
call('ZREM', DELAYED, number)
return { 'ok', 1 }
