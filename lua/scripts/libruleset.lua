-- Rules in tables: matchers, actions, and the callbacks that a ruleset returns. docs/lua-api.md says what is here.
--
-- Loading it again, as an update does, keeps what has gathered in the globals: events, secrets, handlers, counters.
local sets = require("sets")
local wakeup = require("wakeup") -- who waits for a coroutine is resumed by the engine, with a budget of its own

-- The settings in force, looked up at each use: a -c script's own fields are applied after it has loaded this file. What
-- is decided here asks setting(), for scripts may put a copy in the place of `config`.
local setting = neosocksd.setting or function(key) return neosocksd.config()[key] end
_G.config = setmetatable({}, {
    __index = function(_, key) return setting(key) end,
    __pairs = function() return pairs(neosocksd.config()) end,
})

--------------------------------------------------------------------------------
-- small helpers

function _G.printf(format, ...) print(string.format(format, ...)) end

-- RFC 3339 in local time, such as 2026-11-20T18:25:24+00:00
function _G.format_timestamp(time)
    time = math.floor(time)
    local zone = os.date("%z", time)
    return os.date("%Y-%m-%dT%H:%M:%S", time) .. zone:sub(1, 3) .. ":" .. zone:sub(4, 5)
end

function package.replace(name, chunk)
    local old = package.loaded[name]
    local new = chunk(name)
    if new == nil then new = true end
    package.loaded[name] = new
    if old ~= nil and rawequal(rawget(_G, name), old) then _G[name] = new end
    return new
end

function string.startswith(s, sub) return s:sub(1, #sub) == sub end

function string.endswith(s, sub) return sub ~= "" and s:sub(-#sub) == sub end

function table.get(t, ...)
    for i = 1, select("#", ...) do
        if type(t) ~= "table" then return nil end
        t = t[(select(i, ...))]
    end
    return t
end

--------------------------------------------------------------------------------
-- list: a table with methods that return it

-- the class of an earlier load: what it has made stays of its kind
local function class(name)
    local old = rawget(_G, name)
    local self = type(old) == "table" and rawget(old, "__name") == name and old or {}
    self.__name, self.__index = name, self
    return self
end

local list = class("list")
_G.list = list

function list:new(t) return setmetatable(t or {}, self) end

function list:check(value)
    if getmetatable(value) == self then return value end
end

function list:totable() return setmetatable(self, nil) end

list.iter = ipairs
list.unpack = table.unpack
list.concat = table.concat
list.remove = table.remove

function list:insert(...)
    table.insert(self, ...)
    return self
end

function list:insertf(format, ...)
    self[#self + 1] = string.format(format, ...)
    return self
end

function list:append(other)
    table.move(other, 1, #other, #self + 1, self)
    return self
end

function list:map(f)
    for i = 1, #self do self[i] = f(self[i]) end
    return self
end

function list:reverse()
    local n = #self
    for i = 1, n // 2 do self[i], self[n + 1 - i] = self[n + 1 - i], self[i] end
    return self
end

function list:sort(...)
    table.sort(self, ...)
    return self
end

-- rlist: a ring that holds the last `cap` values
local rlist = class("rlist")
_G.rlist = rlist

-- adopts t, the oldest first; of more than fit the newest stay
function rlist:new(cap, t)
    t = t or {}
    local n = #t
    local len = math.min(n, cap)
    table.move(t, n - len + 1, n, 1)
    for i = len + 1, n do t[i] = nil end
    t.pos, t.len, t.cap = len, len, cap
    return setmetatable(t, self)
end

function rlist:check(value)
    if getmetatable(value) == self then return value end
end

function rlist:push(value)
    self.pos = self.pos % self.cap + 1
    self.len = math.min(self.len + 1, self.cap)
    self[self.pos] = value
    return self
end

-- 1 is the newest, -1 the oldest
function rlist:get(i)
    if i < 0 then i = self.len + 1 + i end
    if i < 1 or i > self.len then return nil end
    return self[(self.pos - i) % self.cap + 1]
end

function rlist.next(self, i)
    i = i + 1
    if i <= self.len then return i, self:get(i) end
end

function rlist:iter() return rlist.next, self, 0 end

--------------------------------------------------------------------------------
-- log and events

_G.recent_events = rlist:check(_G.recent_events) or rlist:new(100)

local function join(...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = tostring(words[i]) end
    return table.concat(words, "\t")
end

local function write_log(level, message)
    if (setting("loglevel") or 0) < 6 then return end
    local where = debug.getinfo(level + 1, "Sl") or {}
    printf("D %s %s:%d %s", format_timestamp(neosocksd.now()), where.short_src or "?", where.currentline or 0, message)
end

local function record(message)
    local newest, now = recent_events:get(1), neosocksd.now()
    if newest and newest.msg == message then
        newest.count, newest.tstamp = newest.count + 1, now
    else
        recent_events:push({ msg = message, count = 1, tstamp = now })
    end
end

function _G.log(...) write_log(2, join(...)) end

function _G.logf(format, ...) write_log(2, string.format(format, ...)) end

function _G.evlog(...)
    local message = join(...)
    write_log(2, message)
    record(message)
end

function _G.evlogf(format, ...)
    local message = string.format(format, ...)
    write_log(2, message)
    record(message)
end

-- as %q, on one line: what clients send must not look like lines of ours
local function quoted(text) return (string.format("%q", text):gsub("\\\n", "\\n")) end

--------------------------------------------------------------------------------
-- networks

-- what it is, or an error at the place in the ruleset that asks
local function read_cidr(read, cidr)
    if type(cidr) ~= "string" then error("string expected, got " .. type(cidr), 3) end
    local results = table.pack(pcall(read, cidr))
    if not results[1] then error(results[2], 3) end
    return table.unpack(results, 2, results.n)
end

-- subnet, prefix size
function _G.parse_cidr(cidr)
    local subnet, bits = read_cidr(sets.cidr, cidr) -- no tail call, which would lose the place
    return subnet, bits
end

-- high and low half of the subnet, prefix size
function _G.parse_cidr6(cidr)
    local high, low, bits = read_cidr(sets.cidr6, cidr)
    return high, low, bits
end

--------------------------------------------------------------------------------
-- coroutines

local future = { __name = "future" }
future.__index = future

local function future_finish(self, ...)
    self.results = table.pack(...)
    local waiting = self.waiting
    self.waiting, self.thread = nil, nil
    for _, ticket in ipairs(waiting) do wakeup.wake(ticket) end
end

-- ok, results...: waits for them if need be
function future:get()
    if not self.results then
        if not coroutine.isyieldable() then error("not in asynchronous routine", 2) end
        local thread = coroutine.running()
        if thread == self.thread then error("a routine cannot wait for itself", 2) end
        while not self.results do wakeup.pause(self.waiting) end
    end
    return table.unpack(self.results, 1, self.results.n)
end

future.wait = future.get -- up to 1.4.1

-- runs f(...) until it awaits something
function _G.async(f, ...)
    local self = setmetatable({ waiting = {} }, future)
    neosocksd.async(function(...) future_finish(self, ...) end, function(...)
        self.thread = coroutine.running()
        return f(...)
    end, ...)
    return self
end

-- f(callback, ...): returns what the callback is given, now or later
function await.callback(f, ...)
    if not coroutine.isyieldable() then error("not in asynchronous routine", 2) end
    local waiting, results = {}, nil
    f(function(...)
        if results then return end
        results = table.pack(...)
        for _, ticket in ipairs(waiting) do wakeup.wake(ticket) end
    end, ...)
    while not results do wakeup.pause(waiting) end
    return table.unpack(results, 1, results.n)
end

--------------------------------------------------------------------------------
-- calls of peers

_G.rpc = _G.rpc or {}
_G.msgh = _G.msgh or {}
rpc.echo = rpc.echo or function(...) return ... end
msgh.nop = msgh.nop or function() end

local function unpack_result(ok, result)
    if not ok then return false, result end
    return result()
end

-- target: { address, proxyN, ..., proxy1 }; ok, results... or false, message
function await.rpcall(target, name, ...)
    local code = string.format("return rpc[%s](%s)", marshal(name), marshal(...))
    return unpack_result(await.invoke(code, table.unpack(target)))
end

function neosocksd.sendmsg(target, name, ...)
    neosocksd.invoke(string.format("msgh[%s](%s)", marshal(name), marshal(...)), table.unpack(target))
end

_G.unmarshal = require("literals") -- what marshal has written, read and never compiled

--------------------------------------------------------------------------------
-- expressions

-- \d \s \w and their opposites, which POSIX has not; between brackets there is no word for the opposites
local compat_class = {
    d = "[0-9]", D = "[^0-9]", s = "[[:space:]]", S = "[^[:space:]]", w = "[a-zA-Z0-9_]", W = "[^a-zA-Z0-9_]",
}
local compat_member = { d = "0-9", s = "[:space:]", w = "a-zA-Z0-9_" }

-- the position behind the bracket expression that begins at `at`; a bracket right at its beginning is a member
local function bracket_end(pattern, at)
    local _, i = pattern:find("^%[%^?%]?", at)
    while i < #pattern do
        i = i + 1
        local c = pattern:sub(i, i)
        if c == "]" then return i + 1 end
        local _, class = pattern:find("^%[([:.=]).-%1%]", i)
        i = class or i
    end
    return #pattern + 1
end

function regex.compat(pattern)
    local parts, at = {}, 1
    while at <= #pattern do
        local c, behind = pattern:sub(at, at), nil
        if c == "[" then
            behind = bracket_end(pattern, at)
            table.insert(parts, (pattern:sub(at, behind - 1):gsub("\\(.)", compat_member)))
        elseif c == "\\" then
            behind = at + 2
            local class = compat_class[pattern:sub(at + 1, at + 1)]
            table.insert(parts, class or pattern:sub(at, behind - 1))
        else
            behind = pattern:find("[%[\\]", at) or #pattern + 1
            table.insert(parts, pattern:sub(at, behind - 1))
        end
        at = behind
    end
    return table.concat(parts)
end

--------------------------------------------------------------------------------
-- matchers

local match, inet, inet6, composite = {}, {}, {}, {}
_G.match, _G.inet, _G.inet6, _G.composite = match, inet, inet6, composite

local function each(value)
    if type(value) == "table" then return value end
    if type(value) ~= "string" then error("string or table expected, got " .. type(value), 3) end
    return { value }
end

local function split(addr) return neosocksd.splithostport(addr) end

-- a set, or an error at the place in the ruleset that asks for it
local function built(build, entries)
    local ok, result = pcall(build, entries)
    if not ok then error(result, 3) end
    return result
end

-- a set of strings in lower case
local function lower_set(values)
    local set = {}
    for _, value in ipairs(values) do set[value:lower()] = true end
    return set
end

function match.any()
    return function() return true end
end

function match.exact(addresses)
    addresses = each(addresses)
    for _, addr in ipairs(addresses) do split(addr) end -- raises for what is none
    local set = lower_set(addresses)
    return function(addr) return set[addr:lower()] == true end
end

function match.host(hosts)
    local set = lower_set(each(hosts))
    return function(addr) return set[(split(addr)):lower()] == true end
end

function match.port(first, last)
    if type(first) == "table" then
        local set = {}
        for _, port in ipairs(first) do set[tostring(port)] = true end
        return function(addr)
            local _, port = split(addr)
            return set[port] == true
        end
    end
    last = last or first
    return function(addr)
        local _, text = split(addr)
        local port = text:find("^%d+$") and tonumber(text)
        return port and first <= port and port <= last or false
    end
end

function match.domain(domains)
    local set = built(sets.domains, each(domains))
    return function(addr) return set((split(addr))) end
end

-- { com = { example = true } }: example.com and all below it
function match.domaintree(tree)
    if type(tree) ~= "table" then error("domain tree should be a table", 2) end
    return function(addr)
        local node, rest = tree, (split(addr)):lower():gsub("%.$", "")
        while rest ~= "" do
            local head, label = rest:match("^(.*)%.([^.]*)$")
            rest, label = head or "", label or rest
            node = node[label]
            if node == true then return true end
            if type(node) ~= "table" then return false end
        end
        return false
    end
end

function match.pattern(patterns)
    patterns = each(patterns)
    for _, pattern in ipairs(patterns) do string.find("", pattern) end -- raises for what is none
    return function(addr)
        for _, pattern in ipairs(patterns) do
            if addr:find(pattern) then return true end
        end
        return false
    end
end

local function any_regex(expressions)
    return function(addr)
        for _, expression in ipairs(expressions) do
            if expression:find(addr) then return true end
        end
        return false
    end
end

-- of a list, what is no expression is logged and left out
function match.regex(patterns)
    if type(patterns) ~= "table" then return any_regex({ regex.compile(regex.compat(patterns)) }) end
    local expressions = {}
    for _, pattern in ipairs(patterns) do
        local ok, result = pcall(function() return regex.compile(regex.compat(pattern)) end)
        if ok then
            table.insert(expressions, result)
        else
            evlogf("match.regex: %s", result)
        end
    end
    return any_regex(expressions)
end

function inet.subnet(cidrs)
    local set = built(sets.subnets, each(cidrs))
    return function(ip) return set(ip) end
end

function inet6.subnet(cidrs)
    local set = built(sets.subnets6, each(cidrs))
    return function(high, low) return set(high, low) end
end

function composite.inverse(matcher)
    return function(...) return not matcher(...) end
end

function composite.anyof(matchers)
    return function(...)
        for _, matcher in ipairs(matchers) do
            if matcher(...) then return true end
        end
        return false
    end
end

function composite.allof(matchers)
    return function(...)
        for _, matcher in ipairs(matchers) do
            if not matcher(...) then return false end
        end
        return true
    end
end

-- for what is loaded later
function composite.maybe(t, k)
    return function(...)
        local matcher = t[k]
        return matcher and matcher(...) or false
    end
end

local match_chain

function composite.subchain(t, k)
    return function(...)
        local chain = t[k]
        if chain then return match_chain(chain, ...) end
    end
end

--------------------------------------------------------------------------------
-- actions: functions of the address that return a decision

local rule, lb = {}, {}
_G.rule, _G.lb = rule, lb

-- the last value of a decision is the first hop
local function reversed(...) return list:new({ ... }):reverse():totable() end

local function with_chain(addr, proxies) return addr, table.unpack(proxies) end

-- the text of host and port; an IPv6 literal needs brackets, and may have them
local function join_address(host, port)
    if host:find(":", 1, true) and host:sub(1, 1) ~= "[" then return string.format("[%s]:%s", host, port) end
    return string.format("%s:%s", host, port)
end

function rule.direct()
    return function(addr) return addr end
end

function rule.reject()
    return function() return nil end
end

function rule.proxy(...)
    local proxies = reversed(...)
    return function(addr) return with_chain(addr, proxies) end
end

-- ":port" keeps the host, "host:" the port
function rule.redirect(target, ...)
    local proxies = reversed(...)
    local new_host, new_port = split(target)
    return function(addr)
        local host, port = split(addr)
        if new_host ~= "" then host = new_host end
        if new_port ~= "" then port = new_port end
        return with_chain(join_address(host, port), proxies)
    end
end

function rule.rewrite(pattern, replacement, ...)
    local proxies = reversed(...)
    return function(addr) return with_chain((addr:gsub(pattern, replacement)), proxies) end
end

local decide = {}

-- by what kind of literal the host is; of a name nothing is left but the default
local function decide_literal(addr)
    local host = split(addr)
    if neosocksd.parse_ipv4(host) then return decide.route(addr) end
    if neosocksd.parse_ipv6(host) then return decide.route6(addr) end
    return decide.default(addr)
end

-- from the top
local function decide_again(addr)
    local host = split(addr)
    if neosocksd.parse_ipv4(host) or neosocksd.parse_ipv6(host) then return decide_literal(addr) end
    return decide.resolve(addr)
end

function rule.loopback(pattern, replacement)
    return function(addr) return decide_again((addr:gsub(pattern, replacement))) end
end

function rule.maybe(t, k)
    return function(addr)
        local action = t[k]
        if action then return action(addr) end
    end
end

-- by the address that the name has
function rule.resolve()
    return function(addr)
        local host, port = split(addr)
        local resolved = await.resolve(host)
        if not resolved then
            evlogf("unable to resolve host name: %s", quoted(host))
            return nil
        end
        return decide_again(join_address(resolved, port))
    end
end

function rule.default()
    return function(addr) return decide.default(addr) end
end

-- up to 1.4: in an overlay these went by way of agent.lua
function match.agent()
    return function(addr)
        local agent = rawget(_G, "agent")
        return agent and agent.matcher and agent.matcher(addr) ~= nil or false
    end
end

function rule.agent()
    return function(addr)
        local agent = rawget(_G, "agent")
        local action = agent and agent.matcher and agent.matcher(addr)
        if action then return action(addr) end
    end
end

function lb.roundrobin(actions)
    local at = 0
    return function(addr)
        if #actions == 0 then return nil end
        at = at % #actions + 1
        return actions[at](addr)
    end
end

-- Interleaved by weight: each turn all gain their weight, the one that has most is taken and pays the sum. Over a cycle
-- of that sum each is taken exactly as often as its weight says. Weights are read at each turn: they may be changed.
function lb.iwrr(weighted)
    for _, entry in ipairs(weighted) do
        if type(entry[1]) ~= "number" then error("weight: number expected, got " .. type(entry[1]), 2) end
    end
    local credits = setmetatable({}, { __mode = "k" })
    return function(addr)
        local best, most, sum = nil, nil, 0
        for _, entry in ipairs(weighted) do
            local weight = entry[1]
            if weight > 0 and weight < math.huge then
                local credit = (credits[entry] or 0) + weight
                credits[entry], sum = credit, sum + weight
                if not best or credit > most then best, most = entry, credit end
            end
        end
        if not best then return nil end
        credits[best] = most - sum
        return best[2](addr)
    end
end

--------------------------------------------------------------------------------
-- decisions

local function tagged(tag, addr)
    if not tag then return end
    evlogf("[%s] %s", tag, quoted(addr))
    neosocksd.tag(tag) -- GET /sessions shows it
end

-- action, tag of the first rule that matches
function match_chain(chain, ...)
    for _, entry in ipairs(chain) do
        local matcher, action, tag = entry[1], entry[2], entry[3]
        if action == nil then -- { function }: what it returns is not nil if it matches
            action, tag = matcher(...)
            if action then return action, tag end
        elseif matcher(...) then
            return action, tag
        end
    end
end

-- true, decision... if the chain has a rule for it
local function apply(chain, addr, ...)
    if not chain then return false end
    local action, tag = match_chain(chain, ...)
    if not action then return false end
    tagged(tag, addr)
    return true, action(addr)
end

function decide.default(addr)
    local default = rawget(_G, "route_default")
    if not default then return addr end
    tagged(default[2], addr)
    return default[1](addr)
end

local function first_of(next_step, found, ...)
    if found then return ... end
    return next_step()
end

function decide.route(addr)
    return first_of(function()
        local ip = neosocksd.parse_ipv4((split(addr)))
        if not ip then return decide.default(addr) end
        return first_of(function() return decide.default(addr) end, apply(rawget(_G, "route"), addr, ip))
    end, apply(rawget(_G, "redirect"), addr, addr))
end

function decide.route6(addr)
    return first_of(function()
        local literal = split(addr):gsub("%%.*", "") -- an interface may be named behind it
        local high, low = neosocksd.parse_ipv6(literal)
        if not high then return decide.default(addr) end
        return first_of(function() return decide.default(addr) end, apply(rawget(_G, "route6"), addr, high, low))
    end, apply(rawget(_G, "redirect6"), addr, addr))
end

local function decide_host(addr)
    local host, port = split(addr)
    local known = table.get(rawget(_G, "hosts"), host:lower())
    if known then addr = join_address(known, port) end
    return decide_literal(addr)
end

function decide.resolve(addr)
    return first_of(function() return decide_host(addr) end, apply(rawget(_G, "redirect_name"), addr, addr))
end

--------------------------------------------------------------------------------
-- the ruleset

_G.secrets = _G.secrets or {}
_G.num_requests = _G.num_requests or 0
_G.num_authorized = _G.num_authorized or 0
-- what num_requests was, at the load and at each tick: the differences are requests by the minute
_G.stat_requests = rlist:check(_G.stat_requests) or rlist:new(60, { num_requests })
_G.RECENT_EVENTS_STATS = _G.RECENT_EVENTS_STATS or 10

local function check_secret(username, password)
    local secret = secrets[username]
    if secret == true then return true end
    return type(secret) == "string" and type(password) == "string" and sets.equal(secret, password)
end

local function authenticate(addr, username, password)
    local judge = table.get(rawget(_G, "ruleset"), "authenticate")
    local good
    if judge then
        good = judge(addr, username, password)
    else
        good = username ~= nil and check_secret(username, password)
    end
    if not good then evlogf("authenticate failed: %s", quoted(username or "")) end
    return good
end

-- a refusal that follows is one of who the client says it is: HTTP 407, and the label `auth`
local unauthorized = neosocksd.unauthorized or function() end

-- Connects as decided. In a handler of requests the client is told by await.forward, and what the handler returns behind
-- it is ignored; so the decision is always returned, for callers that expect one, as up to 1.5.
local function answer(...)
    if ... == nil then return nil end
    local ok, result, message = pcall(await.forward, ...)
    if not ok then return ... end -- not in a handler
    if not result then
        evlogf("forward %s: %s", quoted((...)), message or "failed")
        return nil
    end
    return ...
end

local function handler(decision)
    return function(addr, username, password)
        _G.num_requests = num_requests + 1
        if setting("auth_required") then
            if not authenticate(addr, username, password) then
                unauthorized()
                return nil
            end
            _G.num_authorized = num_authorized + 1
        end
        return answer(decision(addr))
    end
end

local libruleset = {
    decide = decide,
    resolve = handler(function(addr) return decide.resolve(addr) end),
    route = handler(function(addr) return decide.route(addr) end),
    route6 = handler(function(addr) return decide.route6(addr) end),
}

-- User and password alone, before the client has said where to: SOCKS5 wants to know then. A judge of the script's own
-- gets the address, too, and handlers of its own may know users that we do not: these judge with the request.
function libruleset.login(username, password)
    local current = rawget(_G, "ruleset")
    if table.get(current, "authenticate") then return true end
    for _, name in ipairs{ "resolve", "route", "route6" } do
        if table.get(current, name) ~= libruleset[name] then return true end
    end
    if check_secret(username, password) then return true end
    _G.num_requests = num_requests + 1 -- a request that is not heard any more
    evlogf("authenticate failed: %s", quoted(username or ""))
    return false
end

-- chains: { { proxy1, proxy2 }, {}, ... }; true at the first one that connects
function libruleset.failover(addr, chains)
    for _, chain in ipairs(chains) do
        local ok, message = await.forward(addr, table.unpack(reversed(table.unpack(chain))))
        if ok then return true end
        if message == "request cancelled" then break end -- the client has gone
    end
    return false
end

function libruleset.tick() stat_requests:push(num_requests) end

-- Requests by the minute, the oldest first, and behind them those of the minute that has not ended; and their number.
local function minutes()
    local counts, before = {}, nil
    local function add(now)
        if before then table.insert(counts, math.max(now - before, 0)) end -- the counter may have been set to zero
        before = now
    end
    for i = stat_requests.len, 1, -1 do add(stat_requests:get(i)) end
    add(num_requests)
    return counts, #counts
end

local function recent_lines(lines)
    lines:insert("> Recent Events")
    for i, event in recent_events:iter() do
        if i > RECENT_EVENTS_STATS then break end
        local times = event.count > 1 and string.format(" (x%d)", event.count) or ""
        lines:insertf("%s %s%s", format_timestamp(event.tstamp), event.msg, times)
    end
end

-- five rows of bars, the oldest minute on the left
local function chart_lines(lines, counts, most)
    for row = 4, 0, -1 do
        local bars = list:new()
        for _, n in ipairs(counts) do
            bars:insert(math.floor(n / math.max(most, 1) * 5 + 0.5) > row and "|" or " ")
        end
        lines:insert(bars:concat())
    end
    lines:insert(("-"):rep(#counts - 1) .. "*")
end

-- The average is that of whole minutes, as long as there are any.
function libruleset.stats()
    local lines, counts, last = list:new(), minutes()
    local sum, most = 0, 0
    for i, n in ipairs(counts) do
        if i < last then sum = sum + n end
        most = math.max(most, n)
    end
    local average = last > 1 and sum / (last - 1) or counts[1] or 0
    recent_lines(lines)
    lines:insertf("> Request Stats (avg=%.1f/min, max=%d)", average, most)
    chart_lines(lines, counts, most)
    return lines:concat("\n")
end

return libruleset
