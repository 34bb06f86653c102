-- How far a group is. ARGV: name. Answers the newest place, the place of the oldest event that is not done with (0: there is none), how
-- many there are.
if not find_group(ARGV[1]) then
  return { 'nogroup' }
end
local oldest = call('ZRANGE', heads, 0, 0, 'WITHSCORES')[2]
return {
  'ok', tonumber(call('HGET', META, 'newest') or 0), tonumber(oldest or 0), tonumber(call('HGET', SIZES, gid) or 0),
}
