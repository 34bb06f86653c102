#!lua flags=no-writes
-- Keys and the time in one moment: a lease's row outlives its time, so that only a clock tells whether somebody holds it.
local time = redis.call('TIME')
local reply = { string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)) }
for i = 1, #KEYS do
  reply[i + 1] = redis.call('GET', KEYS[i])
end
return reply
