-- When rounds happen: the loop under a clock that is moved by hand.
local stubs, tap = require("stubs"), require("tap")
local is, near = tap.is, tap.near
local tests = {}

-- when the peer begins its rounds, in seconds since the beginning of the world
local function watch(agent, w)
    local times = {}
    agent.on_updated = function() table.insert(times, w.elapsed) end
    return times
end

local function pair(settings)
    local w = stubs.new_world()
    local agent, env = w:node("a", settings or { conns = { "b" }, hosts = { "ha" } })
    local other = w:node("b", { hosts = { "hb" } })
    return w, agent, env, watch(agent, w), other
end

-- Time passes until rounds are rare, and one has just been: the next is more than 500 seconds away.
local function quiet(w, times)
    w:run(7200)
    local before = #times
    while #times == before do w:run(1) end
    return #times
end

function tests.the_first_round_waits()
    local w, _, _, times = pair()
    w:run(8.9)
    is(#times, 0, "what follows require has time to set things up")
    w:run(1.2)
    is(#times, 1, "then the first round comes")
end

function tests.backs_off()
    local w, agent, _, times = pair()
    w:run(3600)
    near(times[2] - times[1], 8.9, 11.2, "ten seconds after the first, which has found much")
    local slower = 0
    for i = 3, 8 do
        if times[i + 1] and times[i + 1] - times[i] > times[i] - times[i - 1] then slower = slower + 1 end
    end
    is(slower >= 5, true, "then ever more slowly")
    w:run(7200)
    local last = times[#times] - times[#times - 1]
    near(last, 530, 670, "up to ten minutes")
    near(#times, 18, 40, "few rounds in three hours")
    agent.hosts = { "other" }
    w:run(1300)
    local quick = times[#times] - times[#times - 1]
    near(quick, 1, 500, "a change makes them come often again")
end

function tests.jitter()
    local w, _, _, times = pair()
    w:run(36000)
    local seen, most, least = {}, 0, math.huge
    for i = #times - 20, #times do
        local gap = times[i] - times[i - 1]
        seen[math.floor(gap)] = true
        most, least = math.max(most, gap), math.min(least, gap)
    end
    local count = 0
    for _ in pairs(seen) do count = count + 1 end
    is(count > 5, true, "rounds have jitter")
    near(least, 539, 600, "of a tenth less")
    near(most, 600, 661, "or more")
end

function tests.traffic_keeps_it_awake()
    local w, agent, _, times = pair()
    local before = quiet(w, times)
    for _ = 1, 60 do
        agent.matcher("hb.internal:80")
        w:run(10)
    end
    near(#times - before, 8, 13, "in use there is a round a minute")
    w:run(7200)
    near(times[#times] - times[#times - 1], 530, 670, "out of use there is not")
    before = quiet(w, times)
    for _ = 1, 60 do
        agent.matcher("api.neosocksd.internal:80")
        agent.matcher("example.com:80")
        w:run(10)
    end
    near(#times - before, 0, 1, "probes of others and other traffic are no use of it")
end

function tests.failed_dials()
    local w, agent, env, times = pair()
    local before = quiet(w, times)
    env.upstream_failures = 5
    w:run(30)
    is(#times, before, "failures of other traffic move nothing")
    agent.matcher("hb.internal:80")
    w:run(6)
    env.upstream_failures = 6
    w:run(12)
    near(#times - before, 1, 2, "failures in use bring rounds")
    before = quiet(w, times)
    w:break_link("a", "b")
    w:call(agent.rpcall, "hb.internal:80", "x")
    w:run(18)
    near(#times - before, 1, 2, "a call that does not get there does too")
end

function tests.misses()
    local w, agent, _, times = pair()
    local before = quiet(w, times)
    w:break_link("a", "b")
    w:run(680)
    near(times[before + 2] - times[before + 1], 8, 12, "behind a miss a round comes soon")
    is(agent.conn_state.b.fails, 2, "and misses again")
    w:run(7200)
    near(times[#times] - times[#times - 1], 530, 670, "what stays dead does not keep us busy")
end

function tests.who_is_back_is_heard()
    local w, agent, env, times, other = pair()
    w:run(30)
    w.nodes.b.agent.stop()
    quiet(w, times)
    is(agent.conn_state.b.fails, 2, "a peer that has stopped is missed")
    other.running = true
    local before = #times
    env.rpc.probe("stranger", {})
    w:run(18)
    is(#times, before, "the call of another one brings no round")
    env.rpc.probe("b", {})
    w:run(18)
    is(#times > before, true, "its own call does")
    is(agent.conn_state.b.fails, nil, "and the round finds it")
end

function tests.news_of_others()
    local w, _, env, times = pair()
    local before = quiet(w, times)
    env.rpc.sync("z", {}, { z = { version = 1, timestamp = w.now, hosts = { "hz" }, conns = {} } })
    is(#times, before, "news cause no round at once")
    w:run(12)
    is(#times - before, 1, "but soon")
    before = quiet(w, times)
    for i = 1, 600 do
        env.rpc.sync("z", {}, { z = { version = 1 + i, timestamp = w.now, hosts = { "h" .. i }, conns = {} } })
        w:run(0.1)
    end
    near(#times - before, 4, 8, "a flood of news causes no flood of rounds")
    w:run(2500)
    before = #times
    while #times == before do w:run(1) end
    before = #times
    for i = 1, 60 do
        env.rpc.sync("z", {}, { z = { version = 1000 + i, timestamp = w.now, hosts = { "h600" }, conns = {} } })
        w:run(1)
    end
    is(#times, before, "a version that changes nothing is no news")
end

function tests.wake()
    local w, agent, env, times = pair()
    agent.wake()
    w:run(0.1)
    is(#times, 1, "wake brings a round at once")
    w:run(3600)
    local before = #times
    agent.wake()
    w:run(0.1)
    is(#times - before, 1, "at any time")
    before = #times
    for _ = 1, 200 do
        agent.wake()
        w:run(0.05)
    end
    is(#times - before > 10, true, "often, if it must be")
    w:run(6)
    is(env.sleeps, 1, "and leaves no sleepers behind")
end

function tests.wake_within_a_round()
    local w, agent, _, times = pair()
    agent.on_updated = function()
        table.insert(times, w.elapsed)
        agent.wake()
    end
    w:run(60)
    near(#times, 20, 60, "a callback that wakes has a round a second, no more")
end

function tests.one_round_at_a_time()
    local w, agent, _, times = pair()
    w:set_delay("a", "b", 4)
    agent.wake()
    is(agent.maintenance(), false, "a round beside another is none")
    w:run(9)
    is(#times, 1, "the first one is not disturbed")
    is(w.calls.probe, 1, "and probes once")
end

function tests.probes_go_out_together()
    local w = stubs.new_world()
    local agent = w:node("a", { conns = { "b", "c", "d", "e" } })
    for _, name in ipairs({ "b", "c", "d", "e" }) do
        w:node(name, {})
        w:set_delay("a", name, 2)
    end
    w:by_hand()
    local began = w.elapsed
    w:round("a")
    near(w.elapsed - began, 3.9, 4.2, "four probes take as long as one, and so do four synchronisations")
    local near_two = 0
    for _, state in pairs(agent.conn_state) do near_two = near_two + (math.abs(state.rtt_win[1].rtt - 2) < 0.02 and 1 or 0) end
    is(near_two, 4, "each has its round trip")
end

function tests.window_of_round_trips()
    local w = stubs.row({ "a", "b" })
    local agent = w.nodes.a.agent
    local function rtt() return agent.conn_state.b.rtt_win[1].rtt end
    for _, seconds in ipairs({ 0.05, 0.02, 0.08, 0.04 }) do
        w:set_delay("a", "b", seconds)
        w:round("a")
        w:run(200)
    end
    near(rtt(), 0.019, 0.021, "the least of the window counts")
    w:round("a")
    near(rtt(), 0.039, 0.041, "until it is ten minutes old")
    for _ = 1, 1000 do
        w:set_delay("a", "b", 0.01 + math.random() / 10)
        w:round("a")
    end
    is(#agent.conn_state.b.rtt_win < 200, true, "the window holds only what may become the least")
end

function tests.stop()
    local w, agent, env, times = pair()
    w:run(15)
    local before = #times
    agent.stop()
    is(agent.running, false, "a stopped agent does not run")
    w:run(7200)
    is(#times, before, "and has no rounds")
    is(agent.maintenance(), false, "not even by hand")
    is(env.sleeps, 0, "it leaves no sleepers behind")
    tap.raises("no peer of an overlay", "it answers no probes", env.rpc.probe, "b", {})
end

function tests.stop_within_a_round()
    local w, agent, env, times = pair()
    w:set_delay("a", "b", 4)
    agent.wake()
    agent.stop()
    w:run(100)
    is(#times, 0, "a round under way ends without effect")
    is(next(agent.conn_state), nil, "and notes nothing")
    is(env.peerdb.b, nil, "and learns nothing")
end

function tests.callback()
    local w, agent, env = pair()
    local count = 0
    agent.on_updated = function()
        count = count + 1
        error("on purpose", 0)
    end
    agent.wake()
    w:run(0.1)
    is(count, 1, "on_updated is called behind a round")
    is(env.events[#env.events], "agent.on_updated: on purpose", "its error is an event")
    w:run(30)
    is(count > 1, true, "and ends nothing")
    agent.on_updated = function() env.await.sleep(5) end
    agent.wake()
    w:run(30)
    is(agent.running, true, "it may await something")
end

function tests.settings_that_are_wrong()
    local w = stubs.new_world()
    local agent, env = w:node("a", { conns = { "b" } })
    w:node("b", {})
    w:by_hand()
    agent.peername = nil
    w:round("a")
    w:round("a")
    is(w.calls.probe, nil, "without a name nobody is probed")
    is(#env.events, 1, "which is said once")
    tap.raises("no peer of an overlay", "nor answered", env.rpc.probe, "b", {})
    agent.peername = "two.labels"
    w:round("a")
    is(env.peerdb["two.labels"], nil, "a name with dots is none")
    agent.peername, agent.hosts = "a", { "good", "not good", "good" }
    w:round("a")
    is(#env.peerdb.a.hosts, 1, "hosts that are none are left out")
    tap.has(env.events[#env.events], "agent.hosts", "and reported")
    agent.hosts, agent.conns = {}, { bad = { "no proxy" }, worse = 5, b = stubs.conn("b") }
    w:round("a")
    is(agent.conn_state.bad.fails, 1, "a chain that is none is a miss")
    is(agent.conn_state.worse.fails, 1, "whatever it is")
    is(agent.conn_state.b.fails, nil, "and hinders no other")
    local many = {}
    for i = 1, 300 do many["c" .. i] = stubs.conn("b") end
    agent.conns = many
    w:round("a")
    w:round("b")
    local count = 0
    for _ in pairs(env.peerdb.a.conns) do count = count + 1 end
    is(count, 256, "of very many connections others are told as many as they accept")
end

return tests
