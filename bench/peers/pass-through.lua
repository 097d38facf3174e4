-- Every request goes where it wants to: what asking costs.
local function pass(addr) return addr end
return { resolve = pass, route = pass, route6 = pass }
