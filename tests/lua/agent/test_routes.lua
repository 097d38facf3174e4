-- Which way leads where, and what happens when ways break.
local stubs, tap = require("stubs"), require("tap")
local is, ok = tap.is, tap.ok
local tests = {}

local function path(w, from, to)
    local route = select(2, w.nodes[from].agent._build_index())[to]
    return route and table.concat(route.path, ">")
end

function tests.two_to_four_hops()
    local w = stubs.row({ "a", "b", "c", "d", "e" }, 2)
    w:rounds(6)
    is(path(w, "a", "b"), "b", "one hop")
    is(path(w, "a", "c"), "b>c", "two hops")
    is(path(w, "a", "d"), "b>c>d", "three hops")
    is(path(w, "a", "e"), "b>c>d>e", "four hops")
    is(path(w, "e", "a"), "d>c>b>a", "and back")
    local owners, routes = w.nodes.a.agent._build_index()
    is(routes.e.cost, 6, "relays add their cost")
    is(routes.b.cost, 0, "a neighbour costs nothing")
    tap.near(routes.e.rtt, 0.039, 0.041, "round trips add up")
    is(owners.he, "e", "hosts have owners")
    local node, addr = w:connect("a", "he.internal:443")
    is(node, "e", "a dial of four hops arrives")
    is(addr, "he.internal:443", "for the host itself")
    is(table.concat(w.passed, ">"), "b>c>d>e", "by the path")
end

function tests.cost_counts_before_round_trips()
    local w = stubs.new_world()
    w:node("a", { conns = { "b", "c" } })
    w:node("b", { conns = { "a", "d" }, relay_cost = 5 })
    w:node("c", { conns = { "a", "d" }, relay_cost = 1 })
    w:node("d", { conns = { "b", "c" } })
    w:set_delay("a", "c", 0.5)
    w:by_hand():rounds(4)
    is(path(w, "a", "d"), "c>d", "the cheaper relay, though it is far")
    w.nodes.c.agent.relay_cost = 5
    w:rounds(3)
    is(path(w, "a", "d"), "b>d", "among equals the nearer one")
    w.nodes.b.agent.relay_cost = 6
    w:rounds(3)
    is(path(w, "a", "d"), "c>d", "a change of cost moves it at once")
end

function tests.relay_cost_forms()
    for _, case in ipairs({ { nil, nil }, { -1, nil }, { 0, 0 }, { 7, 7 }, { 0.5, 0.5 }, { "1", nil }, { 0 / 0, nil }, { 1 / 0, nil } }) do
        local w = stubs.row({ "a", "b", "c" })
        w.nodes.b.agent.relay_cost = case[1]
        w:rounds(4)
        local route = select(2, w.nodes.a.agent._build_index()).c
        is(route and route.cost, case[2], "relay_cost " .. tostring(case[1]))
    end
    local w = stubs.row({ "a", "b", "c" })
    w.nodes.b.agent.relay_cost = nil
    w:rounds(4)
    ok(path(w, "a", "b"), "who relays for nobody is reached himself")
    local node, why = w:connect("a", "hc.internal:80")
    is(node, nil, "what is behind it is not")
    is(why, "connection failed", "the request is rejected")
    w.nodes.a.agent.relay_cost, w.nodes.b.agent.relay_cost = 0, 0
    w:rounds(3)
    is(path(w, "a", "c"), "b>c", "a relay that is free is one")
end

function tests.direct_before_relayed()
    local w = stubs.new_world()
    w:node("a", { conns = { "b", "c" } })
    w:node("b", { conns = { "c" }, relay_cost = 1 })
    w:node("c", { conns = { "b" } })
    w:set_delay("a", "c", 0.9)
    w:by_hand():rounds(3)
    is(path(w, "a", "c"), "c", "a direct way costs nothing")
    w.nodes.b.agent.relay_cost = 0
    w:rounds(3)
    is(path(w, "a", "c"), "b>c", "a free relay that is faster takes over")
end

-- a - b - d and a - c - d with equal costs
local function diamond()
    local w = stubs.new_world()
    w:node("a", { conns = { "b", "c" } })
    w:node("b", { conns = { "a", "d" }, relay_cost = 1 })
    w:node("c", { conns = { "a", "d" }, relay_cost = 1 })
    w:node("d", { conns = { "b", "c" } })
    w:set_delay("a", "b", 0.010)
    w:set_delay("a", "c", 0.030)
    w:set_delay("b", "d", 0.010)
    w:set_delay("c", "d", 0.010)
    w:by_hand():rounds(4)
    return w
end

function tests.hysteresis()
    local w = diamond()
    is(path(w, "a", "d"), "b>d", "the nearer of two")
    w:set_delay("a", "c", 0.008)
    w:rounds(2)
    is(path(w, "a", "d"), "b>d", "a tenth better is not worth a change")
    w:set_delay("a", "c", 0.003)
    w:rounds(2)
    is(path(w, "a", "d"), "c>d", "a third better is")
    w:set_delay("a", "b", 0.0025)
    w:rounds(2)
    is(path(w, "a", "d"), "c>d", "and then that one stays")
end

function tests.loss_and_recovery()
    local w = diamond()
    w:break_link("a", "b")
    w:rounds(1)
    is(w.nodes.a.agent.conn_state.b.fails, 1, "one miss is counted")
    is(path(w, "a", "d"), "b>d", "but moves nothing")
    w:rounds(1)
    is(w.nodes.a.agent.conn_state.b.fails, 2, "the second one")
    is(path(w, "a", "d"), "c>d", "takes the connection out")
    is(path(w, "a", "b"), nil, "the lost neighbour is not reached, as d relays for nobody")
    w.nodes.d.agent.relay_cost = 1
    w:rounds(3)
    is(path(w, "a", "b"), "c>d>b", "until it does")
    is(w:connect("a", "api.neosocksd.internal:80"), "a", "our own API is always there")
    w:rounds(3)
    is(w.nodes.a.agent.conn_state.b.fails, 2, "misses are not counted further")
    w:mend_link("a", "b")
    w:rounds(1)
    is(w.nodes.a.agent.conn_state.b.fails, nil, "one answer is enough")
    is(path(w, "a", "b"), "b", "to be a neighbour again")
end

function tests.a_link_far_away_breaks()
    local w = stubs.row({ "a", "b", "c", "d" })
    w:rounds(5)
    is(path(w, "a", "d"), "b>c>d", "reached")
    w:break_link("c", "d")
    w:rounds(4)
    is(path(w, "a", "d"), nil, "not reached when the last link is gone")
    tap.has((w.nodes.a.agent._resolve_internal("hd", 1)), 'peer "d" is not reachable', "which is said")
    w:mend_link("c", "d")
    w:rounds(3)
    is(path(w, "a", "d"), "b>c>d", "reached again")
end

function tests.two_connections_to_one_peer()
    local w = stubs.new_world()
    w:node("a", { conns = { slow = stubs.conn("b"), fast = { "socks5://c.test:1", "socks5://b.test:1" } } })
    w:node("b", {})
    w:node("c", {})
    w:set_delay("a", "b", 0.2)
    w:by_hand():rounds(2)
    is(select(2, w.nodes.a.agent._build_index()).b.id, "fast", "the faster one, by way of a proxy that is no peer")
    w.nodes.a.agent.conns.fast = nil
    w:rounds(1)
    is(select(2, w.nodes.a.agent._build_index()).b.id, "slow", "a connection that is taken away is not used")
    is(w.nodes.a.agent.conn_state.fast, nil, "nor remembered")
    w.nodes.a.agent.conns.slow = stubs.conn("c")
    w:round("a")
    is(w.nodes.a.agent.conn_state.slow.peername, "c", "another chain under the same id is another connection")
end

function tests.one_host_at_two_peers()
    local w = stubs.new_world()
    w:node("a", { conns = { "b", "c" } })
    w:node("b", { hosts = { "twice", "own" } })
    w:node("c", { hosts = { "twice" } })
    w:set_delay("a", "b", 0.3)
    w:by_hand():rounds(3)
    local owners = w.nodes.a.agent._build_index()
    is(owners.twice, "c", "the nearer one has it")
    w:break_link("a", "c")
    w:rounds(2)
    owners = w.nodes.a.agent._build_index()
    is(owners.twice, "b", "or the one that is reachable")
    w.nodes.a.agent.hosts = { "own" }
    w:rounds(1)
    owners = w.nodes.a.agent._build_index()
    is(owners.own, "a", "our own before all")
end

function tests.what_was_measured_over_something_else()
    local w = stubs.new_world()
    local agent = w:node("a", { conns = { "b" } })
    local other = w:node("b", {})
    w:node("c", {})
    w:set_delay("a", "c", 0.3)
    w:by_hand():rounds(2)
    agent.conns.b = { "socks5://c.test:1", "socks5://b.test:1" }
    w:round("a")
    tap.near(agent.conn_state.b.rtt_win[1].rtt, 0.3, 0.32, "another chain to the same peer is measured anew")
    agent.conns.b = stubs.conn("b")
    w:round("a")
    other.peername = "new"
    w:set_delay("a", "b", 0.2)
    w:round("a")
    is(agent.conn_state.b.peername, "new", "a peer of another name behind the same chain")
    tap.near(agent.conn_state.b.rtt_win[1].rtt, 0.19, 0.21, "is measured anew too")
end

function tests.our_own_hosts_before_all()
    local w = stubs.new_world()
    local agent, env = w:node("a", { hosts = { "own" } })
    w:by_hand()
    for i = 1, 30 do
        local peer = "p" .. i
        env.rpc.sync(peer, {}, { [peer] = { version = 1, timestamp = w.now, hosts = { "own" }, conns = {} } })
        agent.conns[i] = stubs.conn(peer)
        agent.conn_state[i] = { peername = peer, fails = 0, rtt_win = { { time = w.now, rtt = i } } }
    end
    w:round("a")
    local owners = agent._build_index()
    is(owners.own, "a", "of thirty that claim a host of ours we have it")
end

-- the least path of every peer, found the plain way: by asking all paths
local function model(entries, own, self)
    local best = {}
    local function better(cost, rtt, old) return not old or cost < old.cost or (cost == old.cost and rtt < old.rtt) end
    local changed = true
    for _, conn in pairs(own) do
        if better(0, conn.rtt, best[conn.peername]) then best[conn.peername] = { cost = 0, rtt = conn.rtt } end
    end
    while changed do
        changed = false
        for peer, way in pairs(best) do
            local e = entries[peer]
            for _, conn in pairs(e and e.relay_cost and e.conns or {}) do
                local cost, rtt = way.cost + e.relay_cost, way.rtt + conn.rtt
                if conn.peername ~= self and better(cost, rtt, best[conn.peername]) then
                    best[conn.peername], changed = { cost = cost, rtt = rtt }, true
                    break
                end
            end
            if changed then break end
        end
    end
    return best
end

-- Peers in a space of integers, so that sums are exact.
local function random_overlay(count, degree)
    local w = stubs.new_world()
    local agent, env = w:node("self", {})
    w:by_hand():round("self")
    local delta = {}
    for i = 1, count do
        local conns = {}
        for k = 1, degree do conns[k] = { peername = "p" .. math.random(count), rtt = math.random(1, 100) } end
        delta["p" .. i] = {
            version = 1, timestamp = w.now, hosts = { "h" .. i }, conns = conns,
            relay_cost = math.random(4) > 1 and math.random(0, 3) or nil,
        }
    end
    env.rpc.sync("p1", {}, delta)
    for i = 1, 3 do
        agent.conns[i] = stubs.conn("p" .. i)
        agent.conn_state[i] = { peername = "p" .. i, fails = 0, rtt_win = { { time = w.now, rtt = i * 10 } } }
    end
    return agent, env
end

function tests.against_a_model()
    for round = 1, 8 do
        local agent, env = random_overlay(40, 3)
        local own = {}
        for id, state in pairs(agent.conn_state) do own[id] = { peername = state.peername, rtt = state.rtt_win[1].rtt } end
        local expected, routes, wrong = model(env.peerdb, own, "self"), select(2, agent._build_index()), nil
        for peer, way in pairs(expected) do
            local route = routes[peer]
            if not route or route.cost ~= way.cost or route.rtt ~= way.rtt then wrong = peer end
        end
        for peer in pairs(routes) do
            if not expected[peer] then wrong = peer end
        end
        is(wrong, nil, "the least ways of a random overlay, number " .. round)
    end
end

function tests.hundreds_of_peers()
    local agent = random_overlay(400, 60)
    local began = os.clock()
    local _, routes = agent._build_index()
    local took, count = os.clock() - began, 0
    for _ in pairs(routes) do count = count + 1 end
    ok(count > 350, "400 peers with 60 connections each are found")
    ok(took < 0.5, "in less than half a second", string.format("%.3f s", took))
    print(string.format("# %d peers, %.1f ms", count, took * 1e3))
end

function tests.no_path_is_longer_than_sixteen_hops()
    local names = {}
    for i = 1, 20 do names[i] = "n" .. i end
    local w = stubs.row(names, 0)
    w:rounds(21)
    local _, routes = w.nodes.n1.agent._build_index()
    is(#routes.n17.path, 16, "sixteen hops are")
    is(routes.n18, nil, "seventeen are not")
    is(w:connect("n1", "hn17.internal:1"), "n17", "and they are dialled")
end

function tests.no_path_is_longer_than_a_name()
    local names = {}
    for i = 1, 6 do names[i] = ("n"):rep(59) .. i end
    local w = stubs.row(names, 0)
    w:rounds(7)
    is(w:connect(names[1], "h" .. names[4] .. ".internal:1"), names[4], "labels of four long names fit a name")
    is(w:connect(names[1], "h" .. names[6] .. ".internal:1"), nil, "those of six do not")
    tap.has((w.nodes[names[1]].agent._resolve_internal("h" .. names[6], 1)), "is too long", "which is said")
end

return tests
