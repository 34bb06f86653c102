-- The matcher of the crate, for what is already stored. A pattern is runs of fixed length between its stars: the first run must stand at
-- the beginning and the last at the end, and each other one where it is found first.
local function matcher(pattern)
  local runs, run, length, lengths, at = {}, '', 0, {}, 1
  while at <= #pattern do
    local c = sub(pattern, at, at)
    if c == '*' then
      runs[#runs + 1], lengths[#lengths + 1] = run, length
      run, length = '', 0
    else
      if c == '?' then
        run = run .. '.'
      else
        if c == '\\' then
          at = at + 1
          c = sub(pattern, at, at)
        end
        run = run .. string.gsub(c, '%W', '%%%0')
      end
      length = length + 1
    end
    at = at + 1
  end
  runs[#runs + 1], lengths[#lengths + 1] = run, length
  return function(topic)
    if #runs == 1 then
      return find(topic, '^' .. runs[1] .. '$') ~= nil
    end
    local _, till = find(topic, '^' .. runs[1])
    for i = 2, #runs - 1 do
      if not till then
        return false
      end
      _, till = find(topic, runs[i], till + 1)
    end
    local from = #topic - lengths[#runs]
    return till ~= nil and from >= till and find(topic, '^' .. runs[#runs] .. '$', from + 1) ~= nil
  end
end

-- The topic in a body: its third netstring.
local function topic_in(body)
  local at = 1
  for _ = 1, 2 do
    local size = match(body, '^(%d+):', at)
    if not size then
      return ''
    end
    at = at + #size + size + 2
  end
  local size = match(body, '^(%d+):', at)
  return size and sub(body, at + #size + 1, at + #size + size) or ''
end
