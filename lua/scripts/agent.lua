-- An overlay of peers: each probes those that it can reach, tells what it knows, and finds the cheapest way to the hosts of
-- all others. It runs after require("libruleset"). docs/agent.md says how to set it up.
--
--   rest > probe (a round trip to each connection) > sync (what the other lacks) > index (cheapest paths) > rest ...
--
-- What peers say is hostile until it has been judged: types, lengths, counts and their sum are bounded below, and so is the
-- work that a call may cause. Nothing that arrives can change our own entry.
local lists, paths = require("agent_lists"), require("agent_paths")

local agent = {}
local previous = rawget(_G, "agent")
if type(previous) ~= "table" then previous = nil end

-- Settings that are fields of the agent, and may be set at any time: what counts, and what a number may be.
local defaults = {
    API_ENDPOINT = "api.neosocksd.internal:80",
    INTERNAL_DOMAIN = ".internal",
    RELAY_DOMAIN = ".relay.neosocksd.internal",
    BOOTSTRAP_DELAY = 10,
    PROBE_INTERVAL_MIN = 10,
    PROBE_INTERVAL_MAX = 600,
    PROBE_INTERVAL_ACTIVE = 60,
    PROBE_BACKOFF = 1.5,
    PROBE_JITTER = 0.1,
    CONN_FAILURE_LIMIT = 2,
    RTT_WINDOW = 600,
    ROUTE_HYSTERESIS = 0.2,
    PEERDB_EXPIRY_TIME = 3600,
    PEERDB_EXPIRY_TOLERANCE = 600,
}
local bounds = {
    BOOTSTRAP_DELAY = { 0, 86400 },
    PROBE_INTERVAL_MIN = { 0.1, 86400 },
    PROBE_INTERVAL_MAX = { 0.1, 86400 },
    PROBE_INTERVAL_ACTIVE = { 0.1, 86400 },
    PROBE_BACKOFF = { 1, 1000 },
    PROBE_JITTER = { 0, 0.5 },
    CONN_FAILURE_LIMIT = { 1, 1000 },
    RTT_WINDOW = { 0, 86400 },
    ROUTE_HYSTERESIS = { 0, 1 },
    PEERDB_EXPIRY_TIME = { 1, 2 ^ 31 },
    PEERDB_EXPIRY_TOLERANCE = { 0, 2 ^ 31 },
}

-- What peers may make us remember, and send.
local PEERS_MAX, HOSTS_MAX, CONNS_MAX, HOPS_MAX = 1000, 256, 256, 16
local LABEL_MAX, HOST_MAX = 63, 253 -- octets, as in DNS
local COST_MAX, RTT_MAX, TIME_MAX = 1e6, 3600, 2 ^ 53
local PEERDB_WEIGHT, DELTA_WEIGHT = 16 << 20, 1 << 20 -- octets, roughly
local VERSION_AHEAD = 366 * 86400 -- versions are times: one from a later year is no version
local SYNC_GRAIN = 60 -- timestamps that differ by less are not worth a call of their own
local SLICE = 5 -- a long rest looks up this often, to see whether it should end earlier
local INDEX_SHARE = 20 -- the index is built again no sooner than after this many times what it took

local routes = {} -- peer -> { id, path = { peer1, ..., peer }, cost, rtt }
local owners = {} -- host in lower case -> { peer, name = the host as its peer writes it, all = { peer = name } }
local index_dirty, index_built, index_took = true, 0, 0
local weights = setmetatable({}, { __mode = "k" }) -- entry -> octets, roughly
local chains = {} -- id -> what its state was measured over
local self_floor = 0 -- the newest version that others have of us
local interval, jitter, ended = defaults.PROBE_INTERVAL_MIN, 1, 0
local booting, replaced = true, false -- until the first round; whether it follows another instance
local used, stirred, woken, busy = false, false, false, false
local rejects -- failed dials, as last seen
local resting -- ends the rest
local complaints = {} -- what was last wrong with our own settings, each once
local judged -- the database whose entries have been judged: a script may put another one in its place

local function say(format, ...)
    if agent.verbose then evlogf(format, ...) end
end

-- text of others, for a log
local function brief(value)
    local text = tostring(value)
    return #text > 120 and text:sub(1, 117) .. "..." or text
end

local function complain(what, message)
    if message and message ~= complaints[what] then evlogf("agent: %s", message) end
    complaints[what] = message
end

-- false for nan
local function is_number(value, least, most) return type(value) == "number" and value >= least and value <= most end

local function is_good(name, value)
    if bounds[name] then return is_number(value, table.unpack(bounds[name])) end
    return type(value) == "string" and value ~= ""
end

-- a setting as it is now; one that is none counts as its default
local function setting(name)
    local value = agent[name]
    if is_good(name, value) then return value end
    return defaults[name]
end

local function judge_settings()
    for name, default in pairs(defaults) do
        local good = is_good(name, agent[name])
        complain(name, not good and string.format("agent.%s is no good: %s counts", name, tostring(default)) or nil)
    end
end

-- something has happened: rounds come often again
local function hasten() interval, stirred = setting("PROBE_INTERVAL_MIN"), true end

--------------------------------------------------------------------------------
-- judging what peers say

local function is_label(value)
    return type(value) == "string" and #value <= LABEL_MAX and value:find("^[%w_][%w_%-]*$") ~= nil
end

local function is_host(value)
    if type(value) ~= "string" or #value == 0 or #value > HOST_MAX then return false end
    for label in (value .. "."):gmatch("([^.]*)%.") do
        if not is_label(label) then return false end
    end
    return true
end

local function is_id(value) return math.type(value) == "integer" or (type(value) == "string" and #value <= LABEL_MAX) end

local function is_version(value, now) return is_number(value, 0, now + VERSION_AHEAD) and math.tointeger(value) ~= nil end

-- Hosts as they are written, each once in whatever case, and how many octets they have; nil if there are too many.
local function clean_hosts(hosts)
    if hosts == nil then return {}, 0 end
    if not lists.is_bounded(hosts, HOSTS_MAX) then return nil end
    local clean, seen, weight = {}, {}, 0
    for i = 1, HOSTS_MAX do
        local host = rawget(hosts, i)
        if host == nil then break end
        local name = is_host(host) and host:lower()
        if name and not seen[name] then
            seen[name], weight = true, weight + #name + 64
            table.insert(clean, host)
        end
    end
    return clean, weight
end

local function clean_conns(conns)
    if conns == nil then return {}, 0 end
    if not lists.is_bounded(conns, CONNS_MAX) then return nil end
    local clean, weight = {}, 0
    for id, conn in next, conns do
        if is_id(id) and type(conn) == "table" and is_label(conn.peername) and is_number(conn.rtt, 0, RTT_MAX) then
            clean[id], weight = { peername = conn.peername, rtt = conn.rtt }, weight + 256
        end
    end
    return clean, weight
end

local function is_current(timestamp, now)
    return timestamp >= now - setting("PEERDB_EXPIRY_TIME") - setting("PEERDB_EXPIRY_TOLERANCE")
end

-- A copy of an entry that may be kept, or nil. A clock that runs ahead makes no entry live longer.
local function clean_entry(entry, now)
    if type(entry) ~= "table" or not is_version(entry.version, now) then return nil end
    if not is_number(entry.timestamp, 0, TIME_MAX) or not is_current(entry.timestamp, now) then return nil end
    local hosts, host_weight = clean_hosts(entry.hosts)
    local conns, conn_weight = clean_conns(entry.conns)
    if not hosts or not conns then return nil end
    local clean = {
        version = math.tointeger(entry.version),
        timestamp = math.min(entry.timestamp, now),
        hosts = hosts,
        conns = conns,
        relay_cost = is_number(entry.relay_cost, 0, COST_MAX) and entry.relay_cost or nil,
    }
    weights[clean] = 512 + host_weight + conn_weight
    return clean
end

-- { [peer] = { v, t } }: what the owner knows. One that is too large counts as one that knows nothing.
local function clean_digest(digest, now)
    local clean = {}
    if not lists.is_bounded(digest, PEERS_MAX) then return clean end
    for peer, state in next, digest do
        if is_label(peer) and type(state) == "table" and is_version(state.v, now) and is_number(state.t, 0, TIME_MAX) then
            clean[peer] = { v = math.tointeger(state.v), t = math.min(state.t, now) }
        end
    end
    return clean
end

--------------------------------------------------------------------------------
-- the database

local function weigh(entry) return weights[entry] or 512 end

-- The database is a global, and read where it is used. One that we have not seen yet is judged as what peers send.
local function database()
    local current = rawget(_G, "peerdb")
    if current ~= nil and rawequal(current, judged) then return current end
    if type(current) ~= "table" then
        current = {}
        _G.peerdb = current
    end
    local now = neosocksd.now()
    for peer, entry in pairs(current) do current[peer] = is_label(peer) and clean_entry(entry, now) or nil end
    judged, index_dirty = current, true
    return current
end

local function is_newer(version, timestamp, than_version, than_timestamp)
    if version ~= than_version then return version > than_version end
    return timestamp > than_timestamp
end

local function make_digest()
    local digest, now = {}, neosocksd.now()
    for peer, entry in pairs(database()) do
        if is_current(entry.timestamp, now) then digest[peer] = { v = entry.version, t = entry.timestamp } end
    end
    return digest
end

-- The entries that the owner of a digest lacks, our own before others. What is too much for one call goes with the next.
local function make_delta(theirs)
    local delta, room, now = {}, DELTA_WEIGHT, neosocksd.now()
    local function offer(peer, entry)
        local known = theirs[peer]
        if known and not is_newer(entry.version, entry.timestamp, known.v, known.t) then return end
        if not is_current(entry.timestamp, now) or weigh(entry) > room then return end
        delta[peer], room = entry, room - weigh(entry)
    end
    local own = agent.peername
    if own ~= nil and database()[own] then offer(own, database()[own]) end
    for peer, entry in pairs(database()) do
        if peer ~= own then offer(peer, entry) end
    end
    return delta
end

-- is (v, t) worth a call to somebody who has (than_v, than_t)?
local function is_ahead(v, t, than_v, than_t) return v > than_v or (v == than_v and t >= than_t + SYNC_GRAIN) end

-- Is a call worth while, to get what they know or to give what we know?
local function is_apart(theirs)
    local now = neosocksd.now()
    for peer, known in pairs(theirs) do
        local mine = database()[peer]
        local lacking = mine == nil and is_current(known.t, now)
        if mine ~= nil then lacking = is_ahead(known.v, known.t, mine.version, mine.timestamp) end
        if lacking and peer ~= agent.peername then return true end
    end
    for peer, mine in pairs(database()) do
        local known = theirs[peer]
        if not known or is_ahead(mine.version, mine.timestamp, known.v, known.t) then return true end
    end
    return false
end

local function measure()
    local sum = { count = 0, weight = 0 }
    for _, entry in pairs(database()) do
        sum.count, sum.weight = sum.count + 1, sum.weight + weigh(entry)
    end
    return sum
end

local function neighbours()
    local names = {}
    for _, state in pairs(agent.conn_state) do
        if state.peername then names[state.peername] = true end
    end
    return names
end

local function drop(peer, sum)
    local entry = database()[peer]
    if entry then
        sum.count, sum.weight = sum.count - 1, sum.weight - weigh(entry)
        database()[peer], index_dirty = nil, true
    end
end

-- who is silent longest, of those that we are not connected to
local function find_victim(near)
    local victim
    for peer, entry in pairs(database()) do
        local may_go = peer ~= agent.peername and not near[peer]
        if may_go and (not victim or entry.timestamp < database()[victim].timestamp) then victim = peer end
    end
    return victim
end

-- A full database turns away all but those that we are connected to: for these another one goes. sum: of the database
local function put(peer, entry, sum)
    local old, near = database()[peer], nil
    local function fits()
        local count, weight = sum.count - (old and 1 or 0), sum.weight - (old and weigh(old) or 0)
        return count < PEERS_MAX and weight + weigh(entry) <= PEERDB_WEIGHT
    end
    while not fits() do
        near = near or neighbours()
        local victim = near[peer] and find_victim(near)
        if not victim then return false end
        drop(victim, sum)
    end
    drop(peer, sum)
    sum.count, sum.weight = sum.count + 1, sum.weight + weigh(entry)
    database()[peer], index_dirty = entry, true
    return true
end

local function same_conns(a, b, same)
    for id, conn in pairs(a) do
        local other = b[id]
        if not other or other.peername ~= conn.peername or not same(conn.rtt, other.rtt) then return false end
    end
    for id in pairs(b) do
        if not a[id] then return false end
    end
    return true
end

local function any_rtt() return true end

-- round trips that differ by less than a fifth are the same
local function near_rtt(old, new) return math.abs(new - old) < setting("ROUTE_HYSTERESIS") * math.max(old, 1e-6) end

local function same_entry(a, b, same_rtt)
    if a == nil or a.relay_cost ~= b.relay_cost then return false end
    return lists.same(a.hosts, b.hosts) and same_conns(a.conns, b.conns, same_rtt)
end

-- One entry. True if something but round trips has changed.
local function merge_entry(peer, fresh, sum)
    local known = database()[peer]
    if known and not is_newer(fresh.version, fresh.timestamp, known.version, known.timestamp) then return false end
    if known and fresh.version == known.version then -- the same, only later
        known.timestamp = fresh.timestamp
        return false
    end
    return put(peer, fresh, sum) and not same_entry(known, fresh, any_rtt)
end

-- Somebody has a version of ours that we do not know of: from before a restart, or made up. The next one will be newer.
local function note_self(version)
    if version > self_floor then self_floor = version end
end

local function merge(delta)
    local changed, now = false, neosocksd.now()
    if not lists.is_bounded(delta, PEERS_MAX) then return false end
    local sum = measure()
    for peer, entry in next, delta do
        local fresh = is_label(peer) and clean_entry(entry, now)
        if fresh and peer == agent.peername then
            note_self(fresh.version)
        elseif fresh then
            changed = merge_entry(peer, fresh, sum) or changed
        end
    end
    return changed
end

local function expire()
    local changed, now = false, neosocksd.now()
    for peer, entry in pairs(database()) do
        if peer ~= agent.peername and not is_current(entry.timestamp, now) then
            database()[peer], changed, index_dirty = nil, true, true
            say("agent: peer %q has expired", peer)
        end
    end
    return changed
end

--------------------------------------------------------------------------------
-- ourselves

local function chain_of(id)
    local chain = agent.conns[id]
    if type(chain) == "string" then return { chain } end
    return type(chain) == "table" and chain or {}
end

local function window_rtt(state) return lists.least(state.rtt_win) end

local function is_alive(state)
    return state ~= nil and is_label(state.peername) and (state.fails or 0) < setting("CONN_FAILURE_LIMIT") and window_rtt(state) ~= nil
end

local function own_conns()
    local conns = {}
    for id in pairs(agent.conns) do
        local state = agent.conn_state[id]
        if is_id(id) and is_alive(state) then conns[id] = { peername = state.peername, rtt = window_rtt(state) } end
    end
    return conns
end

local function own_cost()
    if is_number(agent.relay_cost, 0, COST_MAX) then return agent.relay_cost end
end

-- our settings are judged as those of others are, but we are told
local function own_hosts()
    local hosts = clean_hosts(agent.hosts)
    if not hosts then
        complain("hosts", string.format("agent.hosts is no list of at most %d hosts", HOSTS_MAX))
    elseif #hosts ~= #agent.hosts then
        complain("hosts", "agent.hosts has entries that are no host names, or twice the same")
    else
        complain("hosts", nil)
    end
    return hosts or {}
end

-- of more connections than others accept, the nearest
local function told_conns()
    local conns, ids = own_conns(), {}
    if lists.is_bounded(conns, CONNS_MAX) then return conns end
    for id in pairs(conns) do table.insert(ids, id) end
    table.sort(ids, function(a, b) return conns[a].rtt < conns[b].rtt end)
    for i = CONNS_MAX + 1, #ids do conns[ids[i]] = nil end
    return conns
end

-- Our own entry: a new version when something has changed that others depend on, else a new timestamp.
local function update_self()
    local now, name = neosocksd.now(), agent.peername
    local fresh = { hosts = own_hosts(), conns = told_conns(), relay_cost = own_cost() }
    local entry = database()[name]
    if same_entry(entry, fresh, near_rtt) and entry.version >= self_floor then
        entry.timestamp = now
        return false
    end
    local changed = not same_entry(entry, fresh, any_rtt)
    fresh.version = math.max((entry and entry.version or 0) + 1, self_floor + 1, math.floor(now))
    fresh.timestamp = now
    weights[fresh] = 512 + select(2, clean_hosts(fresh.hosts)) + select(2, clean_conns(fresh.conns))
    database()[name], self_floor, index_dirty = fresh, fresh.version, true
    return changed
end

--------------------------------------------------------------------------------
-- paths

-- what a known path costs today, or nil if it is no more
local function route_today(route)
    local state = agent.conn_state[route.id]
    if agent.conns[route.id] == nil or not is_alive(state) or state.peername ~= route.path[1] then return nil end
    return paths.measure(route, window_rtt(state), database())
end

-- A path stays until another is clearly better, so that measuring noise moves nobody.
local function settle(fresh)
    local old = routes[fresh.path[#fresh.path]]
    local today = old and route_today(old)
    if today and today.cost == fresh.cost and fresh.rtt > today.rtt * (1 - setting("ROUTE_HYSTERESIS")) then return today end
    return fresh
end

-- Of several peers that serve a host: we ourselves, then the one that is cheapest to reach, then by name.
local function owns_rather(peer, rival)
    if rival == nil or peer == agent.peername then return true end
    if rival == agent.peername then return false end
    local a, b = routes[peer], routes[rival]
    if a and b and (paths.cheaper(a, b) or paths.cheaper(b, a)) then return paths.cheaper(a, b) end
    if (a == nil) ~= (b == nil) then return a ~= nil end
    return peer < rival
end

local function note_owner(index, name, peer)
    local host = name:lower()
    local known = index[host]
    if not known then
        known = { all = {} }
        index[host] = known
    end
    known.all[peer] = name
    if owns_rather(peer, known.peer) then known.peer, known.name = peer, name end
end

local function build_index()
    local began = time.monotonic()
    local new_routes, new_owners = {}, {}
    local ways = paths.find(agent.peername, own_conns(), database(), HOPS_MAX)
    for peer, way in pairs(ways) do new_routes[peer] = settle(paths.route_of(way)) end
    routes = new_routes
    for peer, entry in pairs(database()) do
        for _, host in ipairs(entry.hosts) do note_owner(new_owners, host, peer) end
    end
    owners, index_dirty, index_built = new_owners, false, time.monotonic()
    index_took = index_built - began
end

-- Peers that tell something new all the time make us build it all the time, but not more than a twentieth of it.
local function refresh_index()
    database()
    if index_dirty and time.monotonic() - index_built >= INDEX_SHARE * index_took then build_index() end
end

-- hosts: host -> peer; routes: peer -> the path, our connection first
function agent._build_index()
    build_index()
    local hosts = {}
    for _, owner in pairs(owners) do hosts[owner.name] = owner.peer end
    return hosts, routes
end

--------------------------------------------------------------------------------
-- addresses

-- "a.b", ".b" -> "a"; nil if it is not below the domain. Domains are the same in any case, what is below one stays as
-- it is: other agents look for it so.
local function subdomain(host, domain)
    if host:sub(-1) == "." then host = host:sub(1, -2) end
    if #host > #domain and host:sub(-#domain):lower() == domain:lower() then return host:sub(1, -#domain - 1) end
end
agent._subdomain = subdomain

local function to_internal(host, port) return string.format("%s%s:%s", host, setting("INTERNAL_DOMAIN"), port) end

local function to_relay(labels, port)
    local name = labels .. setting("RELAY_DOMAIN")
    if #name > HOST_MAX then error(string.format("the path to %q is too long", labels:match("^[^.]*")), 0) end
    return string.format("%s:%s", name, port)
end

-- What the first hop of a path is asked for: neither the first peer of the path is named, which is asked, nor the last,
-- which the relay before it looks up by the host.
local function encode(host, path, port)
    if #path == 1 then return to_internal(host, port) end
    local labels = { host }
    for i = #path - 1, 2, -1 do table.insert(labels, path[i]) end
    return to_relay(table.concat(labels, "."), port)
end

-- Somebody wants what we do not know, or cannot reach: what we know may be old, and a round comes soon.
local function missing(format, ...)
    hasten()
    error(string.format(format, ...), 0)
end

-- address, connection; nil if the host is our own
local function find_host(host, port)
    local owner = owners[host:lower()]
    if owner == nil then -- our own may be so new that there was no round yet
        for _, own in ipairs(agent.hosts) do
            if type(own) == "string" and own:lower() == host:lower() then return nil end
        end
        missing("unknown host %q", host)
    end
    if owner.peer == agent.peername then return nil end
    local route = routes[owner.peer]
    if not route or agent.conns[route.id] == nil then missing("peer %q is not reachable", owner.peer) end
    return encode(owner.name, route.path, port), route.id
end

-- our best connection to a peer that is asked for: good(its name)
local function neighbour(good)
    local id, peer, least
    for key, conn in pairs(own_conns()) do
        if good(conn.peername) and (not least or conn.rtt < least) then id, peer, least = key, conn.peername, conn.rtt end
    end
    return id, peer
end

-- A path that comes by us again would make one request occupy us many times. Hosts may have dots of their own: what is
-- known as one is a host, and the peers stand behind it.
local function refuse_circles(labels)
    local host, hops, own = labels, 0, tostring(agent.peername):lower()
    while not owners[host:lower()] and host:find(".", 1, true) do
        local rest, label = host:match("^(.+)%.([^.]+)$")
        if not rest then break end
        hops = hops + 1
        if label:lower() == own or hops > HOPS_MAX then error("the path goes in circles", 0) end
        host = rest
    end
end

-- A relay is asked for "host.peer1...peerN": it goes to peerN for what is left. If nothing but a host is left, it goes
-- to a neighbour that serves it.
local function relay(labels, port)
    if not own_cost() then error("relay disabled", 0) end
    local owner = owners[labels:lower()]
    if owner then
        local id, peer = neighbour(function(name) return owner.all[name] ~= nil end)
        if id then return to_internal(owner.all[peer], port), id end
    end
    local rest, label = labels:match("^(.+)%.([^.]+)$")
    if not rest then
        if not owner then missing("unknown host %q", labels) end
        missing("peer %q is not connected", owner.peer)
    end
    local id = neighbour(function(name) return name:lower() == label:lower() end)
    if not id then missing("peer %q is not connected", label) end
    refuse_circles(rest)
    return to_relay(rest, port), id
end

-- Address, connection to go by (nil: none); nothing if it is not ours to decide. Raises what cannot be reached.
local function resolve_internal(addr)
    if addr:lower() == setting("API_ENDPOINT"):lower() then return agent.api_endpoint end
    local host, port = neosocksd.splithostport(addr)
    local labels, name = subdomain(host, setting("RELAY_DOMAIN")), subdomain(host, setting("INTERNAL_DOMAIN"))
    if not labels and not name then return nil end
    refresh_index()
    if labels then return relay(labels, port) end
    return find_host(name, port)
end

-- What is asked for in the place of a host and port of the overlay, and the chain to it; nil: the host is our own; or a
-- text that says why not.
function agent._resolve_internal(host, port)
    refresh_index()
    local ok, target, id = pcall(find_host, host, port)
    if not ok then return tostring(target) end
    return target, id ~= nil and agent.conns[id] or nil
end

-- An action and its tag for what belongs to the overlay, else nil. What cannot be reached is rejected.
function agent.matcher(addr)
    local ok, target, id = pcall(resolve_internal, addr)
    if not ok then
        evlogf("agent: %q: %s", brief(addr), brief(target))
        return rule.reject(), "agent"
    end
    if target == nil then return nil end
    if id == nil then return rule.redirect(target) end -- our API: peers call it all the time
    used = true
    return rule.redirect(target, table.unpack(chain_of(id))), "agent"
end

local function newest()
    local current = rawget(_G, "agent")
    return type(current) == "table" and current.matcher and current or agent
end

-- For { composite.subchain(agent, "chain") }. Rules that hold this table still ask the newest instance.
agent.chain = { { function(addr) return newest().matcher(addr) end } }

-- the last value is the first hop
local function proxies_of(id)
    local chain, proxies = chain_of(id), {}
    for i = #chain, 1, -1 do table.insert(proxies, chain[i]) end
    return proxies
end

-- where a host of our own really is: a proxy's address does not pass the rules again
local function own_address(addr)
    local host, port = neosocksd.splithostport(addr)
    if not subdomain(host, setting("INTERNAL_DOMAIN")) then return addr end
    local known = table.get(rawget(_G, "hosts"), host:lower())
    if type(known) ~= "string" then return addr end
    return string.format(known:find(":", 1, true) and "[%s]:%s" or "%s:%s", known, port)
end

-- "[scheme://][user:password@]host:port" -> scheme or nil, user and password with "@" or nil, host:port
local function split_uri(uri)
    local scheme, rest = uri:match("^(%a[%w+.-]*://)(.*)$")
    local user, addr = (rest or uri):match("^(.*@)(.*)$")
    return scheme, user, ((addr or rest or uri):gsub("/$", ""))
end

-- the same with what is to be asked for in the place of the host, and the proxies to it
local function through(uri)
    local scheme, user, addr = split_uri(uri)
    local target, id = resolve_internal(addr)
    if target == nil then target = own_address(addr) end
    if id ~= nil then used = true end
    return (scheme or "") .. (user or "") .. target, id ~= nil and proxies_of(id) or {}
end

-- An action: by way of a proxy on a peer, then by way of those that follow it. The path is looked up at each request.
function agent.proxy(uri, ...)
    local following = { ... }
    return function(addr)
        local proxy, chain = through(uri)
        local all = {}
        for i = #following, 1, -1 do table.insert(all, following[i]) end
        table.insert(all, proxy)
        table.move(chain, 1, #chain, #all + 1, all)
        return addr, table.unpack(all)
    end
end

local dial_failures = { ["connection failed"] = true, ["timeout"] = true, ["failed connecting to server"] = true }

local function note_call(ok, ...)
    if not ok and dial_failures[(...)] then hasten() end
    return ok, ...
end

-- The API of a peer may want a token: agent.tokens[id], beside agent.conns[id], or that of the peer's name.
local function api_of(key)
    local token = key ~= nil and type(agent.tokens) == "table" and agent.tokens[key]
    return token and string.format("http://%s@%s", token, setting("API_ENDPOINT")) or setting("API_ENDPOINT")
end

-- the peer that serves the host of an address
local function owner_of(addr)
    local name = subdomain(neosocksd.splithostport(addr), setting("INTERNAL_DOMAIN"))
    local owner = name and owners[name:lower()]
    return owner and owner.peer
end

-- "scheme://host:port": a proxy on a peer, by way of which its API is called. "host:port": an API that is a host.
local function target_of(addr)
    local scheme, _, host = split_uri(addr)
    local last, chain = through(addr)
    if not scheme then return { last, table.unpack(chain) } end
    return { api_of(owner_of(host)), last, table.unpack(chain) }
end

-- ok, results... or false, message
function agent.rpcall(addr, name, ...)
    local ok, target = pcall(target_of, addr)
    if not ok then return false, target end
    return note_call(await.rpcall(target, name, ...))
end

--------------------------------------------------------------------------------
-- what peers may call

-- A peer that we had given up is there again: a round comes soon. Names are not proven, so that is all a caller moves.
local function note_caller(peername, theirs)
    if not agent.running or not is_label(agent.peername) then error("no peer of an overlay", 0) end
    if peername == agent.peername then evlogf("agent: another peer calls itself %q too", peername) end
    local known = theirs[agent.peername]
    if known then note_self(known.v) end
    for _, state in pairs(agent.conn_state) do
        if state.peername == peername and not is_alive(state) then hasten() end
    end
end

local function on_probe(peername, digest)
    note_caller(peername, clean_digest(digest, neosocksd.now()))
    return agent.peername, make_digest()
end

local function on_sync(peername, digest, delta)
    local theirs = clean_digest(digest, neosocksd.now())
    note_caller(peername, theirs)
    if merge(delta) then hasten() end
    return agent.peername, make_delta(theirs)
end

--------------------------------------------------------------------------------
-- rounds

-- Only what was well until now makes the next round come soon: a connection that stays dead is asked ever more rarely.
local function note_miss(id, why)
    local state = agent.conn_state[id] or {}
    local fails = state.fails or 0
    local limit = setting("CONN_FAILURE_LIMIT")
    if fails < limit then hasten() end
    state.fails = math.min(fails + 1, limit)
    agent.conn_state[id] = state
    if state.fails >= limit then index_dirty = true end
    say("agent: connection %s: %s", tostring(id), brief(why))
    return false
end

local function call(id, name, ...)
    local target = { api_of(id), table.unpack(proxies_of(id)) }
    local results = table.pack(pcall(await.rpcall, target, name, ...))
    return table.unpack(results, results[1] and 2 or 1, results.n) -- what raises has failed too
end

local function note_hit(id, peername, rtt)
    local state = agent.conn_state[id] or {}
    local changed = state.peername ~= peername or not is_alive(state)
    if state.peername ~= peername then state.rtt_win = nil end
    state.peername, state.fails = peername, nil
    local sample = math.min(math.max(rtt, 0), RTT_MAX)
    state.rtt_win = lists.note(state.rtt_win, sample, time.monotonic(), setting("RTT_WINDOW"))
    -- Who answers is there. Peers of neosocksd do not renew an entry that has not changed: their neighbours do it so.
    local entry = database()[peername]
    if entry and peername ~= agent.peername then entry.timestamp = math.max(entry.timestamp, neosocksd.now()) end
    agent.conn_state[id] = state
    if changed then index_dirty = true end
    return changed
end

-- what either side lacks; true if something has changed
local function sync(id, theirs)
    local ok, peername, delta = call(id, "sync", agent.peername, make_digest(), make_delta(theirs))
    if not ok then
        say("agent: connection %s: %s", tostring(id), brief(peername))
        return false
    end
    return agent.running and merge(delta)
end

-- one connection: a round trip, then what either side lacks. True if something has changed.
local function probe(id)
    local began = time.monotonic()
    local ok, peername, digest = call(id, "probe", agent.peername, make_digest())
    local rtt = time.monotonic() - began
    if not agent.running or agent.conns[id] == nil then return false end
    if not ok then return note_miss(id, peername) end
    if not is_label(peername) then return note_miss(id, "it gives no name") end
    if peername == agent.peername then return note_miss(id, "it leads back to ourselves, or to one of the same name") end
    local changed, theirs = note_hit(id, peername, rtt), clean_digest(digest, neosocksd.now())
    if theirs[agent.peername] then note_self(theirs[agent.peername].v) end
    update_self() -- what we know now goes along
    if not is_apart(theirs) then return changed end
    return sync(id, theirs) or changed
end

-- What was measured over another chain says nothing about this one.
local function forget_conns()
    for id in pairs(agent.conn_state) do
        local text = agent.conns[id] ~= nil and table.concat(chain_of(id), "\n")
        if not text or (chains[id] and chains[id] ~= text) then agent.conn_state[id], index_dirty = nil, true end
    end
    chains = {}
    for id in pairs(agent.conns) do chains[id] = table.concat(chain_of(id), "\n") end
end

local function probe_all()
    local changed, futures = false, {}
    for id in pairs(agent.conns) do table.insert(futures, async(probe, id)) end
    for _, future in ipairs(futures) do
        local ok, result = future:get()
        if not ok then evlogf("agent: %s", brief(result)) end
        changed = (ok and result) or changed
    end
    return changed
end

local function round()
    judge_settings()
    local named = is_label(agent.peername)
    complain("peername", not named and "agent.peername is no name: letters, digits, - and _, at most 63" or nil)
    if not named then return false end
    forget_conns()
    local changed = expire()
    changed = update_self() or changed
    changed = probe_all() or changed
    if not agent.running then return false end
    changed = update_self() or changed
    build_index()
    if agent.on_updated then
        local ok, message = pcall(agent.on_updated)
        if not ok then evlogf("agent.on_updated: %s", brief(message)) end
    end
    return changed
end

-- One round: probes all connections at once, then builds the index. True if something but round trips has changed.
function agent.maintenance()
    if busy or not agent.running then return false end
    busy, stirred = true, false
    local ok, changed = pcall(round)
    busy = false
    if not ok then evlogf("agent: %s", brief(changed)) end
    changed = ok and changed
    local least, most = setting("PROBE_INTERVAL_MIN"), setting("PROBE_INTERVAL_MAX")
    if booting then interval, booting = least, false end
    interval = (changed or stirred) and least or math.min(interval * setting("PROBE_BACKOFF"), most)
    jitter = 1 + setting("PROBE_JITTER") * (2 * math.random() - 1)
    used, rejects, ended = false, nil, time.monotonic()
    return changed
end

-- seconds between rounds as things stand
local function spacing()
    local seconds = math.max(math.min(interval, setting("PROBE_INTERVAL_MAX")), setting("PROBE_INTERVAL_MIN"))
    return used and math.min(seconds, setting("PROBE_INTERVAL_ACTIVE")) or seconds
end

-- until the next one, before its jitter
local function pause() return booting and (replaced and 1 or setting("BOOTSTRAP_DELAY")) or spacing() end

-- While the overlay is used, connections that fail may be those that go through it.
local function watch_failures()
    local stats = neosocksd.stats()
    local count = (stats.num_reject_upstream or 0) + (stats.num_reject_timeout or 0) + (stats.num_forward_failed or 0)
    if used and rejects and count > rejects then hasten() end
    rejects = count
end

-- Wakes the loop when it is time. A rest that ended otherwise is noticed within a slice, so that these do not add up.
local function sleeper(wake)
    await.sleep(0) -- behind require() stand the settings
    while resting == wake do
        watch_failures()
        local left = ended + pause() * jitter - time.monotonic()
        if left <= 0 then return wake() end
        await.sleep(math.min(left, SLICE))
    end
end

local function rest()
    await.callback(function(callback)
        resting = callback
        async(sleeper, callback)
    end)
    resting = nil
end

-- The next round begins now, or behind the one that is under way.
function agent.wake()
    hasten()
    woken = true
    if resting then resting() end
end

function agent.stop()
    agent.running = false
    if resting then resting() end
end

local function loop()
    while agent.running do
        if not woken then rest() end
        if busy then -- somebody calls maintenance() beside us
            await.sleep(1)
        else
            woken = false
            agent.maintenance()
            if woken then await.sleep(1) end -- from within the round: no round without a pause
        end
    end
end

--------------------------------------------------------------------------------
-- statistics

local function quoted(name) return string.format("%q", name) end

local function peer_line(peer, entry)
    local head, route = string.format("%-16s: %s", quoted(peer), format_timestamp(entry.timestamp)), routes[peer]
    if not route then return head .. " (unreachable)" end
    local names = {}
    for i, name in ipairs(route.path) do names[i] = quoted(name) end
    return string.format("%s [%s] %4.0fms %s", head, tostring(route.id), route.rtt * 1e3, table.concat(names, "->"))
end

-- what we are: without a word we relay, and that is free
local function headline()
    local words, cost = { "> Peers" }, own_cost()
    if agent.peername ~= nil then table.insert(words, string.format("(self=%s)", quoted(tostring(agent.peername)))) end
    if not cost then table.insert(words, "norelay") end
    if cost and cost > 0 then table.insert(words, string.format("relay_cost=%g", cost)) end
    table.insert(words, string.format("probe=%.0fs", spacing()))
    return table.concat(words, " ")
end

function agent.stats()
    if not agent.running then return "" end
    refresh_index()
    local lines = {}
    for peer, entry in pairs(database()) do
        if peer ~= agent.peername then table.insert(lines, peer_line(peer, entry)) end
    end
    table.sort(lines)
    return headline() .. "\n" .. table.concat(lines, "\n")
end

--------------------------------------------------------------------------------
-- start: settings and knowledge of the instance before this one are kept

-- a setting that was set goes on, a default of the file before does not: a new file may have another one
local function inherit_settings()
    local old = previous or {}
    local before = type(old._defaults) == "table" and old._defaults or {}
    for name, default in pairs(defaults) do
        local set = old[name] ~= nil and old[name] ~= before[name]
        agent[name] = set and old[name] or default
    end
    agent._defaults = defaults
end

local function inherit()
    inherit_settings()
    for key, value in pairs(previous or {}) do
        if agent[key] == nil and key ~= "loop" then agent[key] = value end
    end
    for _, key in ipairs({ "conns", "hosts", "conn_state" }) do
        if type(agent[key]) ~= "table" then agent[key] = {} end
    end
    agent.api_endpoint = agent.api_endpoint or "127.0.0.1:9080"
end

-- another version of this file may have left other forms behind
local function check_inheritance()
    for id, state in pairs(agent.conn_state) do
        local good = type(state) == "table" and lists.is_window(state.rtt_win or {}, RTT_MAX) and is_number(state.fails or 0, 0, math.huge)
        if not good then agent.conn_state[id] = nil end
    end
    database()
end

-- up to 1.4: { match.agent(), rule.agent() } in redirect_name
local function add_shims()
    if match and not match.agent then
        match.agent = function()
            return function(addr) return (newest().matcher(addr)) ~= nil end
        end
    end
    if not rule.agent then
        rule.agent = function()
            return function(addr)
                local action = newest().matcher(addr)
                if action then return action(addr) end
            end
        end
    end
end

inherit()
check_inheritance()
add_shims()
build_index()
agent.running = true
-- what follows require() sets us up; an instance that follows another one has all that at once
replaced = previous and type(previous.stop) == "function"
jitter, ended = 1 - setting("PROBE_JITTER") * math.random(), time.monotonic()
interval = setting("PROBE_INTERVAL_MIN")
-- nothing above has touched the instance before: had it failed, that one would still be at work
if replaced then
    local ok, message = pcall(previous.stop)
    if not ok then evlogf("agent: %s", brief(message)) end
end
rpc.probe, rpc.sync = on_probe, on_sync
_G.agent = agent
agent.loop = async(loop)

return agent
