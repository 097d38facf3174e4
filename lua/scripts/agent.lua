-- An overlay of peers: every peer probes those that it can reach, tells what it knows, and finds the cheapest way to the
-- hosts of all others. docs/agent.md says how to set it up.
--
--   probe (a round trip to each connection) > sync (what the other lacks) > index (cheapest paths) > wait > probe ...
--
-- Everything that a peer says is judged before it is believed: types, lengths and counts are bounded.
local agent = {}
local previous = rawget(_G, "agent")

local API_ENDPOINT = "api.neosocksd.internal:80"
local INTERNAL_DOMAIN = ".internal"
local RELAY_DOMAIN = ".relay.neosocksd.internal"
local BOOTSTRAP_DELAY = 10
local PROBE_INTERVAL_MIN, PROBE_INTERVAL_MAX, PROBE_INTERVAL_ACTIVE = 10, 600, 60
local PROBE_BACKOFF, PROBE_JITTER = 1.5, 0.1
local CONN_FAILURE_LIMIT = 2
local RTT_WINDOW = 600
local ROUTE_HYSTERESIS = 0.2
local PEERDB_EXPIRY_TIME, PEERDB_EXPIRY_TOLERANCE = 3600, 600
-- what a peer may make us remember
local PEERS_MAX, HOSTS_MAX, CONNS_MAX, NAME_MAX = 1000, 256, 256, 63
local COST_MAX, RTT_MAX = 1e6, 3600

agent.API_ENDPOINT, agent.INTERNAL_DOMAIN, agent.RELAY_DOMAIN = API_ENDPOINT, INTERNAL_DOMAIN, RELAY_DOMAIN

-- a hot reload inherits what was set, and what was learnt
for _, field in ipairs({ "peername", "conns", "hosts", "api_endpoint", "relay_cost", "verbose", "on_updated", "conn_state" }) do
    agent[field] = previous and previous[field]
end
agent.conns = agent.conns or {}
agent.hosts = agent.hosts or {}
agent.api_endpoint = agent.api_endpoint or "127.0.0.1:9080"
agent.conn_state = agent.conn_state or {}
agent.running = true
_G.peerdb = _G.peerdb or {}

local routes, owners = {}, {} -- peer -> { id, path, cost, rtt }; host -> peer
local interval, used, failing = PROBE_INTERVAL_MIN, false, false
local sleeping -- the callback that ends the wait

local function say(format, ...)
    if agent.verbose then evlogf(format, ...) end
end

--------------------------------------------------------------------------------
-- what peers say

local function is_name(value)
    return type(value) == "string" and #value <= NAME_MAX and value:find("^[%w][%w_%-]*$") ~= nil
end

local function is_host(value)
    if type(value) ~= "string" or #value == 0 or #value > 253 then return false end
    for label in (value .. "."):gmatch("([^.]*)%.") do
        if not is_name(label) then return false end
    end
    return true
end

local function is_number(value, least, most)
    return type(value) == "number" and value >= least and value <= most -- false for nan
end

local function bounded(t, most)
    local count = 0
    for _ in pairs(t) do
        count = count + 1
        if count > most then return false end
    end
    return true
end

local function clean_hosts(hosts)
    if type(hosts) ~= "table" or not bounded(hosts, HOSTS_MAX) then return nil end
    local clean = {}
    for _, host in ipairs(hosts) do
        if is_host(host) then table.insert(clean, host:lower()) end
    end
    return clean
end

local function clean_conns(conns)
    if type(conns) ~= "table" or not bounded(conns, CONNS_MAX) then return nil end
    local clean = {}
    for id, conn in pairs(conns) do
        local key = type(id) == "number" or (type(id) == "string" and #id <= NAME_MAX)
        if key and type(conn) == "table" and is_name(conn.peername) and is_number(conn.rtt, 0, RTT_MAX) then
            clean[id] = { peername = conn.peername, rtt = conn.rtt }
        end
    end
    return clean
end

-- an entry that may be kept, or nil. A clock that runs ahead does not make an entry live for ever.
local function clean_entry(entry, now)
    if type(entry) ~= "table" then return nil end
    local hosts, conns = clean_hosts(entry.hosts), clean_conns(entry.conns)
    if not hosts or not conns then return nil end
    if not is_number(entry.version, 0, 2 ^ 53) or not is_number(entry.timestamp, 0, 2 ^ 53) then return nil end
    if entry.timestamp < now - PEERDB_EXPIRY_TIME - PEERDB_EXPIRY_TOLERANCE then return nil end
    local cost = is_number(entry.relay_cost, 0, COST_MAX) and entry.relay_cost or nil
    return {
        version = entry.version,
        timestamp = math.min(entry.timestamp, now),
        hosts = hosts,
        conns = conns,
        relay_cost = cost,
    }
end

local function clean_digest(digest)
    local clean = {}
    if type(digest) ~= "table" or not bounded(digest, PEERS_MAX) then return clean end
    for peer, state in pairs(digest) do
        if is_name(peer) and type(state) == "table" and is_number(state.v, 0, 2 ^ 53) and is_number(state.t, 0, 2 ^ 53) then
            clean[peer] = { v = state.v, t = state.t }
        end
    end
    return clean
end

--------------------------------------------------------------------------------
-- the database

local function newer(version, timestamp, than_version, than_timestamp)
    if version ~= than_version then return version > than_version end
    return timestamp > than_timestamp
end

local function digest()
    local d = {}
    for peer, entry in pairs(peerdb) do d[peer] = { v = entry.version, t = entry.timestamp } end
    return d
end

-- the entries that the owner of a digest lacks
local function delta_for(theirs)
    local delta = {}
    for peer, entry in pairs(peerdb) do
        local known = theirs[peer]
        if not known or newer(entry.version, entry.timestamp, known.v, known.t) then delta[peer] = entry end
    end
    return delta
end

local function count_peers()
    local count = 0
    for _ in pairs(peerdb) do count = count + 1 end
    return count
end

-- true if something has changed that routes depend on
local function merge(delta)
    local changed, now = false, neosocksd.now()
    if type(delta) ~= "table" or not bounded(delta, PEERS_MAX) then return false end
    for peer, entry in pairs(delta) do
        local fresh = is_name(peer) and peer ~= agent.peername and clean_entry(entry, now)
        local known = peerdb[peer]
        if fresh and (known or count_peers() < PEERS_MAX) then
            if not known or newer(fresh.version, fresh.timestamp, known.version, known.timestamp) then
                changed = changed or not known or fresh.version ~= known.version
                peerdb[peer] = fresh
            end
        end
    end
    return changed
end

local function expire()
    local changed, oldest = false, neosocksd.now() - PEERDB_EXPIRY_TIME - PEERDB_EXPIRY_TOLERANCE
    for peer, entry in pairs(peerdb) do
        if peer ~= agent.peername and entry.timestamp < oldest then
            peerdb[peer] = nil
            changed = true
            say("agent: peer %q has expired", peer)
        end
    end
    return changed
end

-- the round trip that a connection is known for: the least of the window
local function window_rtt(state)
    local least
    for _, sample in ipairs(state.rtt_win or {}) do
        if not least or sample.rtt < least then least = sample.rtt end
    end
    return least
end

local function alive(state) return state and state.peername and (state.fails or 0) < CONN_FAILURE_LIMIT end

local function own_conns()
    local conns = {}
    for id in pairs(agent.conns) do
        local state = agent.conn_state[id]
        if alive(state) then conns[id] = { peername = state.peername, rtt = window_rtt(state) or RTT_MAX } end
    end
    return conns
end

local function same_list(a, b)
    if #a ~= #b then return false end
    for i = 1, #a do
        if a[i] ~= b[i] then return false end
    end
    return true
end

-- round trips that differ by less than a fifth are the same
local function same_conns(a, b)
    for id, conn in pairs(a) do
        local other = b[id]
        if not other or other.peername ~= conn.peername then return false end
        if math.abs(conn.rtt - other.rtt) >= ROUTE_HYSTERESIS * math.max(other.rtt, 1e-6) then return false end
    end
    for id in pairs(b) do
        if not a[id] then return false end
    end
    return true
end

local function own_cost()
    if is_number(agent.relay_cost, 0, COST_MAX) then return agent.relay_cost end
end

-- our own entry: a new version when something that others depend on has changed, else a new timestamp
local function update_self()
    local now, name = neosocksd.now(), agent.peername
    if not is_name(name) then return false end
    local hosts, conns = clean_hosts(agent.hosts) or {}, own_conns()
    local entry = peerdb[name]
    local same = entry and same_list(entry.hosts, hosts) and same_conns(conns, entry.conns) and entry.relay_cost == own_cost()
    if same then
        entry.timestamp = now
        return false
    end
    peerdb[name] = {
        version = math.max((entry and entry.version or 0) + 1, math.floor(now)),
        timestamp = now,
        hosts = hosts,
        conns = conns,
        relay_cost = own_cost(),
    }
    return true
end

--------------------------------------------------------------------------------
-- paths: Dijkstra over (relay cost, round trip)

local function cheaper(a, b)
    if a.cost ~= b.cost then return a.cost < b.cost end
    return a.rtt < b.rtt
end

local function nearest(open)
    local peer, best
    for name, way in pairs(open) do
        if not best or cheaper(way, best) then peer, best = name, way end
    end
    return peer, best
end

local function extended(way, peer, cost, rtt, id)
    local path = way and table.move(way.path, 1, #way.path, 1, {}) or {}
    table.insert(path, peer)
    return { id = way and way.id or id, path = path, cost = cost, rtt = rtt }
end

local function offer(open, done, peer, way)
    if done[peer] or peer == agent.peername then return end
    if not open[peer] or cheaper(way, open[peer]) then open[peer] = way end
end

local function find_routes()
    local open, done = {}, {}
    for id, conn in pairs(own_conns()) do offer(open, done, conn.peername, extended(nil, conn.peername, 0, conn.rtt, id)) end
    while true do
        local peer, way = nearest(open)
        if not peer then return done end
        open[peer], done[peer] = nil, way
        local entry = peerdb[peer]
        if entry and entry.relay_cost then -- others may be reached by way of it
            for _, conn in pairs(entry.conns) do
                offer(open, done, conn.peername, extended(way, conn.peername, way.cost + entry.relay_cost, way.rtt + conn.rtt))
            end
        end
    end
end

-- A path that works is kept until another one is clearly better.
local function settle(fresh)
    for peer, way in pairs(fresh) do
        local old = routes[peer]
        local state = old and agent.conn_state[old.id]
        if old and #old.path > 0 and alive(state) and agent.conns[old.id] and old.cost <= way.cost then
            local now_rtt = fresh[peer].rtt
            local same_first = way.id == old.id
            if not same_first and old.rtt <= now_rtt * (1 + ROUTE_HYSTERESIS) and #old.path == 1 then fresh[peer] = old end
        end
    end
    return fresh
end

local function build_index()
    routes = settle(find_routes())
    owners = {}
    for peer, entry in pairs(peerdb) do
        for _, host in ipairs(entry.hosts) do
            local rival = owners[host]
            local closer = not rival or (routes[peer] and (not routes[rival] or cheaper(routes[peer], routes[rival])))
            if rival ~= agent.peername and (closer or peer == agent.peername) then owners[host] = peer end
        end
    end
end
agent._build_index = function()
    build_index()
    return routes, owners
end

--------------------------------------------------------------------------------
-- addresses

-- "a.b", ".b" -> "a"; nil if it is not below the domain
local function subdomain(host, domain)
    host = host:lower()
    if #host > #domain and host:sub(-#domain) == domain then return host:sub(1, -#domain - 1) end
end
agent._subdomain = subdomain

local function proxies_of(id)
    local proxies = {}
    for i, proxy in ipairs(agent.conns[id]) do proxies[#agent.conns[id] + 1 - i] = proxy end -- the last is the first hop
    return proxies
end

-- the address that the first hop of a path is asked for
local function encode(host, path, port)
    if #path == 1 then return string.format("%s%s:%s", host, INTERNAL_DOMAIN, port) end
    local labels = { host }
    for i = #path, 2, -1 do table.insert(labels, path[i]) end
    return string.format("%s%s:%s", table.concat(labels, "."), RELAY_DOMAIN, port)
end

local function way_to(peer)
    local way = routes[peer]
    if not way or not agent.conns[way.id] then error(string.format("peer %q is not reachable", peer), 0) end
    return way
end

-- "host.peerN...peer2.relay..." -> address for peer2, its way. Our own label was stripped by who sent it.
local function resolve_relay(labels, port)
    if not own_cost() then error("this peer relays for nobody", 0) end
    local rest, peer = labels:match("^(.*)%.([^.]+)$")
    if not rest then error("a relay needs a peer", 0) end
    local way
    for id, conn in pairs(own_conns()) do
        if conn.peername:lower() == peer and (not way or conn.rtt < way.rtt) then way = { id = id, rtt = conn.rtt } end
    end
    if not way then error(string.format("peer %q is not connected", peer), 0) end
    if rest:find(".", 1, true) then
        -- a host may have dots of its own; what follows it are peers
        local next_peer = rest:match("%.([^.]+)$")
        if peerdb[next_peer] then return string.format("%s%s:%s", rest, RELAY_DOMAIN, port), way.id end
    end
    return string.format("%s%s:%s", rest, INTERNAL_DOMAIN, port), way.id
end

-- address, id of the connection to go by; nil: not ours to decide. Raises what cannot be reached.
local function resolve_internal(addr)
    local host, port = neosocksd.splithostport(addr)
    if addr:lower() == API_ENDPOINT then return agent.api_endpoint end
    local labels = subdomain(host, RELAY_DOMAIN)
    if labels then return resolve_relay(labels, port) end
    local name = subdomain(host, INTERNAL_DOMAIN)
    if not name then return nil end
    local owner = owners[name]
    if not owner then
        for _, own in ipairs(agent.hosts) do
            if own:lower() == name then return nil end
        end
        error(string.format("unknown host %q", name), 0)
    end
    if owner == agent.peername then return nil end
    local way = way_to(owner)
    return encode(name, way.path, port), way.id
end
agent._resolve_internal = resolve_internal

-- an action for what belongs to the overlay, else nil
function agent.matcher(addr)
    local ok, target, id = pcall(resolve_internal, addr)
    if not ok then
        evlogf("agent: %q: %s", addr, target)
        return rule.reject(), "agent"
    end
    if not target then return nil end
    used = true
    if not id then return rule.redirect(target) end
    return rule.redirect(target, table.unpack(agent.conns[id])), "agent"
end

-- for { composite.subchain(agent, "chain") }: the newest instance decides
agent.chain = { { function(addr) return _G.agent.matcher(addr) end } }

-- address and proxies of what may be "scheme://host.internal:port", the last proxy being the first hop
local function through(address)
    local scheme, rest = address:match("^(%a[%w+.-]*://)(.*)$")
    local user, hostport = (rest or address):match("^(.*@)(.-)$")
    hostport = hostport or rest or address
    local target, id = resolve_internal(hostport)
    return (scheme or "") .. (user or "") .. (target or hostport), id and proxies_of(id) or {}
end

-- an action: to a proxy on a peer, then to what follows it
function agent.proxy(uri, ...)
    local more = { ... }
    return function(addr)
        local proxy, proxies = through(uri)
        local chain = {}
        for i = #more, 1, -1 do table.insert(chain, more[i]) end
        table.insert(chain, proxy)
        table.move(proxies, 1, #proxies, #chain + 1, chain)
        used = true
        return addr, table.unpack(chain)
    end
end

function agent.rpcall(address, name, ...)
    local ok, target, proxies = pcall(through, address)
    if not ok then return false, target end
    used = true
    return await.rpcall({ target, table.unpack(proxies) }, name, ...)
end

--------------------------------------------------------------------------------
-- what peers may call

function rpc.probe(peername, theirs)
    return agent.peername, digest()
end

function rpc.sync(peername, theirs, delta)
    if merge(delta) then
        build_index()
        if _G.agent == agent then agent.wake() end
    end
    return agent.peername, delta_for(clean_digest(theirs))
end

--------------------------------------------------------------------------------
-- rounds

local function note_sample(state, rtt, now)
    local window = state.rtt_win or {}
    while window[1] and window[1].time < now - RTT_WINDOW do table.remove(window, 1) end
    while #window >= 64 do table.remove(window, 1) end
    table.insert(window, { time = now, rtt = rtt })
    state.rtt_win = window
end

local function note_miss(id, why)
    local state = agent.conn_state[id] or {}
    state.fails = math.min((state.fails or 0) + 1, CONN_FAILURE_LIMIT)
    agent.conn_state[id] = state
    failing = true
    say("agent: connection %s: %s", tostring(id), tostring(why))
end

local function target_of(id) return { API_ENDPOINT, table.unpack(proxies_of(id)) } end

-- one connection: a round trip, and what either side lacks. True if something has changed.
local function probe(id)
    local begin = time.monotonic()
    local ok, peername, theirs = await.rpcall(target_of(id), "probe", agent.peername, digest())
    local rtt = time.monotonic() - begin
    if not ok or not is_name(peername) or peername == agent.peername then
        note_miss(id, ok and "it gives no name" or peername)
        return false
    end
    local state = agent.conn_state[id] or {}
    agent.conn_state[id] = state
    local changed = state.peername ~= peername or (state.fails or 0) > 0
    state.peername, state.fails = peername, 0
    note_sample(state, math.min(rtt, RTT_MAX), neosocksd.now())
    local known = clean_digest(theirs)
    local delta, wanted = delta_for(known), false
    for peer, entry in pairs(known) do
        local mine = peerdb[peer]
        wanted = wanted or not mine or newer(entry.v, entry.t, mine.version, mine.timestamp)
    end
    if next(delta) == nil and not wanted then return changed end
    local synced, _, entries = await.rpcall(target_of(id), "sync", agent.peername, digest(), delta)
    return (synced and merge(entries)) or changed
end

local function forget_conns()
    for id in pairs(agent.conn_state) do
        if not agent.conns[id] then agent.conn_state[id] = nil end
    end
end

-- Probes all connections at once, then builds the index. True if something has changed.
function agent.maintenance()
    forget_conns()
    local changed, futures = expire(), {}
    changed = update_self() or changed
    for id in pairs(agent.conns) do table.insert(futures, async(probe, id)) end
    for _, one in ipairs(futures) do
        local ok, result = one:get()
        if not ok then evlogf("agent: %s", tostring(result)) end
        changed = (ok and result) or changed
    end
    changed = update_self() or changed
    build_index()
    if agent.on_updated then
        local ok, message = pcall(agent.on_updated)
        if not ok then evlogf("agent.on_updated: %s", tostring(message)) end
    end
    return changed
end

local function next_interval(changed)
    if changed or failing then
        interval = PROBE_INTERVAL_MIN
    else
        interval = math.min(interval * PROBE_BACKOFF, PROBE_INTERVAL_MAX)
    end
    local wait = used and math.min(interval, PROBE_INTERVAL_ACTIVE) or interval
    used, failing = false, false
    return wait * (1 + PROBE_JITTER * (2 * math.random() - 1))
end

-- sleeps, unless somebody wakes it
local function rest(seconds)
    await.callback(function(callback)
        sleeping = callback
        async(function()
            await.sleep(seconds)
            callback()
        end)
    end)
    sleeping = nil
end

-- ends the wait for the next round
function agent.wake()
    interval = PROBE_INTERVAL_MIN
    if sleeping then sleeping() end
end

function agent.stop()
    agent.running = false
    agent.wake()
end

local function loop()
    rest(previous and 0 or BOOTSTRAP_DELAY * math.random())
    while agent.running do
        rest(next_interval(agent.maintenance()))
    end
end

--------------------------------------------------------------------------------
-- statistics

local function peer_line(lines, now, peer, entry)
    local when, way = format_timestamp(entry.timestamp), routes[peer]
    if not way then
        lines:insertf("%-16s: %s (unreachable)", string.format("%q", peer), when)
        return
    end
    local path = list:new(table.move(way.path, 1, #way.path, 1, {})):map(function(name) return string.format("%q", name) end)
    lines:insertf("%-16s: %s [%s] %4.0fms %s", string.format("%q", peer), when, tostring(way.id), way.rtt * 1e3, path:concat("->"))
end

function agent.stats()
    local lines, now, names = list:new(), neosocksd.now(), {}
    local cost = own_cost() and string.format("relay_cost=%g", own_cost()) or "norelay"
    lines:insertf("> Peers (self=%q) [%s] probe=%.0fs", tostring(agent.peername), cost, interval)
    for peer in pairs(peerdb) do
        if peer ~= agent.peername then table.insert(names, peer) end
    end
    table.sort(names)
    for _, peer in ipairs(names) do peer_line(lines, now, peer, peerdb[peer]) end
    return lines:concat("\n")
end

if previous and previous.stop then previous.stop() end
_G.agent = agent -- what peers call finds it
build_index()
agent.loop = async(loop)

return agent
