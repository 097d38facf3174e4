-- A load balancer: connections to one port go to several servers by weight; one that is dead is passed over.
--     sluice -l :8080 -f backend:1 -r lua/examples/balancer.lua --api 127.0.0.1:9080
-- Servers are changed while it runs:
--     curl -d 'msgh.set_backends({ { 2, "192.0.2.1:80" }, { 1, "192.0.2.2:80" } })' http://127.0.0.1:9080/ruleset/invoke
_G.libruleset = require("libruleset")
neosocksd.setinterval(60)

_G.backends = backends or { { 2, "127.0.0.1:8001" }, { 1, "127.0.0.1:8002" } }

local function build()
    local weighted = {}
    for i, backend in ipairs(backends) do weighted[i] = { backend[1], function() return i end } end
    _G.choose = lb.iwrr(weighted)
end
build()

function msgh.set_backends(list)
    _G.backends = list
    build()
end

local ruleset = setmetatable({}, { __index = function(_, key) return libruleset[key] end })

function ruleset.resolve()
    _G.num_requests = num_requests + 1
    local first = choose()
    if not first then return nil end
    for i = 0, #backends - 1 do
        local backend = backends[(first - 1 + i) % #backends + 1]
        if backend[1] > 0 and await.forward(backend[2]) then return end
        evlogf("backend %s is dead", backend[2])
    end
end

return ruleset
