-- A cache key with a time to live, whatever was there. KEYS: the key. ARGV: kind, text, time to live in milliseconds.
local time = redis.call('TIME')
local at = math.min(time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], 9223372036854)
local moment = string.format('%.0f', at)
redis.call('SET', KEYS[1], ARGV[1] .. ' 0 ' .. moment .. '\n' .. ARGV[2], 'PXAT', string.format('%.0f', at - 1))
