-- agent.lua: several instances in one Lua state, each with globals of its own, a clock that is moved by hand, and calls that
-- go from table to table.
local check = require("check")
local is, raises = check.is, check.raises

local net = { peers = {}, now = 1700000000, delays = {}, broken = {} }

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("a")
    file:close()
    return text
end

local source = read("lua/scripts/agent.lua")

-- Where a connection's first proxy leads: "socks5://b:1" means peer b.
local function peer_behind(proxies)
    local name = proxies[#proxies] and proxies[#proxies]:match("//([^:]+):")
    return name and net.peers[name]
end

local function split(addr)
    local host, port = addr:match("^(.*):([^:]*)$")
    return host, port
end

local function new_list(t)
    local methods = {}
    methods.__index = methods
    function methods:insert(v) table.insert(self, v) return self end
    function methods:insertf(...) table.insert(self, string.format(...)) return self end
    function methods:concat(s) return table.concat(self, s) end
    function methods:map(f) for i = 1, #self do self[i] = f(self[i]) end return self end
    return setmetatable(t or {}, methods)
end

local function start(name, settings)
    local env = setmetatable({ rpc = {}, msgh = {}, events = {} }, { __index = _G })
    env._G = env
    env.agent = settings.previous
    env.peerdb = settings.peerdb
    env.evlogf = function(...) table.insert(env.events, string.format(...)) end
    env.neosocksd = { now = function() return net.now end, splithostport = split, parse_ipv4 = function() end, parse_ipv6 = function() end }
    env.time = { monotonic = function() return net.clock or 0 end }
    env.format_timestamp = function(t) return tostring(t) end
    env.list = { new = function(_, t) return new_list(t) end }
    env.rule = {
        reject = function() return function() return nil end end,
        redirect = function(target, ...)
            local proxies = { ... }
            return function() return target, table.unpack(proxies) end
        end,
    }
    env.async = function(f, ...)
        local results = table.pack(pcall(f, ...))
        return { get = function() return table.unpack(results, 1, results.n) end }
    end
    env.await = {
        sleep = function() end,
        callback = function() error("the loop is driven by the test", 0) end,
        rpcall = function(target, func, ...)
            local peer = peer_behind({ table.unpack(target, 2) })
            env.calls = (env.calls or 0) + 1
            if not peer or net.broken[name .. peer.name] or not peer.rpc[func] then return false, "connection failed" end
            net.clock = (net.clock or 0) + (net.delays[name .. peer.name] or 0.01)
            local copy = load("return " .. marshal(...), "=(rpc)", "t", {})
            return true, peer.rpc[func](copy())
        end,
    }
    local chunk = assert(load(source, "@agent.lua", "t", env))
    env.name = name
    net.peers[name] = env
    settings.before = settings.before and settings.before(env)
    local agent = chunk("agent")
    for key, value in pairs(settings) do
        if key ~= "previous" and key ~= "peerdb" and key ~= "before" then agent[key] = value end
    end
    agent.peername = name
    env.agent = agent
    return agent, env
end

local function conn(peer) return { "socks5://" .. peer .. ":1" } end

local function reset()
    net.peers, net.delays, net.broken, net.clock, net.now = {}, {}, {}, 0, 1700000000
end

local function rounds(n)
    for _ = 1, n do
        local names = {}
        for name in pairs(net.peers) do table.insert(names, name) end
        table.sort(names)
        for _, name in ipairs(names) do net.peers[name].agent.maintenance() end
        net.now = net.now + 10
    end
end

-- a - b - c - d in a row; all but the ends relay
local function row(costs)
    reset()
    costs = costs or {}
    start("a", { conns = { b = conn("b") }, hosts = { "ha" } })
    start("b", { conns = { a = conn("a"), c = conn("c") }, hosts = { "hb" }, relay_cost = costs.b or 1 })
    start("c", { conns = { b = conn("b"), d = conn("d") }, hosts = { "hc", "x.hc" }, relay_cost = costs.c or 1 })
    start("d", { conns = { c = conn("c") }, hosts = { "hd" } })
    rounds(4)
end

local tests = {}

function tests.all_learn_of_all()
    row()
    for _, name in ipairs{ "a", "b", "c", "d" } do
        for _, other in ipairs{ "a", "b", "c", "d" } do is(net.peers[name].peerdb[other] ~= nil, true, name .. " knows " .. other) end
    end
    is(net.peers.a.peerdb.d.hosts[1], "hd")
    is(net.peers.d.peerdb.b.relay_cost, 1)
end

function tests.paths()
    row()
    local owners, routes = net.peers.a.agent._build_index()
    is(table.concat(routes.b.path, ">"), "b")
    is(table.concat(routes.c.path, ">"), "b>c")
    is(table.concat(routes.d.path, ">"), "b>c>d")
    is(routes.d.cost, 2)
    is(owners.hd, "d")
    is(owners["x.hc"], "c")
end

-- what an address of the overlay becomes at a peer, and the connection's proxy; or nil and the event that says why not
local function ask(peer, addr)
    local env = net.peers[peer]
    local action = env.agent.matcher(addr)
    if not action then return nil, "not of the overlay" end
    local target, proxy = action(addr)
    if target == nil then return nil, env.events[#env.events] end
    return target, proxy
end

local function refused(part, peer, addr)
    local target, why = ask(peer, addr)
    is(target, nil)
    is(tostring(why):find(part, 1, true) ~= nil, true, why)
end

function tests.addresses()
    row()
    local a = net.peers.a.agent
    is(a._subdomain("X.Internal", ".internal"), "X")
    is(a._subdomain(".internal", ".internal"), nil)
    is(a._subdomain("xinternal", ".internal"), nil)
    is(ask("a", "hb.internal:80"), "hb.internal:80")
    is(ask("a", "HD.internal:80"), "hd.c.relay.neosocksd.internal:80")
    is(select(2, ask("a", "hd.internal:80")), "socks5://b:1")
    local at_b, by = ask("b", "hd.c.relay.neosocksd.internal:80")
    is(at_b, "hd.relay.neosocksd.internal:80")
    is(by, "socks5://c:1")
    is(ask("c", at_b), "hd.internal:80")
    is(ask("a", "x.hc.internal:1"), "x.hc.relay.neosocksd.internal:1")
    is(ask("b", "x.hc.relay.neosocksd.internal:1"), "x.hc.internal:1")
    refused("not of the overlay", "a", "ha.internal:80")
    refused("not of the overlay", "a", "example.com:80")
    is(ask("a", "api.neosocksd.internal:80"), "127.0.0.1:9080")
    refused('unknown host "nobody"', "a", "nobody.internal:80")
end

function tests.matcher_and_chain()
    row()
    local a = net.peers.a.agent
    local action, tag = a.matcher("hd.internal:443")
    is(tag, "agent")
    local target, proxy = action("hd.internal:443")
    is(target, "hd.c.relay.neosocksd.internal:443")
    is(proxy, "socks5://b:1")
    is(a.matcher("example.com:1"), nil)
    is(a.matcher("ha.internal:1"), nil)
    is((a.matcher("nobody.internal:1"))("nobody.internal:1"), nil, "an unknown host is refused")
    is(net.peers.a.events[#net.peers.a.events], 'agent: "nobody.internal:1": unknown host "nobody"')
    is(a.chain[1][1]("hb.internal:1") ~= nil, true)
end

function tests.proxy_on_a_peer()
    row()
    local a = net.peers.a.agent
    local addr, p1, p2, p3 = a.proxy("socks5://hc.internal:1080", "http://last:1")("example.com:80")
    is(addr, "example.com:80")
    is(p1, "http://last:1")
    is(p2, "socks5://hc.relay.neosocksd.internal:1080")
    is(p3, "socks5://b:1")
    raises("unknown host", a.proxy("socks5://zz.internal:1"), "x:1")
end

function tests.who_does_not_relay()
    row({ b = -1 })
    local _, routes = net.peers.a.agent._build_index()
    is(routes.b ~= nil, true)
    is(routes.c, nil)
    refused("is not reachable", "a", "hc.internal:1")
    refused("relay disabled", "b", "hd.c.relay.neosocksd.internal:1")
    row({ b = 0 })
    is(select(2, net.peers.a.agent._build_index()).c.cost, 0)
end

function tests.cheaper_ways()
    reset()
    start("a", { conns = { b = conn("b"), c = conn("c") } })
    start("b", { conns = { a = conn("a"), d = conn("d") }, relay_cost = 5 })
    start("c", { conns = { a = conn("a"), d = conn("d") }, relay_cost = 1 })
    start("d", { conns = { b = conn("b"), c = conn("c") } })
    net.delays.ac = 0.5
    rounds(4)
    is(table.concat(select(2, net.peers.a.agent._build_index()).d.path, ">"), "c>d", "cost comes before the round trip")
    net.peers.c.agent.relay_cost = 5
    rounds(4)
    is(table.concat(select(2, net.peers.a.agent._build_index()).d.path, ">"), "b>d")
end

function tests.lost_and_found()
    row()
    net.broken["ab"] = true
    rounds(1)
    is(net.peers.a.agent.conn_state.b.fails, 1)
    is(select(2, net.peers.a.agent._build_index()).d ~= nil, true, "one miss is none")
    rounds(1)
    is(select(2, net.peers.a.agent._build_index()).d, nil)
    refused("is not reachable", "a", "hd.internal:1")
    net.broken["ab"] = nil
    rounds(1)
    is(select(2, net.peers.a.agent._build_index()).d ~= nil, true)
end

function tests.versions()
    row()
    local db = net.peers.a.peerdb
    local version = db.a.version
    rounds(2)
    is(db.a.version, version, "nothing has changed")
    is(db.a.timestamp > 1700000040, true)
    net.peers.a.agent.hosts = { "ha", "other" }
    rounds(1)
    is(db.a.version > version, true)
    version = db.a.version
    net.delays.ab = 0.011
    rounds(1)
    is(db.a.version, version, "a tenth more is the same")
    net.delays.ab = 0.001
    rounds(1)
    is(db.a.version > version, true, "a tenth of it is not")
    rounds(3)
    is(net.peers.d.peerdb.a.version, db.a.version)
end

function tests.expiry()
    row()
    local a = net.peers.a
    a.agent.conns = {}
    a.agent.conn_state = {}
    net.peers.a.rpc.sync = function() return "a", {} end
    local before = a.peerdb.d.timestamp
    net.now = before + 4200
    a.agent.maintenance()
    is(a.peerdb.d ~= nil, true, "at the edge")
    net.now = before + 4201
    a.agent.maintenance()
    is(a.peerdb.d, nil)
    is(a.peerdb.a ~= nil, true, "never ourselves")
end

function tests.clocks_that_run_ahead()
    reset()
    local _, env = start("a", { conns = {} })
    env.rpc.sync("z", {}, { z = { version = 1, timestamp = net.now + 1e6, hosts = { "hz" }, conns = {} } })
    is(env.peerdb.z.timestamp, net.now)
    env.rpc.sync("y", {}, { y = { version = 1, timestamp = net.now - 5000, hosts = {}, conns = {} } })
    is(env.peerdb.y, nil, "too old")
end

function tests.hostile_peers()
    reset()
    local agent, env = start("a", { conns = {} })
    agent.maintenance()
    local mine = env.peerdb.a
    local good = { version = 1, timestamp = net.now, hosts = {}, conns = {} }
    local function with(changes)
        local entry = {}
        for k, v in pairs(good) do entry[k] = v end
        for k, v in pairs(changes) do entry[k] = v end
        return entry
    end
    local many = {}
    for i = 1, 300 do many[i] = "h" .. i end
    for i, entry in ipairs{ with{ version = "1" }, with{ version = 0 / 0 }, with{ timestamp = 1 / 0 }, with{ hosts = 5 }, with{ conns = 5 },
        with{ hosts = many }, with{ version = -1 }, 7, "x", {} } do
        env.rpc.sync("p", {}, { ["bad" .. i] = entry })
        is(env.peerdb["bad" .. i], nil, "entry " .. i)
    end
    env.rpc.sync("p", {}, { ["two.labels"] = good, [("n"):rep(64)] = good, [5] = good, [""] = good, a = with{ version = 2 ^ 50 } })
    is(env.peerdb["two.labels"], nil)
    is(env.peerdb[5], nil)
    is(env.peerdb.a, mine, "nobody speaks for us")
    env.rpc.sync("p", {}, { ok = with{ hosts = { "fine", "not fine", 5, ("h"):rep(70), "" }, conns = { c = { peername = "x", rtt = -1 },
        d = { peername = "y y", rtt = 1 }, e = { peername = "z", rtt = 1 } }, relay_cost = "free" } })
    is(#env.peerdb.ok.hosts, 1)
    is(next(env.peerdb.ok.conns), "e")
    is(env.peerdb.ok.relay_cost, nil)
    local flood = {}
    for i = 1, 1001 do flood["p" .. i] = good end
    env.rpc.sync("p", {}, flood)
    is(env.peerdb.p1, nil, "too many at once")
    for i = 1, 1000 do env.rpc.sync("p", {}, { ["q" .. i] = good }) end
    local count = 0
    for _ in pairs(env.peerdb) do count = count + 1 end
    is(count <= 1000, true)
    for _, bad in ipairs{ 5, "x", { z = 5 }, { [1] = {} }, { z = { v = "1", t = 2 } } } do
        is(select(1, env.rpc.sync("p", bad, bad)), "a")
        is(select(1, env.rpc.probe("p", bad)), "a")
    end
    is(select(1, env.rpc.sync()), "a")
end

function tests.peers_that_answer_nonsense()
    reset()
    local agent = start("a", { conns = { b = conn("b") } })
    local _, env = start("b", { conns = {} })
    for _, answer in ipairs{ 5, "two words", "a", ("n"):rep(100) } do
        env.rpc.probe = function() return answer, { x = 5 } end
        agent.conn_state = {}
        agent.maintenance()
        is(agent.conn_state.b.fails, 1)
    end
    env.rpc.probe = function() return nil end
    agent.maintenance()
    is(agent.conn_state.b.fails, 2)
end

function tests.sync_sends_what_is_lacking()
    reset()
    local _, env = start("a", { conns = {}, hosts = { "ha" } })
    env.agent.maintenance()
    local name, delta = env.rpc.sync("b", {}, {})
    is(name, "a")
    is(delta.a.hosts[1], "ha")
    local known = { a = { v = delta.a.version, t = delta.a.timestamp } }
    is(next(select(2, env.rpc.sync("b", known, {}))), nil)
    known.a.v = known.a.v - 1
    is(next(select(2, env.rpc.sync("b", known, {}))), "a")
    local _, digest = env.rpc.probe("b", {})
    is(digest.a.v, delta.a.version)
end

function tests.hot_reload()
    row()
    local old, env = net.peers.a.agent, net.peers.a
    local db = env.peerdb
    local new = start("a", { previous = old, peerdb = db })
    is(old.running, false)
    is(new.running, true)
    is(new.hosts, old.hosts)
    is(new.conns, old.conns)
    is(new.conn_state, old.conn_state)
    is(net.peers.a.peerdb, db)
    is(select(1, new._resolve_internal("hd", 1)) ~= nil, true)
end

function tests.calls_through_the_overlay()
    row()
    local a = net.peers.a.agent
    net.peers.b.rpc.hello = function(x) return "hello " .. x end
    is(select(2, a.rpcall("hb.internal:80", "hello", "a")), "hello a")
    is(a.rpcall("unknown.internal:80", "hello"), false)
end

function tests.statistics()
    row()
    local a = net.peers.a.agent
    local text = a.stats(60)
    is(text:match('^> Peers %(self="a"%) norelay probe=%d+s\n') ~= nil, true, text)
    is(text:find('"d"             : ', 1, true) ~= nil, true)
    is(text:find('"b"->"c"->"d"', 1, true) ~= nil, true)
    a.conns, a.conn_state = {}, {}
    a._build_index()
    is(a.stats():find("(unreachable)", 1, true) ~= nil, true)
    a.relay_cost = 0
    is(a.stats():find("relay", 1, true), nil, "a relay that is free says nothing")
end

function tests.updated_callback()
    row()
    local count = 0
    net.peers.a.agent.on_updated = function()
        count = count + 1
        error("ignored")
    end
    rounds(2)
    is(count, 2)
end

local names = {}
for name in pairs(tests) do table.insert(names, name) end
table.sort(names)
for i, name in ipairs(names) do
    tests[name]()
    print(string.format("ok %d - agent %s", i, name))
end
print(string.format("# %d checks", check.count))
