-- The environment of a server, as far as the suites need it, for running them without one. What is sent, resolved or
-- forwarded is decided by the suite: stubs.names, stubs.forwards, stubs.sent. Who sleeps wakes up in stubs.run().
local stubs = { sleeping = {}, pauses = {}, woken = {}, names = {}, forwards = {}, sent = {}, settings = { loglevel = 4, auth_required = false }, now = 1700000000 }

local function parse_ipv4(s)
    if type(s) ~= "string" then return end
    local a, b, c, d = s:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$")
    if not a then return end
    a, b, c, d = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
    if a > 255 or b > 255 or c > 255 or d > 255 then return end
    return a << 24 | b << 16 | c << 8 | d
end

-- groups of hexadecimal digits with one "::" at most
local function parse_ipv6(s)
    if type(s) ~= "string" or not s:find(":", 1, true) or s:find("[^%x:]") then return end
    local head, tail = s:match("^(.-)::(.*)$")
    local function groups(text)
        local all = {}
        for group in text:gmatch("[^:]+") do table.insert(all, tonumber(group, 16)) end
        return all
    end
    local all = groups(head or s)
    if head then
        local rest = groups(tail)
        while #all + #rest < 8 do table.insert(all, 0) end
        for _, group in ipairs(rest) do table.insert(all, group) end
    end
    if #all ~= 8 then return end
    local high, low = 0, 0
    for i = 1, 4 do high, low = high << 16 | all[i], low << 16 | all[i + 4] end
    return high, low
end

_G.neosocksd = {
    config = function()
        local copy = {}
        for k, v in pairs(stubs.settings) do copy[k] = v end
        return copy
    end,
    now = function() return stubs.now end,
    parse_ipv4 = parse_ipv4,
    parse_ipv6 = parse_ipv6,
    splithostport = function(s)
        local host, port = tostring(s):match("^(.*):([^:]*)$")
        if host and host:sub(1, 1) == "[" and host:sub(-1) == "]" then
            host = host:sub(2, -2)
        elseif not host or host:find(":", 1, true) then
            error("invalid address: `" .. tostring(s) .. "'", 2)
        end
        return host, port
    end,
    async = function(finish, f, ...)
        local co = coroutine.create(function(...) finish(pcall(f, ...)) end)
        assert(coroutine.resume(co, ...))
        return co
    end,
    invoke = function(...) table.insert(stubs.sent, table.pack(...)) end,
    resolve = function(host) return stubs.names[host] end,
    setinterval = function() end,
    tag = function(tag) stubs.tag = tag end,
    unauthorized = function() stubs.unauthorized = (stubs.unauthorized or 0) + 1 end,
    stats = function() return { num_request = 0, uptime = 1e9 } end,
    traceback = debug.traceback,
}
_G.sluice = _G.neosocksd
_G.await = {
    resolve = function(host) return stubs.names[host] end,
    sleep = function()
        table.insert(stubs.sleeping, (coroutine.running()))
        coroutine.yield()
    end,
    idle = function() end,
    execute = function(command)
        local pipe = assert(io.popen("( " .. command .. " ) >/dev/null 2>&1; echo $?"))
        local code = pipe:read("n")
        pipe:close()
        return code == 0 or nil, "exit", code
    end,
    -- in a handler: stubs.handling
    forward = function(addr, ...)
        if not stubs.handling then error("await.forward must be called from a ruleset request handler", 2) end
        table.insert(stubs.forwards, table.pack(addr, ...))
        return stubs.forward_result ~= false, stubs.forward_result == false and "connection failed" or nil
    end,
    -- a peer that is ourselves; as there, the results come behind a true, an error behind a false
    invoke = function(code, ...)
        table.insert(stubs.sent, table.pack(code, ...))
        if stubs.invoke_error then return false, stubs.invoke_error end
        local results = table.pack(pcall(assert(load(code, "=(rpc)", "t", setmetatable({}, { __index = _G })))))
        return true, function() return table.unpack(results, 1, results.n) end
    end,
}

-- Who is woken goes on in stubs.run(), as there in a later turn of the loop.
package.loaded.wakeup = {
    pause = function(tickets)
        table.insert(stubs.pauses, (coroutine.running()))
        table.insert(tickets, #stubs.pauses)
        coroutine.yield()
    end,
    wake = function(ticket)
        if stubs.pauses[ticket] then table.insert(stubs.woken, stubs.pauses[ticket]) end
        stubs.pauses[ticket] = false
    end,
}

-- time passes until nobody sleeps and nobody is to be woken
function stubs.run()
    while #stubs.sleeping + #stubs.woken > 0 do
        local thread = table.remove(#stubs.woken > 0 and stubs.woken or stubs.sleeping, 1)
        if coroutine.status(thread) == "suspended" then coroutine.resume(thread) end
    end
end

return stubs
