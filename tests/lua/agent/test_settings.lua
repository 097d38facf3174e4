-- Settings that are fields of the agent, read when they are used; and the database, which is a global.
local stubs, tap = require("stubs"), require("tap")
local is, ok, has = tap.is, tap.ok, tap.has
local tests = {}

function tests.defaults()
    local agent = stubs.new_world():node("a")
    for name, value in pairs({
        API_ENDPOINT = "api.neosocksd.internal:80", INTERNAL_DOMAIN = ".internal", RELAY_DOMAIN = ".relay.neosocksd.internal",
        BOOTSTRAP_DELAY = 10, PROBE_INTERVAL_MIN = 10, PROBE_INTERVAL_MAX = 600, PROBE_INTERVAL_ACTIVE = 60, PROBE_BACKOFF = 1.5,
        PROBE_JITTER = 0.1, CONN_FAILURE_LIMIT = 2, RTT_WINDOW = 600, ROUTE_HYSTERESIS = 0.2, PEERDB_EXPIRY_TIME = 3600,
        PEERDB_EXPIRY_TOLERANCE = 600,
    }) do
        is(agent[name], value, name)
    end
end

local function counted(w, agent)
    local count = 0
    agent.on_updated = function() count = count + 1 end
    return function(seconds)
        count = 0
        w:run(seconds)
        return count
    end
end

function tests.intervals()
    local w = stubs.new_world()
    local agent = w:node("a", { conns = { "b" } })
    w:node("b", {})
    agent.BOOTSTRAP_DELAY, agent.PROBE_INTERVAL_MIN, agent.PROBE_INTERVAL_MAX, agent.PROBE_JITTER = 1, 2, 2, 0
    local rounds = counted(w, agent)
    is(rounds(0.5), 0, "the first round comes behind BOOTSTRAP_DELAY")
    is(rounds(1), 1, "as it was set behind require()")
    is(rounds(20), 10, "then every PROBE_INTERVAL_MIN to PROBE_INTERVAL_MAX")
    agent.PROBE_INTERVAL_MIN, agent.PROBE_INTERVAL_MAX = 10, 10
    rounds(10)
    is(rounds(50), 5, "whenever they are set")
    agent.PROBE_INTERVAL_MAX, agent.PROBE_BACKOFF = 600, 1
    is(rounds(100), 10, "PROBE_BACKOFF: how much more rarely")
    agent.PROBE_BACKOFF = 60
    rounds(20)
    is(rounds(600), 1, "at once, if it is large")
    agent.conns.b, agent.PROBE_INTERVAL_ACTIVE = stubs.conn("b"), 20
    w.nodes.b.agent.hosts = { "hb" }
    w:round("b")
    w:round("a")
    w:round("a")
    rounds(0)
    agent.matcher("hb.internal:1")
    is(rounds(21), 1, "PROBE_INTERVAL_ACTIVE: while the overlay is used")
end

function tests.failures_and_windows()
    local w = stubs.new_world()
    local agent = w:node("a", { conns = { "b" } })
    w:node("b", {})
    w:by_hand():rounds(2)
    agent.CONN_FAILURE_LIMIT = 3
    w:break_link("a", "b")
    w:rounds(2)
    ok(select(2, agent._build_index()).b, "two misses of three")
    w:rounds(1)
    is(select(2, agent._build_index()).b, nil, "CONN_FAILURE_LIMIT misses")
    w:mend_link("a", "b")
    agent.RTT_WINDOW, agent.conn_state.b = 25, nil
    w:set_delay("a", "b", 0.5)
    w:rounds(1)
    w:set_delay("a", "b", 2)
    w:rounds(2)
    is(math.floor(agent.conn_state.b.rtt_win[1].rtt * 10 + 0.5), 5, "RTT_WINDOW: the least of so many seconds")
    w:rounds(3)
    is(math.floor(agent.conn_state.b.rtt_win[1].rtt + 0.5), 2, "and no longer")
    ok(agent.conn_state.b.rtt_win[1].expiry > w.elapsed, "in the form of the original: { rtt, expiry }")
end

function tests.hysteresis_and_expiry()
    local w = stubs.new_world()
    w:node("a", { conns = { "b", "c" } })
    w:node("b", { conns = { "a", "d" }, relay_cost = 0 })
    w:node("c", { conns = { "a", "d" }, relay_cost = 0 })
    w:node("d", { conns = { "b", "c" } })
    w:set_delay("a", "c", 0.02)
    w:by_hand():rounds(4)
    local agent, env = w.nodes.a.agent, w.nodes.a
    is(select(2, agent._build_index()).d.path[1], "b", "the nearer one")
    agent.ROUTE_HYSTERESIS = 0.9
    agent.conn_state.c.rtt_win, agent.conn_state.b.rtt_win = agent.conn_state.b.rtt_win, agent.conn_state.c.rtt_win
    is(select(2, agent._build_index()).d.path[1], "b", "ROUTE_HYSTERESIS: what is little better moves nothing")
    agent.ROUTE_HYSTERESIS = 0.01
    is(select(2, agent._build_index()).d.path[1], "c", "as it is now")
    agent.PEERDB_EXPIRY_TIME, agent.PEERDB_EXPIRY_TOLERANCE = 20, 10
    env.rpc.sync("z", {}, { z = { version = 1, timestamp = w.now - 25, hosts = {}, conns = {} } })
    ok(env.peerdb.z, "PEERDB_EXPIRY_TIME and _TOLERANCE: so old an entry may be")
    env.rpc.sync("y", {}, { y = { version = 1, timestamp = w.now - 31, hosts = {}, conns = {} } })
    is(env.peerdb.y, nil, "and no older")
    w:rounds(2)
    is(env.peerdb.z, nil, "it is dropped then")
end

function tests.domains()
    local w = stubs.row({ "a", "b", "c" })
    for _, env in pairs(w.nodes) do
        env.agent.API_ENDPOINT, env.agent.INTERNAL_DOMAIN, env.agent.RELAY_DOMAIN = "rpc.mesh:1", ".mesh", ".Hop.test"
    end
    w:rounds(4)
    is((w.nodes.a.agent.matcher("hc.Mesh:5"))("x:1"), "hc.Hop.test:5", "RELAY_DOMAIN need not be below INTERNAL_DOMAIN")
    is(w:connect("a", "hc.mesh:5"), "c", "altogether it arrives")
    is(w.nodes.a.agent.matcher("hc.internal:5"), nil, "and the names of before are nobody's")
end

function tests.what_is_no_setting()
    local w = stubs.new_world()
    local agent, env = w:node("a", { conns = { "b" } })
    w:node("b", {})
    for name, value in pairs({
        PROBE_INTERVAL_MIN = "soon", PROBE_INTERVAL_MAX = 0 / 0, PROBE_BACKOFF = -1, CONN_FAILURE_LIMIT = 0, RTT_WINDOW = {},
        INTERNAL_DOMAIN = 5, PEERDB_EXPIRY_TIME = -1 / 0,
    }) do
        agent[name] = value
    end
    agent.PROBE_JITTER = nil
    w:run(5000)
    has(agent.stats(), "probe=600s", "counts as its default")
    local said = 0
    for _, event in ipairs(env.events) do
        if event:find("is no good", 1, true) then said = said + 1 end
    end
    is(said, 8, "which is said once for each")
end

-- a new file's defaults count, unless somebody has set something else
function tests.behind_an_update()
    local w = stubs.new_world()
    local agent, env = w:node("a")
    agent.RTT_WINDOW = 60
    env.agent_source = stubs.source:gsub("ROUTE_HYSTERESIS = 0.2,", "ROUTE_HYSTERESIS = 0.3,"):gsub("RTT_WINDOW = 600,", "RTT_WINDOW = 700,")
    local new = w:load(env)
    is(new.ROUTE_HYSTERESIS, 0.3, "the new file's default")
    is(new.RTT_WINDOW, 60, "what was set")
    env.agent = { PROBE_BACKOFF = 3, peername = "x" }
    is(w:load(env).PROBE_BACKOFF, 3, "what stood in the global before")
end

-- _G.peerdb is read when it is used: another table may be put in its place
function tests.another_database()
    local w = stubs.row({ "a", "b", "c" })
    w:rounds(4)
    local env, agent = w.nodes.a, w.nodes.a.agent
    local old = env.peerdb
    env.peerdb = {
        b = { version = 1, timestamp = w.now, hosts = { "other" }, conns = {}, relay_cost = 0 },
        bad = { version = "x" }, [5] = {}, worse = 7,
        bare = { version = 1, timestamp = w.now },
    }
    is((agent.matcher("other.internal:1"))("x:1"), "other.internal:1", "hosts of the new one are found at once")
    is(env.peerdb.bad or env.peerdb[5] or env.peerdb.worse, nil, "what is no entry is left out")
    is(#env.peerdb.bare.hosts, 0, "one without hosts has none")
    has(agent.stats(), '"bare"', "statistics show it")
    env.peerdb = nil
    local _, digest = env.rpc.probe("b", {})
    is(next(digest), nil, "of none nobody is told")
    is(type(env.peerdb), "table", "and there is one again")
    env.peerdb = old
    ok(select(2, env.rpc.probe("b", {})).c, "the old one serves again")
    env.peerdb = "x"
    w:rounds(4)
    is(w:connect("a", "hc.internal:1"), "c", "and what is lost is learnt again")
end

-- the original's agent may have run before, and may run behind us
function tests.windows_of_the_original()
    local w = stubs.new_world()
    local agent, env = w:node("a", { conns = { "b" } })
    w:node("b", {})
    w:by_hand()
    agent.conn_state.b = { peername = "b", rtt_win = { { rtt = 0.001, expiry = w.elapsed + 100 } } }
    local new = w:load(env)
    w:by_hand()
    is(new.conn_state.b.rtt_win[1].rtt, 0.001, "its measurements are kept")
    w:round("a")
    is(env.peerdb.a.conns.b.rtt, 0.001, "and used")
    is(new.conn_state.b.fails, nil, "a connection that is well has no count of misses")
end

return tests
