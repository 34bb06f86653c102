-- A page of the dead letters of a group, oldest first. ARGV: name, behind which entry (empty: from the first), how many.
if not find_group(ARGV[1]) then
  return { 'nogroup' }
end
return { 'ok', call('XRANGE', dead, ARGV[2] == '' and '-' or '(' .. ARGV[2], '+', 'COUNT', ARGV[3]) }
