#!lua flags=no-writes
-- Whether this user may do what the scripts do: a script that is stopped half way would leave half a batch. KEYS: any key of ours.
-- Answers the first command that is denied.
local key = KEYS[1]
local commands = {
  { 'TIME' }, { 'GET', key }, { 'GETRANGE', key, '0', '0' }, { 'MGET', key }, { 'STRLEN', key }, { 'EXISTS', key },
  { 'SET', key, 'v' }, { 'MSET', key, 'v' }, { 'UNLINK', key }, { 'SCAN', '0' },
  { 'HMGET', key, 'f' }, { 'HSET', key, 'f', 'v' },
  { 'ZCARD', key }, { 'ZSCORE', key, 'm' }, { 'ZADD', key, '0', 'm' }, { 'ZREM', key, 'm' },
  { 'ZRANGEBYSCORE', key, '0', '0' }, { 'ZRANGEBYLEX', key, '-', '+' },
  { 'LLEN', key }, { 'LRANGE', key, '0', '0' }, { 'RPUSH', key, 'v' }, { 'LTRIM', key, '0', '0' },
  { 'PEXPIRETIME', key }, { 'PEXPIREAT', key, '1' }, { 'PERSIST', key },
  { 'XLEN', key }, { 'XRANGE', key, '-', '+' }, { 'XADD', key, '1-0', 'f', 'v' }, { 'XTRIM', key, 'MAXLEN', '0' },
}
for i = 1, #commands do
  if not redis.acl_check_cmd(unpack(commands[i])) then
    return commands[i][1]
  end
end
return false
