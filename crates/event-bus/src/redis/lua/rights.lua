-- Whether this user may do what the scripts do: a script that is stopped half way would leave half a step. Answers the first command
-- that is denied; or the layout that was found, if it is another one.
local commands = {
  { 'TIME' }, { 'SET', META, 'v' }, { 'UNLINK', META }, { 'EXISTS', META },
  { 'HGET', META, 'f' }, { 'HMGET', META, 'f' }, { 'HGETALL', META }, { 'HEXISTS', META, 'f' }, { 'HSET', META, 'f', 'v' },
  { 'HDEL', META, 'f' }, { 'HINCRBY', META, 'f', '1' }, { 'HSCAN', META, '0' }, { 'HLEN', META },
  { 'ZADD', META, '0', 'm' }, { 'ZREM', META, 'm' }, { 'ZCARD', META }, { 'ZCOUNT', META, '0', '0' }, { 'ZSCORE', META, 'm' },
  { 'ZMSCORE', META, 'm' }, { 'ZRANK', META, 'm' }, { 'ZPOPMIN', META }, { 'ZRANGE', META, '0', '0' }, { 'ZRANGEBYSCORE', META, '0', '0' },
  { 'ZREMRANGEBYSCORE', META, '0', '0' }, { 'ZREMRANGEBYRANK', META, '0', '0' },
  { 'SADD', META, 'm' }, { 'SREM', META, 'm' }, { 'SRANDMEMBER', META },
  { 'LINDEX', META, '0' }, { 'LRANGE', META, '0', '0' }, { 'LPOP', META }, { 'RPUSH', META, 'v' }, { 'LTRIM', META, '0', '0' }, { 'LLEN', META },
  { 'LREM', META, '1', 'v' },
  { 'XADD', META, '1-0', 'f', 'v' }, { 'XDEL', META, '1' }, { 'XRANGE', META, '-', '+' }, { 'XREVRANGE', META, '+', '-' }, { 'XTRIM', META, 'MAXLEN', '0' },
}
for i = 1, #commands do
  if not redis.acl_check_cmd(unpack(commands[i])) then
    return { 'denied', commands[i][1] }
  end
end
local found = call('HMGET', META, 'layout', 'newest', 'numbers', 'group')
if found[1] ~= LAYOUT and (found[1] or found[2] or found[3] or found[4]) then
  return { 'layout', found[1] or '1' }
end
-- Without it nobody of another program is handed anything: they look for it.
return { 'ok', redis.acl_check_cmd('PUBLISH', base .. 'to:0', 'm') and 1 or 0 }
