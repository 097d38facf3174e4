-- A peer of an overlay: its services are known by name at all other peers, and reached by the cheapest way.
--     sluice -l 192.0.2.7:1080 -r lua/examples/overlay.lua --api 127.0.0.1:9080
-- Every peer runs this file with a table of its own. docs/agent.md sets up three of them.
--
-- Peers reach each other by way of their proxies, and who may use a proxy may call the API behind it. So let only peers in:
-- by a tunnel, by a firewall, or by --auth-required and the secrets below.
_G.libruleset = require("libruleset")
neosocksd.setinterval(60) -- a tick a minute, for the chart in POST /stats

local self = {
    -- who we are: letters, digits, - and _, another name at every peer
    name = "office",
    -- what we serve, and where it really is: others ask for wiki.internal
    services = { wiki = "127.0.0.1" },
    -- the ways to other peers: each a chain of proxies, whose last one is the peer's own. One neighbour is enough.
    connections = {
        home = { "socks5://192.0.2.1:1080" },
    },
    -- our own API, as seen from here
    api = "127.0.0.1:9080",
    -- May others go by way of us? nil: no; 0: yes; more: yes, but rather by way of those that cost less.
    relay_cost = nil,
}

-- Who may come in, with --auth-required. The others' connections say socks5://home:password@192.0.2.7:1080 then.
_G.secrets = _G.secrets or {}
-- secrets.home = "a long password"

_G.agent = require("agent")
agent.peername = self.name
agent.conns = self.connections
agent.hosts = {}
agent.api_endpoint = self.api
agent.relay_cost = self.relay_cost

-- our own names fall through the agent's rules, and end here
_G.hosts = {}
for host, address in pairs(self.services) do
    table.insert(agent.hosts, host)
    _G.hosts[host .. ".internal"] = address
end

_G.redirect_name = {
    -- *.internal, also after an update of the agent alone: POST /ruleset/update?module=agent
    { composite.subchain(agent, "chain") },
    -- by way of a proxy that another peer serves, which has a service of that name:
    -- { match.domain("example.org"), agent.proxy("socks5://exit.internal:1080"), "exit" },
}
-- everything else is dialled from here
_G.route_default = { rule.direct() }

local ruleset = setmetatable({}, { __index = function(_, key) return libruleset[key] end })

function ruleset.stats(dt, q)
    return libruleset.stats(dt, q) .. "\n" .. agent.stats(dt)
end

return ruleset
