-- A page of the dead letters of a group in the order of their places. ARGV: name, behind which place, how many.
local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
local seqs = call('ZRANGEBYSCORE', g.deads, '(' .. ARGV[2], '+inf', 'LIMIT', 0, ARGV[3])
local packed, answers = ask('HMGET', g.dead, seqs), {}
for i = 1, #seqs do
  local why, attempts, at, head, body = cmsgpack.unpack(packed[i])
  answers[i] = { tonumber(seqs[i]), why, attempts, at, head, body }
end
return { 'ok', answers }
