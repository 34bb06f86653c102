-- Takes a group away from the others; what it leaves is for `clean`. ARGV: name.
local stored = call('HGET', GROUPS, ARGV[1])
if not stored then
  return { 'nogroup' }
end
call('SADD', GONE, match(stored, '^%d+'))
call('HDEL', GROUPS, ARGV[1])
call('HSET', META, 'version', int(server_time()) .. '-0')
return { 'ok' }
