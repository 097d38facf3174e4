-- Names of the overlay: what they lead to, and by which way.
local stubs, tap = require("stubs"), require("tap")
local is, raises = tap.is, tap.raises
local tests = {}

local function row()
    local w = stubs.row({ "a", "b", "c", "d" })
    w:rounds(5)
    return w, w.nodes.a.agent, w.nodes.a
end

function tests.subdomains()
    local agent = stubs.new_world():node("a")
    is(agent._subdomain("x.internal", ".internal"), "x", "below a domain")
    is(agent._subdomain("X.y.InterNal", ".internal"), "X.y", "a domain in any case, what is below it as it is")
    is(agent._subdomain("x.internal.", ".internal"), "x", "with a dot at its end")
    is(agent._subdomain(".internal", ".internal"), nil, "nothing below it")
    is(agent._subdomain("xinternal", ".internal"), nil, "not below it")
    is(agent._subdomain("internal", ".internal"), nil, "the domain alone")
end

function tests.resolving()
    local _, a, env = row()
    local function at(addr, target, id, name)
        local action = a.matcher(addr)
        if not target then return is(action, nil, name) end
        local got, by = action(addr)
        is(got, target, name)
        is(by, id and "socks5://" .. id .. ".test:1080", name .. ": the connection")
    end
    at("hb.internal:80", "hb.internal:80", "b", "a neighbour's host")
    at("HB.Internal:80", "hb.internal:80", "b", "in any case, as its peer writes it")
    at("hc.internal:22", "hc.relay.neosocksd.internal:22", "b", "one peer between: neither it nor the owner is named")
    at("hd.internal:443", "hd.c.relay.neosocksd.internal:443", "b", "two peers between: the second is named")
    at("ha.internal:80", nil, nil, "our own host falls through")
    at("example.com:80", nil, nil, "other names fall through")
    at("[2001:db8::1]:80", nil, nil, "literals too")
    at("api.neosocksd.internal:80", "127.0.0.1:9080", nil, "the API")
    at("API.neosocksd.internal:80", "127.0.0.1:9080", nil, "the API in any case")
    is((a.matcher("nobody.internal:80"))("x:1"), nil, "an unknown host is rejected")
    tap.has(env.events[#env.events], 'unknown host "nobody"', "with the reason")
    is((a.matcher("api.neosocksd.internal:81"))("x:1"), nil, "another port of the API's name is an unknown host")
end

-- what the original's suite calls
function tests.hooks()
    local w, a = row()
    local addr, conn = a._resolve_internal("hd", "443")
    is(addr, "hd.c.relay.neosocksd.internal:443", "_resolve_internal: the address")
    is(conn, a.conns.b, "and the connection, the table itself")
    is(a._resolve_internal("ha", 80), nil, "nil for our own host")
    addr, conn = a._resolve_internal("nobody", 80)
    is(addr, 'unknown host "nobody"', "a text for what is unknown")
    is(conn, nil, "and no connection")
    local hosts, routes = a._build_index()
    is(hosts.hd, "d", "_build_index: whose host it is")
    is(table.concat(routes.d.path, ">"), "b>c>d", "and the path")
    w:break_link("a", "b")
    w:rounds(3)
    addr, conn = a._resolve_internal("hd", 80)
    is(addr, 'peer "d" is not reachable', "a text for what is not reached")
    is(conn, nil, "and no connection")
end

-- the action's address and the peer it goes to, or the event that says why not
local function asked(env, addr)
    local before = #env.events
    local action = env.agent.matcher(addr)
    local target, by = action(addr)
    if not target then return nil, env.events[#env.events], #env.events - before end
    return target, by:match("//([%w-]+)%.test")
end

function tests.relaying()
    local w, _ = row()
    local b, c, domain = w.nodes.b, w.nodes.c, ".relay.neosocksd.internal:443"
    local target, peer = asked(b, "hd.c" .. domain)
    is(target, "hd" .. domain, "a relay leaves out the label of the next peer")
    is(peer, "c", "and goes to it")
    target, peer = asked(c, target)
    is(target, "hd.internal:443", "a single label is a host: the last relay looks its owner up")
    is(peer, "d", "and goes to it")
    is(select(2, asked(b, "hd.C.Relay.neosocksd.internal:443")), "c", "in any case")
    is(asked(b, "Hd.sub.C" .. domain), "Hd.sub" .. domain, "what is passed on stays as it was written")
    local function refused(node, addr, why, name)
        local nothing, event, count = asked(node, addr)
        is(nothing, nil, name)
        tap.has(event, why, name .. ": why")
        is(count, 1, name .. ": one event")
    end
    refused(b, "hd.d" .. domain, 'peer "d" is not connected', "a peer that is no neighbour")
    refused(b, "hd" .. domain, 'peer "d" is not connected', "a host whose owner is no neighbour")
    refused(b, "zz" .. domain, 'unknown host "zz"', "a host that nobody serves")
    refused(w.nodes.a, "hb" .. domain, "relay disabled", "one that does not relay")
    refused(b, "hd.d.c.b.c" .. domain, "in circles", "a path that comes back")
    refused(b, "h" .. (".c.d"):rep(9) .. ".c" .. domain, "in circles", "a path without an end")
    is(w:connect("a", "hd.internal:443"), "d", "altogether it arrives")
    is(table.concat(w.passed, ">"), "b>c>d", "by way of all relays")
end

-- of two that serve a host, a relay takes the one that it is connected to
function tests.a_host_of_two_peers()
    local w = row()
    w.nodes.a.agent.hosts, w.nodes.a.agent.relay_cost = { "two" }, nil
    w.nodes.d.agent.hosts = { "Two" }
    w:rounds(5)
    local target, peer = asked(w.nodes.b, "two.relay.neosocksd.internal:1")
    is(target, "two.internal:1", "a relay asks the neighbour")
    is(peer, "a", "that serves the host")
    target, peer = asked(w.nodes.c, "two.relay.neosocksd.internal:1")
    is(target, "Two.internal:1", "as that one writes it")
    is(peer, "d", "each relay its own")
end

-- failed demand brings the next round within PROBE_INTERVAL_MIN, however rarely rounds come
function tests.demand_wakes()
    local w = stubs.new_world()
    local agent = w:node("a", { conns = { "b" } })
    w:node("b", {})
    w:run(20000)
    tap.has(agent.stats(), "probe=600s", "a quiet overlay rests")
    local rounds = 0
    agent.on_updated = function() rounds = rounds + 1 end
    w:run(100)
    rounds = 0
    is((agent.matcher("nobody.internal:1"))("nobody.internal:1"), nil, "an unknown host")
    w:run(21)
    is(rounds >= 1, true, "makes a round come soon")
    for _ = 1, 1000 do agent.matcher("nobody.internal:1") end
    rounds = 0
    w:run(30)
    is(rounds <= 4, true, "but no storm of them")
end

function tests.hosts_with_dots()
    local w = stubs.row({ "a", "b", "c" })
    w.nodes.c.agent.hosts = { "x.hc", "www.b", "deep.er.c" }
    w:rounds(4)
    for _, host in ipairs({ "x.hc", "www.b", "deep.er.c" }) do
        local node, addr = w:connect("a", host .. ".internal:80")
        is(node, "c", host .. " is found, though it has dots")
        is(addr, host .. ".internal:80", host .. " stays whole")
    end
end

function tests.names_in_upper_case()
    local w = stubs.new_world()
    w:node("Office", { conns = { "Middle" } })
    w:node("Middle", { conns = { "Office", "Home" }, relay_cost = 0 })
    w:node("Home", { conns = { "Middle" }, hosts = { "NAS" } })
    w:by_hand():rounds(4)
    local node, addr = w:connect("Office", "nas.internal:1")
    is(node, "Home", "names of peers and hosts may have capitals")
    is(addr, "NAS.internal:1", "its own way to write a host is what a peer is asked for")
    is(w.nodes.Office.peerdb.Home.hosts[1], "NAS", "and what others are told")
end

function tests.matcher()
    local w, a, env = row()
    local action, tag = a.matcher("hd.internal:443")
    is(tag, "agent", "an action has a tag")
    local target, proxy = action("hd.internal:443")
    is(target, "hd.c.relay.neosocksd.internal:443", "and leads to the path")
    is(proxy, "socks5://b.test:1080", "by the connection's proxy")
    is(a.matcher("example.com:1"), nil, "other names are for the rules behind")
    is(a.matcher("ha.internal:1"), nil, "our own hosts too")
    is((a.matcher("api.neosocksd.internal:80"))("x:1"), "127.0.0.1:9080", "the API is redirected")
    local before = #env.events
    is((a.matcher("nobody.internal:1"))("nobody.internal:1"), nil, "an unknown host is rejected")
    is(env.events[#env.events], 'agent: "nobody.internal:1": unknown host "nobody"', "with an event")
    is(#env.events, before + 1, "one event")
    a.api_endpoint = "127.0.0.1:1"
    is((a.matcher("api.neosocksd.internal:80"))("x:1"), "127.0.0.1:1", "api_endpoint is read at each request")
    is(w.nodes.a.agent, a, "the instance is the same")
end

function tests.chains_of_proxies()
    local w = stubs.new_world()
    local agent = w:node("a", { conns = { far = { "socks5://x.test:1", "http://y.test:2", "socks5://b.test:3" } } })
    w:node("b", { hosts = { "hb" } })
    w:node("x", {})
    w:node("y", {})
    w:by_hand():rounds(2)
    local target, p3, p2, p1 = (agent.matcher("hb.internal:9"))("hb.internal:9")
    is(target, "hb.internal:9", "a chain ends at the peer")
    is(p1, "socks5://x.test:1", "its first proxy is the first hop: the last value")
    is(p2, "http://y.test:2", "then the second")
    is(p3, "socks5://b.test:3", "then the peer's own")
    is(w:connect("a", "hb.internal:9"), "b", "it arrives")
    is(table.concat(w.passed, ">"), "x>y>b", "in that order")
    agent.conns.far = "socks5://b.test:3"
    w:round("a")
    is(select(2, (agent.matcher("hb.internal:9"))("hb.internal:9")), "socks5://b.test:3", "one proxy needs no table")
end

function tests.chain_and_shims()
    local _, a, env = row()
    is(#a.chain, 1, "the chain has one rule")
    is(#a.chain[1], 1, "a functional one")
    is(type((a.chain[1][1]("hb.internal:1"))), "function", "which gives an action")
    is(a.chain[1][1]("example.com:1"), nil, "or none")
    is(env.match.agent()("hb.internal:1"), true, "match.agent: what belongs to the overlay")
    is(env.match.agent()("example.com:1"), false, "match.agent: what does not")
    is(env.match.agent()("ha.internal:1"), false, "match.agent: our own hosts do not")
    is((env.rule.agent()("hc.internal:1")), "hc.relay.neosocksd.internal:1", "rule.agent decides")
    is(env.rule.agent()("example.com:1"), nil, "rule.agent rejects what does not belong to it")
end

function tests.proxies_on_peers()
    local _, a, env = row()
    local addr, p1, p2, p3 = a.proxy("socks5://hc.internal:1080", "http://last.test:1")("example.com:80")
    is(addr, "example.com:80", "the address stays")
    is(p1, "http://last.test:1", "what follows comes last")
    is(p2, "socks5://hc.relay.neosocksd.internal:1080", "the proxy in the overlay")
    is(p3, "socks5://b.test:1080", "the connection comes first")
    addr, p1, p2 = a.proxy("http://u:p@hb.internal:3128")("example.com:80")
    is(p1, "http://u:p@hb.internal:3128", "credentials stay")
    is(p2, "socks5://b.test:1080", "behind the connection")
    is(select("#", a.proxy("socks5://192.0.2.1:1")("x:1")), 2, "a proxy that is not of the overlay is used directly")
    env.hosts = { ["ha.internal"] = "10.0.0.1" }
    is(select(2, a.proxy("socks5://ha.internal:1")("x:1")), "socks5://10.0.0.1:1", "our own host is where hosts says")
    env.hosts["ha.internal"] = "2001:db8::1"
    is(select(2, a.proxy("socks5://ha.internal:1")("x:1")), "socks5://[2001:db8::1]:1", "in brackets if need be")
    raises("unknown host", "a proxy on an unknown host", a.proxy("socks5://zz.internal:1"), "x:1")
end

function tests.tokens()
    local w = stubs.new_world()
    local agent, env = w:node("a", { conns = { "b" } })
    w:node("b", { hosts = { "hb" } })
    w.nodes.b.token = "secret"
    w:by_hand():round("a")
    is(agent.conn_state.b.fails, 1, "an API that wants a token refuses who has none")
    agent.tokens = { b = "secret" }
    w:round("b")
    w:round("a")
    is(agent.conn_state.b.fails, nil, "a connection may have one")
    is(env.peerdb.b.hosts[1], "hb", "for all calls")
    w.nodes.b.rpc.hello = function() return "hello" end
    is(select(2, w:call(agent.rpcall, "socks5://hb.internal:1080", "hello")), "hello", "calls of scripts have the peer's")
    agent.tokens = {}
    is(w:call(agent.rpcall, "socks5://hb.internal:1080", "hello"), false, "or none")
end

-- addr as for agent.proxy: a proxy on a peer, by way of which that peer's API is called
function tests.calls_through_the_overlay()
    local w, a = row()
    w.nodes.d.rpc.hello = function(...) return "hello", ... end
    local ok, word, one, two = w:call(a.rpcall, "socks4a://hd.internal:1080", "hello", 1, nil)
    is(ok, true, "a call over three hops")
    is(word, "hello", "is answered")
    is(one, 1, "with its arguments")
    is(two, nil, "nil among them")
    is(w.target[1], "api.neosocksd.internal:80", "the peer's API is asked for")
    is(w.target[2], "socks4a://hd.c.relay.neosocksd.internal:1080", "at the proxy on the peer")
    is(w.target[3], "socks5://b.test:1080", "by way of our neighbour")
    is(table.concat(w.passed, ">"), "b>c>d", "it passes all")
    is(w.proxies[1], "d@hd.internal:1080", "to the proxy there")
    local failed, why = w:call(a.rpcall, "socks5://zz.internal:80", "hello")
    is(failed, false, "a call to an unknown host")
    is(why, 'unknown host "zz"', "says so")
    failed, why = w:call(a.rpcall, "http://hd.internal:1080", "none")
    is(failed, false, "a call of what is not there")
    tap.has(why, "nil value", "has the peer's message")
    w.nodes.d.agent.api_endpoint = "hd.internal:9080" -- so that the stub takes this address for its API
    is(select(2, w:call(a.rpcall, "hd.internal:9080", "hello")), "hello", "an API may be a host of the overlay itself")
end

return tests
