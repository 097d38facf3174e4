-- The cheapest ways to all peers: Dijkstra over (relay cost, round trip, hops).
--
-- entries: peer -> { relay_cost = number or nil, conns = { [id] = { peername, rtt } } }; without a cost it relays for nobody.
local heap = require("agent_heap")

local paths = {}

-- of two ways, or routes: { cost, rtt, hops }
local function cheaper(a, b)
    if a.cost ~= b.cost then return a.cost < b.cost end
    if a.rtt ~= b.rtt then return a.rtt < b.rtt end
    return a.hops < b.hops
end
paths.cheaper = cheaper

-- A way: { peer, before = the way to the hop in front, id = our connection, cost, rtt, hops }. Most offers lose, so that a
-- way is made only of one that wins.
local function offer(search, peer, before, id, cost, rtt, hops)
    local rival = search.best[peer]
    if peer == search.own then return end
    if rival then
        if cost > rival.cost then return end
        if cost == rival.cost and (rtt > rival.rtt or (rtt == rival.rtt and hops >= rival.hops)) then return end
    end
    local way = { peer = peer, before = before, id = id, cost = cost, rtt = rtt, hops = hops }
    search.best[peer] = way
    heap.push(search.open, way, cheaper)
end

local function extend(search, way)
    local entry = search.entries[way.peer]
    if not entry or not entry.relay_cost or way.hops >= search.hops_max then return end -- nobody is reached by way of it
    local cost, hops = way.cost + entry.relay_cost, way.hops + 1
    for _, conn in pairs(entry.conns) do offer(search, conn.peername, way, way.id, cost, way.rtt + conn.rtt, hops) end
end

-- peer -> the cheapest way to it, of not more than hops_max peers. own: our name; conns: our connections, as in an entry
function paths.find(own, conns, entries, hops_max)
    local search = { own = own, entries = entries, hops_max = hops_max, best = {}, open = {} }
    for id, conn in pairs(conns) do offer(search, conn.peername, nil, id, 0, conn.rtt, 1) end
    while #search.open > 0 do
        local way = heap.pop(search.open, cheaper)
        if search.best[way.peer] == way then extend(search, way) end -- else a cheaper one has been found meanwhile
    end
    return search.best
end

-- { id = our connection, path = { peer1, ..., peer }, cost, rtt, hops }
function paths.route_of(way)
    local path, at = {}, way
    for i = way.hops, 1, -1 do
        path[i] = at.peer
        at = at.before
    end
    return { id = way.id, path = path, cost = way.cost, rtt = way.rtt, hops = way.hops }
end

-- the least round trip of an entry's connections to a peer
local function edge(entry, peer)
    local least
    for _, conn in pairs(entry.conns) do
        if conn.peername == peer and (not least or conn.rtt < least) then least = conn.rtt end
    end
    return least
end

-- The same path as things are now, or nil if it is no more. rtt: to its first peer
function paths.measure(route, rtt, entries)
    local path, cost = route.path, 0
    for i = 1, #path - 1 do
        local entry = entries[path[i]]
        local step = entry and entry.relay_cost and edge(entry, path[i + 1])
        if not step then return nil end
        cost, rtt = cost + entry.relay_cost, rtt + step
    end
    return { id = route.id, path = path, cost = cost, rtt = rtt, hops = #path }
end

return paths
