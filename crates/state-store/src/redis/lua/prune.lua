-- Takes names out of the indexes whose records are not there: something else removed them. KEYS: index, ends, records. ARGV: where
-- a name begins in a record's key. Every key is named in KEYS, so that a slot on its way to another node is not mistaken for
-- an empty one.
for i = 3, #KEYS do
  if redis.call('STRLEN', KEYS[i]) == 0 then
    local name = string.sub(KEYS[i], tonumber(ARGV[1]))
    redis.call('ZREM', KEYS[1], name)
    redis.call('ZREM', KEYS[2], name)
  end
end
