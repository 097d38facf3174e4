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
    is(agent._subdomain("X.y.InterNal", ".internal"), "x.y", "in any case")
    is(agent._subdomain("x.internal.", ".internal"), "x", "with a dot at its end")
    is(agent._subdomain(".internal", ".internal"), nil, "nothing below it")
    is(agent._subdomain("xinternal", ".internal"), nil, "not below it")
    is(agent._subdomain("internal", ".internal"), nil, "the domain alone")
end

function tests.resolving()
    local _, a = row()
    local function at(addr, target, id, name)
        local got, by = a._resolve_internal(addr)
        is(got, target, name)
        is(by, id, name .. ": the connection")
    end
    at("hb.internal:80", "hb.internal:80", "b", "a neighbour's host")
    at("HB.Internal:80", "hb.internal:80", "b", "in any case")
    at("hc.internal:22", "hc.c.relay.neosocksd.internal:22", "b", "two hops")
    at("hd.internal:443", "hd.d.c.relay.neosocksd.internal:443", "b", "three hops, the last peer in front")
    at("ha.internal:80", nil, nil, "our own host falls through")
    at("example.com:80", nil, nil, "other names fall through")
    at("[2001:db8::1]:80", nil, nil, "literals too")
    at("api.neosocksd.internal:80", "127.0.0.1:9080", nil, "the API")
    at("API.neosocksd.internal:80", "127.0.0.1:9080", nil, "the API in any case")
    raises('unknown host "nobody"', "an unknown host", a._resolve_internal, "nobody.internal:80")
    raises("unknown host", "another port of the API's name", a._resolve_internal, "api.neosocksd.internal:81")
end

function tests.relaying()
    local w, _ = row()
    local b, c = w.nodes.b.agent, w.nodes.c.agent
    local target, id = b._resolve_internal("hd.d.c.relay.neosocksd.internal:443")
    is(target, "hd.d.relay.neosocksd.internal:443", "a relay leaves out the label of the next peer")
    is(id, "c", "and goes to it")
    is(c._resolve_internal(target), "hd.internal:443", "the last one asks for the host")
    is(select(2, b._resolve_internal("hd.d.C.Relay.neosocksd.internal:443")), "c", "in any case")
    raises('peer "d" is not connected', "a peer that is no neighbour", b._resolve_internal, "hd.d.relay.neosocksd.internal:1")
    raises("needs a host and a peer", "a path without a host", b._resolve_internal, "c.relay.neosocksd.internal:1")
    raises("relays for nobody", "at one that does not relay", w.nodes.a.agent._resolve_internal, "hc.b.relay.neosocksd.internal:1")
    raises("in circles", "a path that comes back", b._resolve_internal, "hd.d.c.b.c.relay.neosocksd.internal:1")
    raises("in circles", "a path without an end", b._resolve_internal,
        "h" .. (".c.d"):rep(9) .. ".c.relay.neosocksd.internal:1")
    is(w:connect("a", "hd.internal:443"), "d", "altogether it arrives")
    is(table.concat(w.passed, ">"), "b>c>d", "by way of all relays")
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
    is(w:connect("Office", "nas.internal:1"), "Home", "names of peers and hosts may have capitals")
end

function tests.matcher()
    local w, a, env = row()
    local action, tag = a.matcher("hd.internal:443")
    is(tag, "agent", "an action has a tag")
    local target, proxy = action("hd.internal:443")
    is(target, "hd.d.c.relay.neosocksd.internal:443", "and leads to the path")
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
    is((env.rule.agent()("hc.internal:1")), "hc.c.relay.neosocksd.internal:1", "rule.agent decides")
    is(env.rule.agent()("example.com:1"), nil, "rule.agent rejects what does not belong to it")
end

function tests.proxies_on_peers()
    local _, a, env = row()
    local addr, p1, p2, p3 = a.proxy("socks5://hc.internal:1080", "http://last.test:1")("example.com:80")
    is(addr, "example.com:80", "the address stays")
    is(p1, "http://last.test:1", "what follows comes last")
    is(p2, "socks5://hc.c.relay.neosocksd.internal:1080", "the proxy in the overlay")
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
    is(agent.conn_state.b.fails, 0, "a connection may have one")
    is(env.peerdb.b.hosts[1], "hb", "for all calls")
    w.nodes.b.agent.api_endpoint = "hb.internal:9080"
    is(w:call(agent.rpcall, "hb.internal:9080", "probe"), false, "calls of scripts have none by themselves")
    w.nodes.b.rpc.hello = function() return "hello" end
    is(select(2, w:call(agent.rpcall, "http://secret@hb.internal:9080", "hello")), "hello", "but may bring one")
end

function tests.calls_through_the_overlay()
    local w, a = row()
    w.nodes.d.agent.api_endpoint = "hd.internal:9080" -- so that the stub takes this address for its API
    w.nodes.d.rpc.hello = function(...) return "hello", ... end
    local ok, word, one, two = w:call(a.rpcall, "hd.internal:9080", "hello", 1, nil)
    is(ok, true, "a call over three hops")
    is(word, "hello", "is answered")
    is(one, 1, "with its arguments")
    is(two, nil, "nil among them")
    local failed, why = w:call(a.rpcall, "zz.internal:80", "hello")
    is(failed, false, "a call to an unknown host")
    is(why, 'unknown host "zz"', "says so")
    failed, why = w:call(a.rpcall, "hd.internal:9080", "none")
    is(failed, false, "a call of what is not there")
    tap.has(why, "nil value", "has the peer's message")
end

return tests
