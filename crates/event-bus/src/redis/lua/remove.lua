-- Forgets a group with its work and its dead letters. ARGV: name.
if not find_group(ARGV[1]) then
  return { 'nogroup' }
end
while true do
  local page = call('ZRANGE', heads, 0, 99)
  if #page == 0 then
    break
  end
  for i = 1, #page do
    done(call('LRANGE', lanes .. page[i], 0, -1))
    call('UNLINK', lanes .. page[i])
  end
  many('ZREM', heads, page)
end
call('UNLINK', heads, free, waits, touched, dead)
call('HDEL', GROUPS, ARGV[1])
call('HDEL', SIZES, gid)
call('HSET', META, 'version', int(server_time()) .. '-0')
return { 'ok' }
