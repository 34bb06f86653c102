-- The delayed events behind a place. ARGV: time and number of that place, how many. Answers for each: time, number, id, topic, lane.
local PAGE = 128
local limit, out, at, is_end = tonumber(ARGV[3]), {}, 0, false
while #out < limit and not is_end do
  local page = call('ZRANGEBYSCORE', DELAYED, ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', at, PAGE)
  for i = 1, #page, 2 do
    local number, till = tonumber(page[i]), tonumber(page[i + 1])
    if #out < limit and (till > tonumber(ARGV[1]) or number > tonumber(ARGV[2])) then
      local id, topic, lane = cmsgpack.unpack(call('HGET', DELAYS, page[i]))
      out[#out + 1] = { till, number, id, topic, lane }
    end
  end
  at, is_end = at + PAGE, #page < PAGE * 2
end
return { 'ok', out }
