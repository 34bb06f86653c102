-- Removes dead letters. ARGV: group; then their places.
local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
if #ARGV == 1 then
  return { 'ok', 0 }
end
call('HDEL', g.dead, unpack(ARGV, 2))
return { 'ok', call('ZREM', g.deads, unpack(ARGV, 2)) }
