-- A peer of an overlay: its services are known by name at all other peers, and reached by the cheapest way.
--     sluice -l 127.0.0.1:1080 -r lua/examples/overlay.lua --api 127.0.0.1:9080
-- Each peer has a name of its own here, the way to at least one other, and that other's sluice admits it (a tunnel, a firewall,
-- or users with passwords). docs/agent.md has the whole picture.
_G.libruleset = require("libruleset")
neosocksd.setinterval(60)

-- who we are, and what we serve: wiki.internal:80 leads here
local name = "office"
local services = { wiki = "127.0.0.1" }
-- ways to other peers: each a chain of proxies, whose last one is the peer's own sluice
local connections = {
    home = { "socks5://192.0.2.1:1080" },
}

_G.agent = require("agent")
agent.peername = name
agent.conns = connections
agent.hosts = {}
agent.api_endpoint = "127.0.0.1:9080" -- our own API, which peers call
agent.relay_cost = nil -- a number: others may go by way of us, the cheaper the lower

_G.hosts = {}
for host, address in pairs(services) do
    table.insert(agent.hosts, host)
    _G.hosts[host .. ".internal"] = address
end

_G.redirect_name = {
    { composite.subchain(agent, "chain") },
}
_G.route_default = { rule.direct() }

local ruleset = setmetatable({}, { __index = function(_, key) return libruleset[key] end })

function ruleset.stats(dt, q)
    return libruleset.stats(dt, q) .. "\n" .. agent.stats(dt)
end

return ruleset
