-- The groups: their names, what is stored of them, and the names of their consumers. The caller chooses a page.
local of, out = call('HGETALL', GROUPS), {}
for i = 1, #of, 2 do
  out[#out + 1] = { of[i], of[i + 1], call('HGETALL', base .. 'g' .. match(of[i + 1], '^%d+') .. ':names') }
end
return { 'ok', out }
