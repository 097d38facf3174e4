-- Peers that lie, flood, or talk nonsense.
local stubs, tap = require("stubs"), require("tap")
local is, ok = tap.is, tap.ok
local tests = {}

local function alone(settings)
    local w = stubs.new_world()
    local agent, env = w:node("a", settings or { hosts = { "ha" } })
    w:by_hand():round("a")
    local function with(changes)
        local entry = { version = 1, timestamp = w.now, hosts = {}, conns = {} }
        for key, value in pairs(changes or {}) do entry[key] = value end
        return entry
    end
    return w, agent, env, with
end

local function many(count, f)
    local t = {}
    for i = 1, count do t[i] = f(i) end
    return t
end

local function count(t)
    local n = 0
    for _ in pairs(t) do n = n + 1 end
    return n
end

function tests.entries()
    local _, _, env, with = alone()
    local bad = {
        ["a version in text"] = with({ version = "1" }), ["a version that is none"] = with({ version = 0 / 0 }),
        ["a broken version"] = with({ version = 1.5 }), ["a negative version"] = with({ version = -1 }),
        ["an endless version"] = with({ version = 1 / 0 }), ["a huge version"] = with({ version = math.maxinteger }),
        ["an endless timestamp"] = with({ timestamp = 1 / 0 }), ["a timestamp in text"] = with({ timestamp = "1700000000" }),
        ["a timestamp that is none"] = with({ timestamp = 0 / 0 }), ["hosts that are no table"] = with({ hosts = 5 }),
        ["connections that are no table"] = with({ conns = "x" }), ["too many hosts"] = with({ hosts = many(257, tostring) }),
        ["too many connections"] = with({ conns = many(257, function() return { peername = "x", rtt = 1 } end) }),
        ["a number"] = 7, ["a text"] = "x", ["nothing in it"] = {}, ["true"] = true,
    }
    for what, entry in pairs(bad) do
        env.rpc.sync("p", {}, { bad = entry })
        is(env.peerdb.bad, nil, "no entry: " .. what)
    end
    local names = { ["two.labels"] = 1, [("n"):rep(64)] = 1, [""] = 1, ["a b"] = 1, ["a\nb"] = 1, ["-x"] = 1, ["\0"] = 1, [5] = 1, [true] = 1 }
    for name in pairs(names) do env.rpc.sync("p", {}, { [name] = with() }) end
    is(count(env.peerdb), 1, "no names of peers, all of these")
    env.rpc.sync("p", {}, { [("n"):rep(63)] = with(), _x = with(), ["x-1_y"] = with() })
    is(count(env.peerdb), 4, "but these are")
end

function tests.parts_of_entries()
    local _, agent, env, with = alone()
    env.rpc.sync("p", {}, { ok = with({
        hosts = { "fine", "not fine", 5, ("h"):rep(64), "", "a..b", ".", "FINE", "x.y", ("a."):rep(127) .. "a", [300] = "far" },
        conns = {
            neg = { peername = "x", rtt = -1 }, nan = { peername = "x", rtt = 0 / 0 }, text = { peername = "x", rtt = "1" },
            far = { peername = "x", rtt = 1e9 }, bad = { peername = "y y", rtt = 1 }, none = {}, five = 5, [("i"):rep(64)] = { peername = "x", rtt = 1 },
            [true] = { peername = "x", rtt = 1 }, [1.5] = { peername = "x", rtt = 1 }, good = { peername = "z", rtt = 1 }, [7] = { peername = "z", rtt = 2 },
        },
        relay_cost = "free", extra = ("x"):rep(1000),
    }) })
    is(table.concat(env.peerdb.ok.hosts, " "), "fine x.y", "of hosts only those are kept that are some")
    is(count(env.peerdb.ok.conns), 2, "of connections too")
    is(env.peerdb.ok.relay_cost, nil, "a cost that is none is none")
    is(env.peerdb.ok.extra, nil, "what does not belong there is left out")
    for _, cost in ipairs({ -1, 0 / 0, 1 / 0, 1e9, true, {} }) do
        env.rpc.sync("p", {}, { ok = with({ version = env.peerdb.ok.version + 1, relay_cost = cost }) })
        is(env.peerdb.ok.relay_cost, nil, "no cost: " .. type(cost) .. " " .. (type(cost) == "table" and "" or tostring(cost)))
    end
    is(select(2, agent._build_index()).ok, nil, "and no route comes of it")
end

function tests.our_own_entry()
    local w, agent, env, with = alone()
    local mine, version = env.peerdb.a, env.peerdb.a.version
    env.rpc.sync("p", {}, { a = with({ version = version + 100, hosts = { "evil" } }) })
    is(env.peerdb.a, mine, "nobody speaks for us")
    is(env.peerdb.a.hosts[1], "ha", "our hosts are ours")
    w:round("a")
    ok(env.peerdb.a.version > version + 100, "a made up version of ours is overtaken")
    version = env.peerdb.a.version
    env.rpc.sync("p", { a = { v = version + 1000, t = w.now } }, {})
    w:round("a")
    ok(env.peerdb.a.version > version + 1000, "in a digest too")
    version = env.peerdb.a.version
    env.rpc.sync("p", { a = { v = 2 ^ 52, t = w.now } }, { a = with({ version = 2 ^ 52 }) })
    env.rpc.probe("p", { a = { v = math.maxinteger, t = w.now } })
    w:round("a")
    ok(env.peerdb.a.version < version + 10, "an impossible one is not run after")
    env.rpc.probe("a", {})
    is(env.events[#env.events], 'agent: another peer calls itself "a" too', "who has our name is reported")
    is(agent.running, true, "and changes nothing")
end

function tests.arguments()
    local _, _, env = alone()
    for i, bad in ipairs({ 5, "x", true, { z = 5 }, { [1] = {} }, { z = { v = "1", t = 2 } }, { z = { v = 1 } }, { a = { v = 0 / 0, t = 0 / 0 } } }) do
        is(env.rpc.sync("p", bad, bad), "a", "sync with nonsense, number " .. i)
        is(env.rpc.probe(bad, bad), "a", "probe with nonsense, number " .. i)
    end
    is(env.rpc.sync(), "a", "sync without arguments")
    is(env.rpc.probe(), "a", "probe without arguments")
    is(env.rpc.sync(("p"):rep(1e6), {}, {}), "a", "a name of a million letters")
    is(count(env.peerdb), 1, "nothing is kept of it")
end

function tests.huge()
    local w, _, env, with = alone()
    local flood = {}
    for i = 1, 1001 do flood["p" .. i] = with() end
    env.rpc.sync("p", {}, flood)
    is(count(env.peerdb), 1, "a delta of more than a thousand is refused")
    local digest = {}
    for i = 1, 100000 do digest["p" .. i] = { v = 1, t = 1 } end
    local began = os.clock()
    local _, delta = env.rpc.sync("p", digest, {})
    ok(os.clock() - began < 0.2, "a huge digest takes no time")
    ok(delta.a, "and counts as none")
    for i = 1, 1500 do env.rpc.sync("p", {}, { ["q" .. i] = with() }) end
    is(count(env.peerdb), 1000, "no more than a thousand peers are kept")
    ok(env.peerdb.a, "we among them")
    is(env.peerdb.q1500, nil, "who comes late is turned away")
    w.nodes.a.agent.conns.n = stubs.conn("n")
    w:node("n", { hosts = { "hn" } })
    w:by_hand():round("n")
    w:round("a")
    ok(env.peerdb.n, "but not a neighbour")
    is(count(env.peerdb), 1000, "for which another one goes")
    env.rpc.sync("p", {}, { n = with({ version = env.peerdb.n.version + 1, hosts = { "again" } }) })
    is(env.peerdb.n.hosts[1], "again", "who is known is renewed though all is full")
    is(count(env.peerdb), 1000, "and nobody goes for that")
    flood = {}
    for i = 1, 1000 do flood["q" .. i] = with({ version = 5, hosts = { "h" .. i } }) end
    began = os.clock()
    env.rpc.sync("p", {}, flood)
    ok(os.clock() - began < 0.3, "a thousand entries at once take no time")
end

function tests.heavy()
    local _, _, env, with = alone()
    local hosts = many(256, function(i) return (("x"):rep(60) .. "."):rep(4) .. "h" .. i end)
    local conns = many(256, function() return { peername = ("p"):rep(63), rtt = 1 } end)
    for i = 1, 400 do env.rpc.sync("p", {}, { ["q" .. i] = with({ hosts = hosts, conns = conns }) }) end
    local kept = count(env.peerdb)
    ok(kept > 50 and kept < 200, "large entries are kept up to a sum", tostring(kept))
    local _, delta = env.rpc.sync("p", {}, {})
    ok(count(delta) < 15, "and are sent in several calls", tostring(count(delta)))
    ok(delta.a, "our own entry with the first")
    local told, calls = {}, 0
    repeat
        _, delta = env.rpc.sync("p", told, {})
        for peer, entry in pairs(delta) do told[peer] = { v = entry.version, t = entry.timestamp } end
        calls = calls + 1
    until next(delta) == nil or calls > 100
    is(count(told), kept, "which bring all of them")
end

function tests.work_is_bounded()
    local w, agent, env, with = alone()
    local delta = {}
    for i = 1, 500 do
        local conns = many(100, function() return { peername = "p" .. math.random(500), rtt = math.random() } end)
        delta["p" .. i] = with({ conns = conns, relay_cost = 0 })
    end
    env.rpc.sync("p1", {}, delta)
    agent.conns.x = stubs.conn("p1")
    agent.conn_state.x = { peername = "p1", fails = 0, rtt_win = { { time = w.now, rtt = 1 } } }
    local builds = 0
    env.busy_clock = function() return os.clock() end
    local began = os.clock()
    agent._build_index()
    local once = os.clock() - began
    began = os.clock()
    for i = 1, 20 do
        env.rpc.sync("p", {}, { liar = with({ version = 1 + i, hosts = { "h" .. i } }) })
        agent.matcher("example.internal:80")
    end
    builds = (os.clock() - began) / once
    ok(builds < 10, "news between requests do not build an index each", string.format("%.1f times the time of one", builds))
end

function tests.answers()
    local w = stubs.new_world()
    local agent, env = w:node("a", { conns = { "b" } })
    local _, other = w:node("b", {})
    w:by_hand()
    for _, answer in ipairs({ 5, "two words", "a", ("n"):rep(100), true, {}, "x.y" }) do
        other.rpc.probe = function() return answer, { x = 5 } end
        agent.conn_state = {}
        w:round("a")
        is(agent.conn_state.b.fails, 1, "an answer to a probe that is a miss: " .. tostring(answer):sub(1, 9))
    end
    other.rpc.probe = function() end
    w:round("a")
    is(agent.conn_state.b.fails, 2, "no answer is one")
    for i, digest in ipairs({ 5, "x", { z = 1 }, { z = {} }, many(5000, function() return { v = 1, t = 1 } end) }) do
        other.rpc.probe = function() return "b", digest end
        w:round("a")
        is(agent.conn_state.b.fails, nil, "a digest of nonsense is an answer, number " .. i)
    end
    for _, delta in ipairs({ 5, "x", { z = 1 }, { [{}] = {} }, { z = { hosts = {} } } }) do
        other.rpc.sync = function() return "b", delta end
        w:round("a")
    end
    other.rpc.sync = function() error(("x"):rep(100000), 0) end
    agent.verbose = true
    w:round("a")
    is(count(env.peerdb), 1, "nothing is learnt from nonsense")
    ok(#env.events[#env.events] < 200, "errors of peers are cut short")
    agent.conn_state = {}
    other.rpc.probe = function() return "b", {} end
    w:round("a")
    is(agent.conn_state.b.peername, "b", "whoever talks sense again is a neighbour again")
end

function tests.names_that_lead_nowhere()
    local w = stubs.row({ "a", "b", "c" })
    w:rounds(4)
    local b, env = w.nodes.b.agent, w.nodes.b
    for _, addr in ipairs({
        ".internal:80", "..internal:80", "x..internal:80", ".relay.neosocksd.internal:80", "..relay.neosocksd.internal:80",
        "a..relay.neosocksd.internal:1", "%.internal:80", ("x."):rep(100) .. "internal:80", "relay.neosocksd.internal:80",
        "hc.c.c.c.c.c.relay.neosocksd.internal:80", "no port.internal", "x.b.relay.neosocksd.internal:80",
    }) do
        local action = b.matcher(addr)
        is(action == nil or action(addr) == nil or (action(addr)):find("internal", 1, true) ~= nil, true, "no harm comes of " .. addr:sub(1, 40))
    end
    local node = w:connect("a", "hc" .. (".b.c"):rep(30) .. ".b.relay.neosocksd.internal:80")
    is(node, nil, "a path in circles arrives nowhere")
    ok(#w.passed <= 1, "and is not followed", tostring(#w.passed))
    ok(#env.events > 0, "which is reported")
end

return tests
