-- A new instance takes the place of the one that runs.
local stubs, tap = require("stubs"), require("tap")
local is, ok = tap.is, tap.ok
local tests = {}

local function meshed()
    local w = stubs.row({ "a", "b", "c" })
    w:rounds(4)
    return w, w.nodes.a.agent, w.nodes.a
end

-- as POST /ruleset/update?module=agent
local function update(w, env)
    local old = env.agent
    local new = w:load(env)
    if rawequal(env.agent, old) then env.agent = new end
    return new
end

function tests.inherits()
    local w, old, env = meshed()
    old.relay_cost, old.verbose, old.api_endpoint, old.mine = 4, true, "127.0.0.1:7", { 1 }
    old.on_updated = function() end
    local db = env.peerdb
    local new = update(w, env)
    ok(new ~= old, "an update makes a new instance")
    for _, key in ipairs({ "peername", "conns", "hosts", "api_endpoint", "relay_cost", "verbose", "on_updated", "conn_state", "mine" }) do
        is(new[key], old[key], "it inherits " .. key)
    end
    is(env.peerdb, db, "and what is known of peers")
    ok(new.matcher ~= old.matcher, "but no functions")
    is(old.running, false, "the old one is stopped")
    is(new.running, true, "the new one runs")
    is(env.agent, new, "the global is the new one")
    is(new._resolve_internal("hc", 1), "hc.relay.neosocksd.internal:1", "which knows the paths at once")
end

function tests.rules_follow()
    local w, old, env = meshed()
    env.chain_holder = old -- composite.subchain(agent, "chain") holds the table of its time
    local new = update(w, env)
    new.hosts = { "hb" }
    w:call(new.maintenance)
    is(old.chain[1][1]("hb.internal:1"), nil, "rules of the old instance ask the new one")
    is(w:connect("a", "hc.internal:1"), "c", "and lead on")
    local third = update(w, env)
    third.hosts = {}
    w:call(third.maintenance)
    ok(old.chain[1][1]("hb.internal:1"), "whichever is the newest")
end

function tests.the_loop_is_handed_over()
    local w = stubs.new_world()
    local _, env = w:node("a", { conns = { "b" } })
    w:node("b", {})
    w:run(1800)
    local new = update(w, env)
    local rounds = 0
    new.on_updated = function() rounds = rounds + 1 end
    w.calls = {}
    w:run(1.5)
    is(rounds, 1, "the new instance has a round soon")
    w:run(7200)
    is(w.calls.probe, rounds, "and is the only one that probes")
    for _ = 1, 50 do update(w, env) end
    w:run(10)
    ok(env.sleeps <= 2, "fifty updates leave no loops behind", tostring(env.sleeps))
end

function tests.calls_go_to_the_new_one()
    local w, old, env = meshed()
    local new = update(w, env)
    new.peername = "renamed"
    is(env.rpc.probe("b", {}), "renamed", "probes are answered by the new instance")
    is(old.peername, "a", "the old one keeps its settings")
end

function tests.one_that_fails_changes_nothing()
    local w, old, env = meshed()
    env.agent_source = "local agent = {}\nerror('broken')"
    ok(not pcall(update, w, env), "a file that raises is no update")
    is(old.running, true, "the old instance runs on")
    is(env.agent, old, "as the global")
    is(env.rpc.probe("b", {}), "a", "and answers")
end

function tests.during_a_round()
    local w, old, env = meshed()
    w:set_delay("a", "b", 3)
    local state = old.conn_state.b
    local before = #state.rtt_win
    coroutine.wrap(old.maintenance)()
    local new = update(w, env)
    new.stop()
    w:run(20)
    is(#state.rtt_win, before, "a round of the old instance that was under way notes nothing")
    is(old.maintenance(), false, "and has no successor")
end

function tests.settings_in_front()
    local w = stubs.new_world()
    local _, env = w:node("x")
    env.agent = { peername = "a", conns = { b = stubs.conn("b") }, hosts = { "h" }, relay_cost = 2 }
    local agent = w:load(env)
    is(agent.peername, "a", "a table that stood in the global is a set of settings")
    is(agent.relay_cost, 2, "with all its fields")
    is(agent.api_endpoint, "127.0.0.1:9080", "what it lacks has defaults")
    env.agent = 5
    is(type(w:load(env).conns), "table", "what is no table is nothing")
end

function tests.remains_of_other_versions()
    local w, old, env = meshed()
    old.conn_state.odd = 5
    old.conn_state.odder = { peername = "b", fails = "many" }
    old.conn_state.oddest = { peername = "b", fails = 0, rtt_win = { { rtt = "x", time = 1 } } }
    env.peerdb.odd = "x"
    env.peerdb.older = { version = 1, hosts = {} }
    env.peerdb[5] = env.peerdb.b
    local new = update(w, env)
    is(new.conn_state.odd or new.conn_state.odder or new.conn_state.oddest, nil, "states of another form are left out")
    ok(new.conn_state.b, "those of this form stay")
    is(env.peerdb.odd or env.peerdb.older or env.peerdb[5], nil, "entries of another form are left out")
    ok(env.peerdb.b, "those of this form stay too")
    w:rounds(1)
    ok(select(2, new._build_index()).c, "rounds go on")
    env.peerdb = "x"
    update(w, env)
    is(type(env.peerdb), "table", "a database that is none is made one")
end

return tests
