-- Ends claims. ARGV: group, incarnation, now, whose time counts (`server` or `bus`), dead_max, now as dead letters tell it; then for each:
-- seq, attempt, outcome (`ack`, `retry`, `dead`, `release`), from when on, error.
if not find_group(ARGV[1]) then
  return { 'nogroup' }
end
local incarnation = ARGV[2]
local now, shift = tonumber(ARGV[3]), 0
if ARGV[4] == 'server' then
  shift = server_time() - now
  now = now + shift
end
local seqs = {}
for at = 7, #ARGV, 5 do
  seqs[#seqs + 1] = ARGV[at]
end
local packed = ask('HMGET', touched, seqs)
local held = {}
for i = 1, #seqs do
  held[seqs[i]] = packed[i] and unpack_delivery(packed[i]) or nil
end

local lost, evicted = 0, 0
local off, changed, is_changed, records, untouched = {}, {}, {}, {}, {}
for i = 1, #seqs do
  local at, seq = 7 + (i - 1) * 5, seqs[i]
  local d = held[seq]
  if not d or d.incarnation ~= incarnation or d.attempts ~= tonumber(ARGV[at + 1]) then
    lost = lost + 1
  else
    local outcome = ARGV[at + 2]
    if not is_changed[d.lane] then
      is_changed[d.lane] = true
      changed[#changed + 1] = d.lane
    end
    if outcome == 'ack' or outcome == 'dead' then
      if outcome == 'dead' then
        evicted = evicted + bury(seq, d.attempts, ARGV[at + 4], ARGV[6], ARGV[5])
      end
      local of = off[d.lane] or {}
      of[#of + 1] = seq
      off[d.lane] = of
      held[seq] = nil
    else
      if outcome == 'retry' then
        d.next_at, d.error = tonumber(ARGV[at + 3]) + shift, ARGV[at + 4]
      else
        d.attempts = d.attempts - 1
      end
      d.incarnation, d.consumer, d.till = '', '', 0
      if d.attempts == 0 and d.next_at == 0 and d.error == '' then
        untouched[#untouched + 1] = seq
      else
        records[#records + 1], records[#records + 2] = seq, pack_delivery(d)
      end
    end
  end
end
many('HSET', touched, records)
many('HDEL', touched, untouched)
take_off(off)
place(changed, now)
return { 'ok', lost, evicted }
