-- Leases; nobody holds one with an empty holder. Fences are texts, so that any of them compares exactly.
function s.leases_part()
  local checked, corrupt, refuse, after, int, key, arg, now, write = s.checked, s.corrupt, s.refuse, s.after, s.int, s.key, s.arg, s.now, s.write
  local leases, dirty_leases = {}, {}

  local function open(name)
    local lease = leases[name]
    if not lease then
      local raw = checked(name, redis.pcall('GET', name))
      lease = { fence = '0', expires = 0, holder = '' }
      if raw then
        local fence, at, holder = string.match(raw, '^l (%d+) (%d+)\n(.*)$')
        if not fence then
          corrupt(name, 'does not read as a lease')
        end
        lease = { fence = fence, expires = tonumber(at), holder = holder }
      end
      leases[name] = lease
    end
    return lease
  end

  local function fenced(name, fence)
    local lease = open(name)
    if fence == '0' or lease.fence ~= fence then
      refuse('fenced', lease.fence)
    end
    return lease
  end

  local function grant(name, lease, holder, ttl)
    lease.expires, lease.holder = after(ttl), holder
    dirty_leases[#dirty_leases + 1] = name
    return lease.fence .. ' ' .. int(lease.expires)
  end

  local part = {}

  function part.L()
    local name, holder, ttl = key(), arg(), arg()
    local lease = open(name)
    if lease.holder == '' or now() >= lease.expires then
      lease.fence = int(tonumber(lease.fence) + 1)
    elseif lease.holder ~= holder then
      refuse('held', int(lease.expires), lease.holder)
    end
    return grant(name, lease, holder, ttl)
  end

  function part.N()
    local name, holder, fence, ttl = key(), arg(), arg(), arg()
    local lease = fenced(name, fence)
    if lease.holder ~= holder then
      refuse('fenced', lease.fence)
    end
    return grant(name, lease, holder, ttl)
  end

  function part.U()
    local name, fence = key(), arg()
    fenced(name, fence).holder = ''
    dirty_leases[#dirty_leases + 1] = name
    return ''
  end

  function part.F()
    fenced(key(), arg())
    return ''
  end

  function part.write()
    for i = 1, #dirty_leases do
      local lease = leases[dirty_leases[i]]
      write('SET', dirty_leases[i], 'l ' .. lease.fence .. ' ' .. int(lease.expires) .. '\n' .. lease.holder)
    end
  end

  return part
end

