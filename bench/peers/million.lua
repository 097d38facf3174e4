-- libruleset with a million names to compare with, and a hundred thousand networks, none of which is where origins are.
_G.libruleset = require("libruleset")
local names, networks = {}, {}
for i = 1, 1000000 do names[i] = ("host%d.zone%d.example"):format(i, i % 1000) end
for i = 1, 100000 do networks[i] = ("%d.%d.%d.0/24"):format(128 + i % 90, i // 200 % 250, i * 7 % 250) end
_G.redirect_name = { { match.domain(names), rule.reject() } }
_G.route = { { inet.subnet(networks), rule.reject() } }
return libruleset
