-- A world of peers in one process: each runs lua/scripts/agent.lua in an environment of its own, the clock is moved by hand,
-- and a dial goes from peer to peer as real ones would: through proxies, and at each peer by what its chain decides.
local stubs = {}

local world = {}
world.__index = world

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("a")
    file:close()
    return text
end

local source = read("lua/scripts/agent.lua")
stubs.source = source

function stubs.new_world()
    return setmetatable({ now = 1700000000, elapsed = 0, queue = {}, serial = 0, nodes = {}, delays = {}, broken = {}, calls = {} }, world)
end

--------------------------------------------------------------------------------
-- time

function world:at(seconds, f)
    self.serial = self.serial + 1
    table.insert(self.queue, { due = self.elapsed + seconds, serial = self.serial, f = f })
end

local function next_event(queue)
    local best
    for i, event in ipairs(queue) do
        local first = best and queue[best]
        if not first or event.due < first.due or (event.due == first.due and event.serial < first.serial) then best = i end
    end
    return best
end

-- lets so many seconds pass
function world:run(seconds)
    local till, events = self.elapsed + seconds, 0
    while true do
        local i = next_event(self.queue)
        if not i or self.queue[i].due > till then break end
        local event = table.remove(self.queue, i)
        self.now = self.now + event.due - self.elapsed
        self.elapsed = event.due
        event.f()
        events = events + 1
        assert(events < 1000000, "the world does not come to rest")
    end
    self.now = self.now + till - self.elapsed
    self.elapsed = till
end

local function resume(co, ...)
    local ok, message = coroutine.resume(co, ...)
    if not ok then error(message, 0) end
end

-- parks the running routine; begin(wake) says when it goes on, and with what
local function park(begin)
    local co, main = coroutine.running()
    assert(not main, "not in asynchronous routine")
    local results, waits
    begin(function(...)
        if results then return end
        results = table.pack(...)
        if waits then resume(co) end
    end)
    waits = true
    while not results do coroutine.yield() end
    return table.unpack(results, 1, results.n)
end

local function start(finish, f, ...)
    local co = coroutine.create(function(...) finish(pcall(f, ...)) end)
    resume(co, ...)
    return co
end

local function async(f, ...)
    local future = { waiting = {} }
    function future:get()
        if not self.results then park(function(wake) table.insert(self.waiting, wake) end) end
        return table.unpack(self.results, 1, self.results.n)
    end
    start(function(...)
        future.results = table.pack(...)
        for _, wake in ipairs(future.waiting) do wake() end
    end, f, ...)
    return future
end

--------------------------------------------------------------------------------
-- the wire

-- what is left of a value behind marshal and its reading
local function carry(value, depth)
    local kind, level = type(value), depth or 0
    if kind ~= "table" then
        if kind == "function" or kind == "userdata" or kind == "thread" then error(kind .. " is not marshallable", 0) end
        return value
    end
    if level > 190 then error("C stack overflow", 0) end
    local copy = {}
    for k, v in next, value do copy[carry(k, level + 1)] = carry(v, level + 1) end
    return copy
end

local function carry_all(...)
    local values = table.pack(...)
    for i = 1, values.n do values[i] = carry(values[i]) end
    return values
end

local function link(a, b) return a .. ">" .. b end

-- Where a dial ends: the node that connects, the address it connects to, seconds for a round trip; or nil, why.
-- proxies: the last one is the first hop.
function world:dial(from, addr, proxies, seconds, hops)
    hops = (hops or 0) + 1
    if hops > 64 then return nil, "too many hops" end
    if #proxies == 0 then
        local node = self.nodes[from]
        local decided = table.pack(node.decide(addr))
        if decided[1] == nil then return nil, "connection failed" end
        if decided[1] == addr and decided.n == 1 then return from, addr, seconds or 0 end
        if decided.n == 1 then return from, decided[1], seconds or 0 end
        return self:dial_through(from, decided[1], { table.unpack(decided, 2, decided.n) }, seconds, hops)
    end
    return self:dial_through(from, addr, proxies, seconds, hops)
end

-- A proxy that is no node's own stands in the overlay: the node in front of it dials it as any address.
function world:dial_through(from, addr, proxies, seconds, hops)
    local last = #proxies
    local to, rest = proxies[last]:match("://([%w_-]+)%.test:"), { table.unpack(proxies, 1, last - 1) }
    if not to then
        local at, place, took = self:dial(from, proxies[last]:match("://(.*)$"), {}, seconds, hops)
        if not at then return nil, place end
        table.insert(self.proxies, at .. "@" .. place)
        return self:dial(at, addr, rest, took, hops)
    end
    if not self.nodes[to] or self.broken[link(from, to)] then return nil, "connection failed" end
    table.insert(self.passed, to)
    seconds = (seconds or 0) + (self.delays[link(from, to)] or 0.01)
    return self:dial(to, addr, rest, seconds, hops)
end

-- as from a client of this node: node, address, or nil and why; world.passed has the nodes on the way
function world:connect(from, addr)
    self.passed, self.proxies = {}, {}
    return self:dial(from, addr, {})
end

function world:rpcall(from, target, name, ...)
    self.calls[name] = (self.calls[name] or 0) + 1
    local arguments = carry_all(...)
    self.passed, self.proxies = {}, {}
    local addr, proxies = target[1], { table.unpack(target, 2) }
    if type(addr) ~= "string" or not addr:find(":") then error("invalid address", 0) end
    for _, proxy in ipairs(proxies) do
        if type(proxy) ~= "string" or not proxy:find("://") then error("invalid address", 0) end
    end
    local token, plain = addr:match("^http://(.*)@(.*)$")
    self.target = target
    local to, final, seconds = self:dial(from, plain or addr, proxies)
    if not to then
        park(function(wake) self:at(0.001, wake) end)
        return false, final
    end
    return park(function(wake)
        self:at(seconds, function()
            local node = self.nodes[to]
            if not node or final ~= node.agent.api_endpoint then return wake(false, "connection failed") end
            if node.token ~= token then return wake(false, "HTTP/1.1 401 Unauthorized") end
            local f = node.rpc[name]
            if not f then return wake(false, "attempt to call a nil value (field '" .. name .. "')") end
            start(function(...) wake(table.unpack(carry_all(...), 1, select("#", ...))) end, f,
                table.unpack(arguments, 1, arguments.n))
        end)
    end)
end

--------------------------------------------------------------------------------
-- a node's globals, after libruleset

local list = {}
list.__index = list
function list:new(t) return setmetatable(t or {}, self) end
function list:insert(value)
    table.insert(self, value)
    return self
end
function list:insertf(...) return self:insert(string.format(...)) end
list.concat = table.concat

local function splithostport(addr)
    local host, port = addr:match("^(.*):([^:]*)$")
    if not host then error("invalid address: `" .. addr .. "'", 0) end
    return host:match("^%[(.*)%]$") or host, port
end

local function reversed(...)
    local values, back = { ... }, {}
    for i = #values, 1, -1 do table.insert(back, values[i]) end
    return back
end

local function new_rule()
    return {
        reject = function()
            return function() return nil end
        end,
        redirect = function(target, ...)
            splithostport(target)
            local proxies = reversed(...)
            return function() return target, table.unpack(proxies) end
        end,
    }
end

local function new_env(w, name)
    local env = { rpc = {}, msgh = {}, events = {}, async = async, list = list, rule = new_rule(), match = {}, upstream_failures = 0 }
    for key, value in pairs(_G) do
        if env[key] == nil and key ~= "agent" and key ~= "peerdb" then env[key] = value end
    end
    env._G = env
    env.table = setmetatable({
        get = function(t, ...)
            for _, key in ipairs({ ... }) do
                if type(t) ~= "table" then return nil end
                t = t[key]
            end
            return t
        end,
    }, { __index = table })
    env.neosocksd = {
        now = function() return w.now + (env.clock_error or 0) end,
        splithostport = splithostport,
        stats = function() return { num_reject_upstream = env.upstream_failures } end,
    }
    env.time = { monotonic = function() return w.elapsed + (env.busy_clock and env.busy_clock() or 0) end }
    env.format_timestamp = function(t) return os.date("!%Y-%m-%dT%H:%M:%S+00:00", math.floor(t)) end
    env.evlogf = function(...) table.insert(env.events, (string.format(...))) end
    env.await = {
        sleep = function(seconds)
            env.sleeps = (env.sleeps or 0) + 1
            park(function(wake) w:at(seconds, wake) end)
            env.sleeps = env.sleeps - 1
        end,
        callback = park,
        rpcall = function(target, f, ...) return w:rpcall(name, target, f, ...) end,
    }
    return env
end

-- what a ruleset with the agent's chain alone decides: address, proxies; the last one is the first hop
local function decide_by(env)
    return function(addr)
        for _, entry in ipairs(env.chain_holder and env.chain_holder.chain or env.agent.chain) do
            local action = entry[1](addr)
            if action then return action(addr) end
        end
        return addr
    end
end

function stubs.conn(peer) return { "socks5://" .. peer .. ".test:1080" } end

-- Loads the agent in an environment, as require or an update of the module does.
function world:load(env)
    env.agent_source = env.agent_source or source
    local chunk = assert(load(env.agent_source, "@agent.lua", "t", env))
    return chunk("agent")
end

-- settings: fields of the agent; conns may be a list of names
function world:node(name, settings)
    local env = new_env(self, name)
    self.nodes[name] = env
    env.decide = decide_by(env)
    local agent = self:load(env)
    agent.peername = name
    for key, value in pairs(settings or {}) do agent[key] = value end
    local conns = {}
    for key, value in pairs(agent.conns) do
        if type(key) == "number" and type(value) == "string" then
            conns[value] = stubs.conn(value)
        else
            conns[key] = value
        end
    end
    agent.conns = conns
    return agent, env
end

-- one round at each node, in the order of their names, so many times; ten seconds pass each time
function world:rounds(count)
    for _ = 1, count do
        local names = {}
        for name in pairs(self.nodes) do table.insert(names, name) end
        table.sort(names)
        for _, name in ipairs(names) do self:round(name) end
        self:run(10)
    end
end

-- one round, to its end; what it returned
function world:round(name)
    return self:call(self.nodes[name].agent.maintenance)
end

-- No loops: rounds happen only when the suite wants them.
function world:by_hand()
    for _, env in pairs(self.nodes) do env.agent.loop = nil end
    for i = #self.queue, 1, -1 do table.remove(self.queue, i) end
    return self
end

-- runs f in a routine and lets time pass until it is done; what it returned
function world:call(f, ...)
    local results
    start(function(...) results = table.pack(...) end, f, ...)
    for _ = 1, 10000 do
        if results and not results[1] then error(results[2], 0) end
        if results then return table.unpack(results, 2, results.n) end
        self:run(0.01)
    end
    error("a call does not end")
end

function world:break_link(a, b) self.broken[link(a, b)], self.broken[link(b, a)] = true, true end
function world:mend_link(a, b) self.broken[link(a, b)], self.broken[link(b, a)] = nil, nil end
function world:set_delay(a, b, seconds) self.delays[link(a, b)], self.delays[link(b, a)] = seconds, seconds end

-- a chain of peers a - b - c - d; the inner ones relay, each serves "h" and its name
function stubs.row(names, cost)
    local w = stubs.new_world()
    for i, name in ipairs(names) do
        local inner = i > 1 and i < #names
        w:node(name, {
            conns = { names[i - 1] or names[i + 1], i > 1 and names[i + 1] or nil },
            hosts = { "h" .. name },
            relay_cost = inner and (cost or 1) or nil,
        })
    end
    return w:by_hand()
end

return stubs
