-- Keeps an event back. ARGV: delayed_max, until when, now, whose time counts (`server` or `bus`), id, topic, lane, body.
load({})
local known = call('HGET', IDS, ARGV[5])
if known then
  return { 'known', place_of(ARGV[5], known) }
end
local waiting = call('ZCARD', DELAYED)
if waiting >= tonumber(ARGV[1]) then
  return { 'full', waiting }
end
local till = tonumber(ARGV[2])
if ARGV[4] == 'server' then
  till = till + server_time() - tonumber(ARGV[3])
end
meta.delays = meta.delays + 1
local number = string.format('%016.0f', meta.delays)
call('HSET', IDS, ARGV[5], 'd' .. number)
call('HSET', DELAYS, number, cmsgpack.pack(ARGV[5], ARGV[6], ARGV[7], ARGV[8]))
call('ZADD', DELAYED, int(till), number)
if meta.due == 0 or till < meta.due - 1 then
  meta.due = till + 1
end
save()
return { 'ok' }
