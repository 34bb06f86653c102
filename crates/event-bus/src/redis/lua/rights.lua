-- Whether this user may do what the scripts do: a script that is stopped half way would leave half a step. Answers the first command
-- that is denied.
local key = META
local commands = {
  { 'TIME' }, { 'SET', key, 'v' }, { 'UNLINK', key },
  { 'HGET', key, 'f' }, { 'HMGET', key, 'f' }, { 'HGETALL', key }, { 'HLEN', key }, { 'HSET', key, 'f', 'v' }, { 'HDEL', key, 'f' },
  { 'HINCRBY', key, 'f', '1' },
  { 'ZADD', key, '0', 'm' }, { 'ZREM', key, 'm' }, { 'ZCARD', key }, { 'ZMSCORE', key, 'm' }, { 'ZPOPMIN', key },
  { 'ZRANGE', key, '0', '0' }, { 'ZRANGEBYSCORE', key, '0', '0' },
  { 'LINDEX', key, '0' }, { 'LRANGE', key, '0', '0' }, { 'RPUSH', key, 'v' }, { 'LTRIM', key, '0', '0' }, { 'LREM', key, '1', 'v' },
  { 'XADD', key, '1-0', 'f', 'v' }, { 'XDEL', key, '1' }, { 'XRANGE', key, '-', '+' }, { 'XTRIM', key, 'MAXLEN', '0' },
}
for i = 1, #commands do
  if not redis.acl_check_cmd(unpack(commands[i])) then
    return { 'denied', commands[i][1] }
  end
end
return { 'ok' }
