-- Removes some keys of a namespace and counts those that were alive; of leases, only the holder. KEYS: meta, index, ends, changes,
-- then the keys to remove. ARGV: where kind and name begin in a key.
local call, try, match = redis.call, redis.pcall, string.match
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kind_at = tonumber(ARGV[1])

local meta = call('HMGET', KEYS[1], 'last', 'keep', 'floor')
-- A key of another type is removed as well, and is no key of the store.
local gone, records, leases, live = {}, {}, {}, 0
for i = 5, #KEYS do
  local key = KEYS[i]
  local kind = string.sub(key, kind_at, kind_at)
  if kind == 'l' then
    local raw = try('GET', key)
    local fence, at, holder = match(type(raw) == 'string' and raw or '', '^l (%d+) (%d+)\n(.*)$')
    if not fence then
      -- Absent or foreign: its fence cannot be known, so it stays for somebody to look at.
    elseif holder ~= '' then
      leases[#leases + 1] = { key, 'l ' .. fence .. ' ' .. at .. '\n' }
      if now < tonumber(at) then
        live = live + 1
      end
    end
  else
    gone[#gone + 1] = key
    if kind == 'r' then
      records[#records + 1] = string.sub(key, kind_at + 2)
    end
    if kind == 'v' then
      live = live + call('EXISTS', key)
    elseif kind == 'c' or kind == 'r' or kind == 'w' then
      local raw = try('GETRANGE', key, 0, 63)
      local at = type(raw) == 'string' and match(raw, '^[bn] %d+ ([%d-]+)\n')
      if at and (at == '-' or now < tonumber(at)) then
        live = live + 1
      end
    end
  end
end
call('ZCARD', KEYS[2])
call('ZCARD', KEYS[3])

-- First, because removing is what a server without memory lets through.
if #gone > 0 then
  call('UNLINK', unpack(gone))
end
-- With each chunk, so that whoever follows the changes is never told of a state that is older than what it missed.
if meta[2] and meta[2] ~= '0' then
  local last = string.format('%.0f', tonumber(meta[1]) + 1)
  call('UNLINK', KEYS[4])
  call('HSET', KEYS[1], 'last', last, 'floor', last)
end
for i = 1, #leases do
  call('SET', leases[i][1], leases[i][2])
end
if #records > 0 then
  call('ZREM', KEYS[2], unpack(records))
  call('ZREM', KEYS[3], unpack(records))
end
return live
