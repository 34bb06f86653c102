-- Outboxes: how much is stored, up to where it is removed, and what is appended, from the first message that is left. Inboxes: marks
-- are cells.
function s.queues_part()
  local stream_length, key, arg, number, live, refuse, put, expires, write, int = s.stream_length, s.key, s.arg, s.number, s.live, s.refuse, s.put, s.expires, s.write, s.int
  local outboxes, dirty_outboxes = {}, {}

  local function open(name)
    local outbox = outboxes[name]
    if not outbox then
      outbox = { length = stream_length(name), messages = {}, first = 1 }
      outboxes[name] = outbox
      dirty_outboxes[#dirty_outboxes + 1] = name
    end
    return outbox
  end

  local part = {}

  function part.E()
    local messages = open(key()).messages
    messages[#messages + 1] = { number(), arg(), arg(), arg() }
    return ''
  end

  function part.Q()
    local outbox, up_to = open(key()), tonumber(arg())
    outbox.up_to = math.max(outbox.up_to or 0, up_to)
    while outbox.first <= #outbox.messages and outbox.messages[outbox.first][1] <= up_to do
      outbox.first = outbox.first + 1
    end
    return ''
  end

  function part.M()
    local name, ttl = key(), arg()
    if live(name) then
      refuse('processed')
    end
    put(name, 'm', '', expires(ttl, false))
    return ''
  end

  local function write_outbox(name, outbox)
    local messages = outbox.messages
    if outbox.up_to and outbox.length > 0 then
      write('XTRIM', name, 'MINID', int(outbox.up_to + 1) .. '-0')
      if outbox.first > #messages and redis.call('XLEN', name) == 0 then
        write('UNLINK', name)
      end
    end
    for i = outbox.first, #messages do
      local n, order, id, payload = unpack(messages[i])
      write('XADD', name, int(n) .. '-0', 'o', order, 'i', id, 'p', payload)
    end
  end

  function part.write()
    for i = 1, #dirty_outboxes do
      write_outbox(dirty_outboxes[i], outboxes[dirty_outboxes[i]])
    end
  end

  return part
end

