-- Takes back a consumer's word that it waits; what was lent to it on that word, and it never got, is free. ARGV: group, incarnation, and as which claim.
local g = find_group(ARGV[1])
if not g then
  return { 'nogroup' }
end
if g.i ~= '' and unpack_waiter(g.i).incarnation == ARGV[2] then
  g.i = ''
end
for _, r in ipairs(claims_of(g)) do
  if r.incarnation == ARGV[2] and r.nonce == ARGV[3] then
    to_lanes(g, r, nil, true, -1)
  end
end
save()
return { 'ok' }
