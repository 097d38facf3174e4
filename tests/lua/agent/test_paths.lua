-- agent_paths.lua by itself: against a search that tries every path.
local tap = require("tap")
local paths = require("agent_paths")
local tests = {}

local function conn(peer, rtt) return { peername = peer, rtt = rtt } end

local function text_of(route) return string.format("%s %g %g %d %s", route.id, route.cost, route.rtt, route.hops, table.concat(route.path, ">")) end

local function find(conns, entries, peer, hops_max)
    local way = paths.find("me", conns, entries, hops_max or 16)[peer]
    return way and text_of(paths.route_of(way))
end

function tests.nothing()
    tap.is(next(paths.find("me", {}, {}, 16)), nil, "without connections nobody is reached")
    tap.is(find({ x = conn("me", 1) }, {}, "me"), nil, "there is no way to ourselves")
end

function tests.one_hop()
    local conns = { slow = conn("a", 3), fast = conn("a", 1), other = conn("b", 2) }
    tap.is(find(conns, {}, "a"), "fast 0 1 1 a", "the faster of two connections")
    tap.is(find(conns, {}, "b"), "other 0 2 1 b", "a peer of which nothing is known")
end

function tests.relays()
    local entries = { a = { relay_cost = 2, conns = { conn("b", 1) } }, b = { conns = { conn("c", 1) } } }
    local conns = { x = conn("a", 1) }
    tap.is(find(conns, entries, "b"), "x 2 2 2 a>b", "by way of a relay, at its cost")
    tap.is(find(conns, entries, "c"), nil, "not by way of a peer that does not relay")
    entries.b.relay_cost = 0
    tap.is(find(conns, entries, "c"), "x 2 3 3 a>b>c", "by way of one that is free")
    tap.is(find(conns, entries, "c", 2), nil, "not by more hops than are allowed")
    tap.is(find(conns, entries, "c", 3), "x 2 3 3 a>b>c", "by as many as are")
end

function tests.order()
    local entries = {
        cheap = { relay_cost = 1, conns = { conn("z", 50) } },
        dear = { relay_cost = 2, conns = { conn("z", 1) } },
        far = { relay_cost = 1, conns = { conn("z", 49) } },
    }
    local conns = { c = conn("cheap", 1), d = conn("dear", 1), f = conn("far", 3) }
    tap.is(find(conns, entries, "z"), "c 1 51 2 cheap>z", "the cost comes first, then the round trip")
    entries.cheap.conns, entries.far.conns, conns.f = { conn("m", 0) }, { conn("z", 1) }, conn("far", 0)
    entries.m = { relay_cost = 0, conns = { conn("z", 0) } }
    tap.is(find(conns, entries, "z"), "f 1 1 2 far>z", "then the hops")
end

-- every path, without going in circles
local function search_all(conns, entries, hops_max)
    local best = {}
    local function visit(peer, id, cost, rtt, hops, seen)
        if peer == "me" or seen[peer] then return end
        local way = { cost = cost, rtt = rtt, hops = hops }
        if not best[peer] or paths.cheaper(way, best[peer]) then best[peer] = way end
        local entry = entries[peer]
        if not entry or not entry.relay_cost or hops >= hops_max then return end
        seen[peer] = true
        for _, c in pairs(entry.conns) do visit(c.peername, id, cost + entry.relay_cost, rtt + c.rtt, hops + 1, seen) end
        seen[peer] = nil
    end
    for id, c in pairs(conns) do visit(c.peername, id, 0, c.rtt, 1, {}) end
    return best
end

local function random_conns(names, count)
    local conns = {}
    for i = 1, count do conns["c" .. i] = conn(names[math.random(#names)], math.random(0, 4)) end
    return conns
end

function tests.random_graphs()
    local names, wrong, reached = { "me", "a", "b", "c", "d", "e", "f" }, 0, 0
    for _ = 1, 400 do
        local entries = {}
        for _, name in ipairs(names) do
            local cost = math.random() < 0.8 and math.random(0, 2) or nil
            if math.random() < 0.9 then entries[name] = { relay_cost = cost, conns = random_conns(names, math.random(0, 3)) } end
        end
        local conns = random_conns(names, 2)
        local ways, all = paths.find("me", conns, entries, 16), search_all(conns, entries, 16)
        for _, name in ipairs(names) do
            local way, best = ways[name], all[name]
            if (way == nil) ~= (best == nil) then wrong = wrong + 1 end
            if way and best and (paths.cheaper(way, best) or paths.cheaper(best, way)) then wrong = wrong + 1 end
            if way then reached = reached + 1 end
            local route = way and paths.route_of(way)
            local again = route and paths.measure(route, conns[route.id].rtt, entries)
            if route and (not again or paths.cheaper(again, route) or paths.cheaper(route, again)) then wrong = wrong + 1 end
        end
    end
    tap.is(wrong, 0, "ways are the cheapest of all paths, and cost what their paths cost")
    tap.near(reached, 400, 2400, "and there were many")
end

function tests.measure()
    local entries = { a = { relay_cost = 1, conns = { conn("b", 5), conn("b", 3) } } }
    local route = { id = "x", path = { "a", "b" }, cost = 9, rtt = 9, hops = 2 }
    tap.is(text_of(paths.measure(route, 2, entries)), "x 1 5 2 a>b", "a known path, as things are now")
    entries.a.relay_cost = nil
    tap.is(paths.measure(route, 2, entries), nil, "a relay that is none any more")
    entries.a = { relay_cost = 1, conns = { conn("c", 1) } }
    tap.is(paths.measure(route, 2, entries), nil, "a connection that is gone")
    tap.is(paths.measure(route, 2, {}), nil, "a peer that is gone")
end

return tests
