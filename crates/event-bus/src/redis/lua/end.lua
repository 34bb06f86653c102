-- Ends claims of an incarnation, `claims` being all straight off the log. ARGV from `from` on: places of first attempts that are acknowledged
-- (`FROM-TO,…`, ascending); then for each other: seq, attempt, outcome (`ack`, `retry`, `aside`, `dead`, `release`), from when on, error. How many claims
-- were not there any more, and how many dead letters made room.
local function finish(g, claims, incarnation, now, shift, dead_max, at_text, from)
  local firsts, lasts, wanted = {}, {}, 0
  for first, last in string.gmatch(ARGV[from], '(%d+)-(%d+)') do
    first, last = tonumber(first), tonumber(last)
    firsts[#firsts + 1], lasts[#lasts + 1] = first, last
    wanted = wanted + last - first + 1
  end

  -- Those that were claimed straight off the log are found in the claims; of each range what is there is taken off.
  local acked, count = {}, 0
  if wanted > 0 then
    for _, r in ipairs(claims) do
      if r.incarnation == incarnation and r.low <= lasts[#lasts] then
        local left, at, was = {}, 1, count
        for i = 1, #r.parts, 4 do
          local row, first, last, lanes = r.parts[i], r.parts[i + 1], r.parts[i + 2], r.parts[i + 3]
          while first <= last do
            while at <= #lasts and lasts[at] < first do
              at = at + 1
            end
            local till = last
            if at <= #lasts and firsts[at] <= first then
              till = min(last, lasts[at])
              acked[#acked + 1], acked[#acked + 2], count = first, till, count + till - first + 1
            else
              if at <= #lasts then
                till = min(last, firsts[at] - 1)
              end
              left[#left + 1], left[#left + 2], left[#left + 3], left[#left + 4] = row, first, till, lanes
            end
            first = till + 1
          end
        end
        if count > was then
          r.parts = left
          write_claim(g, r)
        end
      end
    end
  end

  -- The others, one by one.
  local others = {}
  if count < wanted then
    local is_acked = {}
    for i = 1, #acked, 2 do
      for seq = acked[i], acked[i + 1] do
        is_acked[seq] = true
      end
    end
    for i = 1, #firsts do
      for seq = firsts[i], lasts[i] do
        if not is_acked[seq] then
          others[#others + 1] = { seq = seq, attempt = 1, outcome = 'ack' }
        end
      end
    end
  end
  for at = from + 1, #ARGV, 5 do
    others[#others + 1] = {
      seq = tonumber(ARGV[at]), attempt = tonumber(ARGV[at + 1]), outcome = ARGV[at + 2], at = tonumber(ARGV[at + 3]), error = ARGV[at + 4],
    }
  end

  local lost, evicted = 0, 0
  if #others > 0 then
    local of = {}
    for _, r in ipairs(claims) do
      if r.incarnation == incarnation and not is_empty(r) then
        open_claim(r)
        for i = 1, #r.seqs do
          of[r.seqs[i]] = { r, r.lanes[i] }
        end
      end
    end
    -- What is not simply done with needs its lane.
    local seqs = {}
    for i = 1, #others do
      local e = others[i]
      seqs[i] = e.seq
      local lent = e.attempt == 1 and of[e.seq]
      if lent then
        local lanes = {}
        for k = 1, #lent[1].seqs do
          if lent[1].lanes[k] == lent[2] then
            of[lent[1].seqs[k]] = nil
          end
        end
        lanes[lent[2]] = true
        to_lanes(g, lent[1], lanes, false, now)
      end
    end
    local packed, held = ask('HMGET', g.slow, seqs), {}
    for i = 1, #seqs do
      held[seqs[i]] = packed[i] and unpack_delivery(packed[i]) or nil
    end
    local off, changed, is_changed = {}, {}, {}
    local function change(lane)
      if not is_changed[lane] then
        is_changed[lane], changed[#changed + 1] = true, lane
      end
    end
    for i = 1, #others do
      local e, d = others[i], held[others[i].seq]
      if not d or d.incarnation ~= incarnation or d.attempts ~= e.attempt then
        lost = lost + 1
      else
        change(d.lane)
        if e.outcome == 'ack' or e.outcome == 'dead' then
          if e.outcome == 'dead' then
            evicted = evicted + bury(g, e.seq, d.attempts, e.error, at_text, dead_max)
          end
          local list = off[d.lane] or {}
          list[#list + 1] = e.seq
          off[d.lane] = list
          held[e.seq] = nil
        else
          if e.outcome == 'release' then
            d.attempts = d.attempts - 1
          else
            d.next_at, d.error = e.at + shift, e.error
          end
          d.incarnation, d.consumer, d.till = '', '', 0
          local kind = byte(d.lane, 1)
          if e.outcome == 'aside' and (kind == 110 or kind == 112) then
            -- A lane of its own: later ones of its key do not wait for it.
            call('LREM', g.lanes .. d.lane, 1, e.seq)
            d.lane = (kind == 110 and 'a' or 'b') .. sub(d.lane, 2, 9) .. int(e.seq)
            call('RPUSH', g.lanes .. d.lane, e.seq)
            change(d.lane)
          end
          call('HSET', g.slow, e.seq, pack_delivery(d))
        end
      end
    end
    take_off(g, off)
    place(g, changed, now)
  end
  if count > 0 then
    g.s = g.s - count
    if meta.odd == 0 and meta.copy < firsts[1] and call('EXISTS', LIVE) == 0 then
      meta.history = meta.history + count
    else
      local seqs = {}
      for i = 1, #acked, 2 do
        for seq = acked[i], acked[i + 1] do
          seqs[#seqs + 1] = seq
        end
      end
      table.sort(seqs)
      done(seqs)
    end
  end
  return lost, evicted
end
