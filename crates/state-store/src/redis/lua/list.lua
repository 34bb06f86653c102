#!lua flags=no-writes
-- A part of a list and the length of all of it, in one moment. KEYS: the list. ARGV: from, to.
return { redis.call('LLEN', KEYS[1]), redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2]) }
