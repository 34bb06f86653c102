-- What a claim ends first.
local claims = claims_of(g)
local lost, buried = 0, 0
if #ARGV > ends_at or ARGV[ends_at] ~= '' then
  lost, buried = finish(g, claims, incarnation, now, shift, ARGV[12], ARGV[13], ends_at)
  if g.s == 0 and (meta.due == 0 or meta.due - 1 > now) then
    find_floor(g, claims)
    return nothing(lost, buried)
  end
end
