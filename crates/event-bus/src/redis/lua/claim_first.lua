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
local now, shift, time = tonumber(ARGV[4]), 0, nil
if ARGV[5] == 'server' then
  time = server_time()
  shift = time - now
  now = time
end
local patience, lost_count = tonumber(ARGV[18]), tonumber(ARGV[21])
local ends_at = 22 + lost_count

-- From here on nothing is handed over to this consumer, but if it waits again.
local waited = g.i ~= '' and find(g.i, incarnation, 1, true) and g.i or ''
if waited ~= '' then
  g.i = ''
end

-- Remembers that this consumer waits; as which claim. What was remembered before stays for the half of its time: it need not be written again.
local function wait()
  if patience == 0 then
    return ''
  end
  time = time or server_time()
  local till = ARGV[5] == 'server' and 0 or now + lease
  if waited ~= '' then
    local w = unpack_waiter(waited)
    local left = w.expires - time
    if left > patience / 2 and left <= patience and w.token == ARGV[19] and w.hears == ARGV[20] and w.till == till and w.lease == lease then
      g.i = waited
      return w.nonce
    end
  end
  g.i = cmsgpack.pack(time + patience, patience, ARGV[17], ARGV[19], ARGV[20], lease, till, limit, consumer, incarnation)
  return ARGV[17]
end

local function nothing(lost, buried)
  local waits = wait()
  save()
  return { 'ok', {}, {}, 0, 0, meta.due > 0 and int(meta.due - 1 - shift) or '', 0, 0, waits, lost, buried, '' }
end
if g.s == 0 and #ARGV == ends_at and ARGV[ends_at] == '' and (meta.due == 0 or meta.due - 1 > now) then
  return nothing(0, 0)
end
