-- What peers know of each other: entries, digests, versions, times.
local stubs, tap = require("stubs"), require("tap")
local is, ok = tap.is, tap.ok
local tests = {}

local function entry(w, changes)
    local e = { version = math.floor(w.now), timestamp = w.now, hosts = {}, conns = {} }
    for key, value in pairs(changes or {}) do e[key] = value end
    return e
end

local function alone(settings)
    local w = stubs.new_world()
    local agent, env = w:node("a", settings or {})
    w:by_hand():round("a")
    return w, agent, env
end

function tests.mesh_of_five()
    local w = stubs.new_world()
    local names = { "a", "b", "c", "d", "e" }
    for i, name in ipairs(names) do w:node(name, { conns = { names[i % 5 + 1] }, hosts = { "h" .. name }, relay_cost = i }) end
    w:by_hand():rounds(6)
    local known = 0
    for _, name in ipairs(names) do
        for _, other in ipairs(names) do known = known + (w.nodes[name].peerdb[other] and 1 or 0) end
    end
    is(known, 25, "in a ring of five all know all")
    is(w.nodes.a.peerdb.d.hosts[1], "hd", "with their hosts")
    is(w.nodes.a.peerdb.d.relay_cost, 4, "with their cost")
    is(w.nodes.a.peerdb.d.conns.e.peername, "e", "with their connections")
    tap.near(w.nodes.a.peerdb.d.conns.e.rtt, 0.009, 0.011, "and the round trips of these")
end

function tests.digest()
    local _, _, env = alone({ hosts = { "ha" } })
    local name, digest = env.rpc.probe("b", {})
    is(name, "a", "probe answers with the own name")
    is(digest.a.v, env.peerdb.a.version, "a digest has versions")
    is(digest.a.t, env.peerdb.a.timestamp, "and timestamps")
    is(next(digest, next(digest)), nil, "and nothing else")
    is(math.type(digest.a.v), "integer", "versions are integers")
end

function tests.delta()
    local w, _, env = alone({ hosts = { "ha" } })
    local name, delta = env.rpc.sync("b", {}, {})
    is(name, "a", "sync answers with the own name")
    is(delta.a.hosts[1], "ha", "and with what the caller lacks")
    local known = { a = { v = delta.a.version, t = delta.a.timestamp } }
    is(next(select(2, env.rpc.sync("b", known, {}))), nil, "not with what it has")
    known.a.v = known.a.v - 1
    is(next(select(2, env.rpc.sync("b", known, {}))), "a", "but with a newer version")
    known.a.v, known.a.t = delta.a.version, delta.a.timestamp - 1
    is(next(select(2, env.rpc.sync("b", known, {}))), "a", "or a newer timestamp")
    known.a.v, known.a.t = delta.a.version + 1, 0
    is(next(select(2, env.rpc.sync("b", known, {}))), nil, "a newer version counts before the timestamp")
    local _, back = env.rpc.sync("b", { b = { v = math.floor(w.now), t = w.now } }, { b = entry(w) })
    is(back.b, nil, "what the caller has just told does not come back")
    is(env.peerdb.b ~= nil, true, "it is kept")
end

function tests.newer_wins()
    local w, _, env = alone()
    local function tell(changes) env.rpc.sync("z", {}, { z = entry(w, changes) }) end
    tell({ version = 10, hosts = { "first" } })
    tell({ version = 9, hosts = { "older" }, timestamp = w.now })
    is(env.peerdb.z.hosts[1], "first", "an older version is ignored")
    w:run(5)
    tell({ version = 10, hosts = { "other" } })
    is(env.peerdb.z.timestamp, w.now, "the same version renews the timestamp")
    is(env.peerdb.z.hosts[1], "first", "and changes nothing else")
    tell({ version = 11, hosts = { "second" } })
    is(env.peerdb.z.hosts[1], "second", "a newer version replaces")
    tell({ version = 12, hosts = { "third" }, timestamp = w.now - 100 })
    is(env.peerdb.z.hosts[1], "third", "even with an older timestamp")
end

function tests.expiry()
    local w, agent, env = alone()
    env.rpc.sync("z", {}, { z = entry(w) })
    local told = w.now
    w:run(4199)
    w:round("a")
    ok(env.peerdb.z, "an entry lives for 4200 seconds")
    w:run(told + 4200 - w.now)
    env.agent.maintenance()
    ok(env.peerdb.z, "to the last")
    w:run(0.5)
    is(select(2, env.rpc.probe("b", {})).z, nil, "an expired one is told to nobody")
    is(select(2, env.rpc.sync("b", {}, {})).z, nil, "nor sent")
    w:round("a")
    is(env.peerdb.z, nil, "and is dropped")
    ok(env.peerdb.a, "our own never is")
    env.rpc.sync("y", {}, { y = entry(w, { timestamp = w.now - 4200.5 }) })
    is(env.peerdb.y, nil, "what has expired elsewhere is not taken")
    env.rpc.sync("y", {}, { y = entry(w, { timestamp = w.now - 4199 }) })
    ok(env.peerdb.y, "what has nearly expired is")
    is(agent.running, true, "the agent runs")
end

function tests.renewal()
    local w = stubs.row({ "a", "b", "c" })
    w:rounds(4)
    local version = w.nodes.c.peerdb.a.version
    for _ = 1, 12 do
        w:run(590)
        w:rounds(1)
    end
    ok(w.nodes.c.peerdb.a, "who is there is renewed for hours")
    is(w.nodes.c.peerdb.a.version, version, "without a new version")
    w.nodes.a.agent.stop()
    for _ = 1, 9 do
        w:run(590)
        for _, name in ipairs({ "b", "c" }) do w:round(name) end
    end
    is(w.nodes.c.peerdb.a, nil, "who is gone is forgotten everywhere")
end

function tests.clocks()
    local w, _, env = alone()
    env.rpc.sync("z", {}, { z = entry(w, { timestamp = w.now + 1e6 }) })
    is(env.peerdb.z.timestamp, w.now, "a timestamp of the future counts as now")
    env.rpc.sync("y", {}, { y = entry(w, { version = math.floor(w.now) + 86400 }) })
    ok(env.peerdb.y, "a clock may run ahead by a day")
    env.rpc.sync("x", {}, { x = entry(w, { version = math.floor(w.now) + 400 * 86400 }) })
    is(env.peerdb.x, nil, "but not by more than a year")
    local v = stubs.row({ "a", "b", "c" })
    v.nodes.b.clock_error = 3600
    v.nodes.c.clock_error = -1200
    v:rounds(6)
    local _, routes = v.nodes.a.agent._build_index()
    ok(routes.c, "peers with wrong clocks mesh")
    ok(select(2, v.nodes.c.agent._build_index()).a, "in both directions")
    is(v.nodes.a.peerdb.b.timestamp <= v.now, true, "no timestamp is from the future")
end

-- an agent of neosocksd leaves its own entry as it is until something changes: who gets its answers keeps it alive
function tests.a_peer_that_renews_nothing()
    local w = stubs.new_world()
    local agent, env = w:node("a", { conns = { "b" } })
    local _, other = w:node("b", { hosts = { "hb" } })
    w:node("c", { conns = { "a" } })
    local old = { version = 1, timestamp = w.now, hosts = { "hb" }, conns = {} }
    other.rpc.probe = function() return "b", { b = { v = 1, t = old.timestamp } } end
    other.rpc.sync = function() return "b", { b = old } end
    w:run(9000)
    ok(env.peerdb.b, "its entry stays, as long as it answers")
    is((agent.matcher("hb.internal:1"))("x:1"), "hb.internal:1", "and its hosts are found")
    ok(w.nodes.c.peerdb.b and w.nodes.c.peerdb.b.timestamp > w.now - 3600, "by others too")
    w:break_link("a", "b")
    w:run(9000)
    is(env.peerdb.b, nil, "and no longer")
end

function tests.own_version()
    local w = stubs.row({ "a", "b", "c" })
    w:rounds(4)
    local a, db = w.nodes.a.agent, w.nodes.a.peerdb
    local function raised(name, change, rises)
        local before = db.a.version
        change()
        w:rounds(1)
        is(db.a.version > before, rises, name)
    end
    tap.near(db.a.version, 1700000000, 1700000100, "a version is a time")
    raised("no change, no version", function() end, false)
    is(db.a.timestamp > 1700000040, true, "but a new timestamp")
    raised("a new host", function() a.hosts = { "ha", "more" } end, true)
    raised("a cost", function() a.relay_cost = 3 end, true)
    raised("a negative cost is none", function() a.relay_cost = -1 end, true)
    raised("nil is the same", function() a.relay_cost = nil end, false)
    raised("a round trip a tenth less", function() w:set_delay("a", "b", 0.0091) end, false)
    raised("a fifth less", function() w:set_delay("a", "b", 0.0079) end, true)
    raised("a longer one is not the least of the window", function() w:set_delay("a", "b", 0.5) end, false)
    w:run(601)
    raised("until the window has passed", function() end, true)
    raised("a lost connection is missed once", function() w:break_link("a", "b") end, false)
    raised("and is lost when missed twice", function() end, true)
    is(next(db.a.conns), nil, "the entry has it no more")
    raised("a new one", function() w:mend_link("a", "b") end, true)
    local last = db.a.version
    db.a.version = math.floor(w.now) + 1000
    a.hosts = {}
    w:rounds(1)
    is(db.a.version > last and db.a.version >= 1700001000, true, "a version never falls, whatever the clock says")
end

function tests.restart_with_an_old_clock()
    local w = stubs.row({ "a", "b" })
    w:rounds(3)
    local before = w.nodes.b.peerdb.a.version
    local _, env = w:node("a", { conns = { "b" }, hosts = { "new" }, relay_cost = 2 })
    w:by_hand()
    env.clock_error = -3000
    env.peerdb.a = nil
    w:rounds(2)
    ok(env.peerdb.a.version > before, "a newer version that others know is overtaken")
    is(w.nodes.b.peerdb.a.hosts[1], "new", "so that they learn what is new")
end

function tests.a_call_only_when_it_is_worth_it()
    local w = stubs.row({ "a", "b" })
    w:rounds(4)
    w.calls = {}
    w:round("a")
    w:run(10)
    w:round("a")
    is(w.calls.probe, 2, "each round probes")
    is(w.calls.sync, nil, "timestamps a few seconds apart are not synchronised")
    w:run(70)
    w:round("a")
    is(w.calls.sync, 1, "a minute apart they are")
end

return tests
