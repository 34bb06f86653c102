-- A cache key with a time to live, whatever was there. KEYS: the key. ARGV: kind, text, time to live in milliseconds.
local time = redis.call('TIME')
-- 13 digits: up to 14 a number becomes its text by itself.
local at = math.min(time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], 9223372036854)
redis.call('SET', KEYS[1], ARGV[1] .. ' 0 ' .. at .. '\n' .. ARGV[2], 'PXAT', at - 1)
