-- The examples that neosocksd's own documents gave to users, three generations of them, as they stand there as far as
-- that can be checked. With stubs, or in a coroutine of a real server.
local check = require("check")
local is, same, raises = check.is, check.same, check.raises
local stubs = not rawget(_G, "sluice") and require("stubs")
require("libruleset")

-- time passes until that is so
local function settle(done)
    if stubs then stubs.run() end
    for _ = 1, stubs and 0 or 500 do
        if done() then break end
        await.sleep(0.01)
    end
    is(done(), true, "it has ended")
end

local tests = {}

function tests.config()
    local live = config
    _G.config = neosocksd.config()
    is(type(config.loglevel), "number")
    if config.loglevel >= 6 then print("...") end
    log("nothing breaks")
    _G.config = live
end

function tests.stats_callback()
    local ruleset = {}
    function ruleset.stats(dt, q)
        local w = {}
        table.insert(w, string.format("dt = %.03f, q = %q", dt, q))
        return table.concat(w, "\n")
    end
    is(ruleset.stats(1.5, "x"), 'dt = 1.500, q = "x"')
    is(ruleset.stats(1, nil), "dt = 1.000, q = nil")
end

function tests.addresses()
    local host, port = neosocksd.splithostport("example.com:80")
    same({ host, port }, { "example.com", "80" })
    raises("invalid address", neosocksd.splithostport, "example.com")
    local function in_169_254(s)
        local subnet = neosocksd.parse_ipv4("169.254.0.0")
        local mask = 0xFFFF0000
        local ip = neosocksd.parse_ipv4(s)
        return ip and (ip & mask) == subnet
    end
    is(in_169_254("169.254.7.1"), true)
    is(in_169_254("203.0.113.1"), false)
    is(in_169_254("example.com"), nil)
    local function in_fe80(s)
        local subnet1 = neosocksd.parse_ipv6("FE80::")
        local mask1 = 0xFFC0000000000000
        local ip1 = neosocksd.parse_ipv6(s)
        return ip1 and (ip1 & mask1) == subnet1
    end
    is(in_fe80("FEBF::1"), true)
    is(in_fe80("2001:DB8::1"), false)
    is(in_fe80("203.0.113.1"), nil)
end

function tests.timer()
    neosocksd.setinterval(1.5)
    neosocksd.setinterval(0)
end

function tests.low_level_async()
    local got
    local co, err = neosocksd.async(function(...) got = table.pack(...) end, function(a) return a .. "!" end, "done")
    same({ type(co), err, n = 2 }, { "thread", nil, n = 2 })
    same(got, { true, "done!" })
    neosocksd.async(function(...) got = table.pack(...) end, error, "raised", 0)
    same(got, { false, "raised" })
end

function tests.invoke()
    if not stubs then return end -- nobody is there; test_ruleset.py has real peers
    neosocksd.invoke([[log("test rpc")]], "api.neosocksd.internal:80", "socks4a://127.0.0.1:1080")
    same(stubs.sent[#stubs.sent], { [[log("test rpc")]], "api.neosocksd.internal:80", "socks4a://127.0.0.1:1080" })
end

function tests.counters_and_time()
    is(type(neosocksd.stats()), "table")
    is(neosocksd.now() > 1e9, true)
    local t0, t1, t2, t3 = time.monotonic(), time.process(), time.thread(), time.wall()
    for _, t in ipairs{ t0, t1, t2, t3 } do is(math.type(t), "float") end
    is(math.abs(time.unix() - t3) < 5, true)
    local t, a, b = time.measure(function(x) return x, 2 end, 1)
    is(t >= 0 and t < 5, true)
    same({ a, b }, { 1, 2 })
end

function tests.traceback()
    local ok, result = xpcall(function() error("broken") end, neosocksd.traceback)
    is(ok, false)
    is(result:find("broken\nstack traceback:\n", 1, true) ~= nil, true)
end

function tests.expressions()
    local reg = regex.compile([[\.example\.(com|org)$]])
    same({ reg:find("www.example.org") }, { 4, 15 })
    is(select("#", reg:find("www.example.net")), 0)
    same({ reg:match("www.example.org") }, { ".example.org", "org" })
    local seen = {}
    for m, sub1 in regex.compile("([a-z])[0-9]"):gmatch("a1 b2 c3") do table.insert(seen, m .. sub1) end
    same(seen, { "a1a", "b2b", "c3c" })
end

function tests.compression()
    local s = ("neosocksd "):rep(100)
    local z = zlib.compress(s)
    local s1 = zlib.uncompress(z)
    is(s, s1)
    is(#z < #s, true)
    is(zlib.gunzip(zlib.gzip(s)), s)
end

function tests.marshal()
    local s = marshal("a", { "b", ["c"] = "d" })
    is(s, '"a",{"b",["c"]="d",}')
    local a, t = unmarshal(s)
    same({ a, t[1], t.c }, { "a", "b", "d" })
end

function tests.two_futures()
    local got, old
    async(function(...)
        local future1 = async(function(...)
            await.sleep(0.01)
            return "result1", ...
        end, ...)
        local future2 = async(function(...) return "result2" end, ...)
        local ok1, r1, more = future1:get()
        local ok2, r2 = future2:get()
        got = table.pack(ok1, r1, more, ok2, r2)
    end, "argument")
    async(function()
        local t1 = async(function() await.sleep(0.01) return 1 end)
        local t2 = async(function() return 2 end)
        local ok, r1 = t1:wait()
        local also, r2 = t2:wait()
        old = table.pack(ok, r1, also, r2)
    end)
    settle(function() return got ~= nil and old ~= nil end)
    same(got, { true, "result1", "argument", true, "result2" })
    same(old, { true, 1, true, 2 })
end

function tests.execute()
    local got = {}
    async(function()
        got.good = table.pack(await.execute("true"))
        got.bad = table.pack(await.execute("exit 3"))
    end)
    settle(function() return got.bad ~= nil end)
    same(got.good, { true, "exit", 0 })
    same(got.bad, { nil, "exit", 3, n = 3 })
end

function tests.await_invoke()
    local done
    local future = async(function(addr)
        local begin = neosocksd.now()
        local ok, result = await.invoke([[await.idle(); return "ok"]], addr)
        if not ok then error("invocation failed: " .. result) end
        ok, result = result()
        if not ok then error("remote error: " .. result) end
        assert(result == "ok")
        local rtt = neosocksd.now() - begin
        logf("ping %s: %dms", addr, math.ceil(rtt * 1e+3))
        done = true
    end, neosocksd.config().api or "127.0.1.1:9080")
    settle(function() return done or future.results ~= nil end)
    same(future.results, { true, n = 1 })
end

function tests.resolve_and_sleep()
    if stubs then stubs.names.localhost = "127.0.0.1" end
    local addr, slept
    async(function() addr = await.resolve("localhost") end)
    async(function()
        await.sleep(0.015)
        slept = true
    end)
    settle(function() return addr ~= nil and slept == true end)
    is(addr == "127.0.0.1" or addr == "::1", true)
end

local names = {}
for name in pairs(tests) do table.insert(names, name) end
table.sort(names)
for i, name in ipairs(names) do
    local ok, message = pcall(tests[name])
    if not ok then error(name .. ": " .. tostring(message), 0) end
    if stubs then print(string.format("ok %d - documents %s", i, name)) end
end
return check.count
