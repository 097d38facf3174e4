-- The same, declared constant for a minute.
local function pass(addr)
    sluice.cache(60)
    return addr
end
return { resolve = pass, route = pass, route6 = pass }
