-- Every function that a server gives to scripts, with right and wrong arguments. Runs in a coroutine of a real server.
local check = require("check")
local is, same, raises = check.is, check.same, check.raises

local tests = {}

function tests.globals()
    is(neosocksd, sluice)
    for _, name in ipairs{ "await", "neosocksd", "regex", "time", "zlib" } do
        is(type(_G[name]), "table", name)
        is(package.loaded[name], _G[name], name)
    end
    is(type(marshal), "function")
    is(package.loaded.marshal, marshal)
    is(package.path:sub(1, 5), "?.lua")
    is(package.cpath, "?.so")
    is(type(NDEBUG), "boolean")
    for _, library in ipairs{ "io", "os", "debug", "coroutine", "utf8", "string", "table", "math" } do is(type(_G[library]), "table") end
end

function tests.parse_ipv4()
    is(neosocksd.parse_ipv4("1.2.3.4"), 0x01020304)
    is(neosocksd.parse_ipv4("255.255.255.255"), 0xffffffff)
    for _, bad in ipairs{ "1.2.3", "1.2.3.256", "", "a", "1.2.3.4:5", " 1.2.3.4", "::1", 5, {} } do
        is(select("#", neosocksd.parse_ipv4(bad)), 0)
    end
    is(select("#", neosocksd.parse_ipv4()), 0)
end

function tests.parse_ipv6()
    same({ neosocksd.parse_ipv6("::1") }, { 0, 1 })
    same({ neosocksd.parse_ipv6("2001:db8::ffff:ffff:ffff:ffff") }, { 0x20010db800000000, -1 })
    same({ neosocksd.parse_ipv6("::ffff:1.2.3.4") }, { 0, 0xffff01020304 })
    for _, bad in ipairs{ "fe80::1%lo", "1.2.3.4", "", ":::", 5 } do is(select("#", neosocksd.parse_ipv6(bad)), 0) end
end

function tests.splithostport()
    same({ neosocksd.splithostport("a:1") }, { "a", "1" })
    same({ neosocksd.splithostport("[::1]:80") }, { "::1", "80" })
    same({ neosocksd.splithostport(":") }, { "", "" })
    same({ neosocksd.splithostport("host:") }, { "host", "" })
    same({ neosocksd.splithostport(":http") }, { "", "http" })
    same({ neosocksd.splithostport("[]:1") }, { "", "1" })
    raises("invalid address: `nothing'", neosocksd.splithostport, "nothing")
    raises("invalid address: `::1:80'", neosocksd.splithostport, "::1:80")
    raises("address too long: 300 bytes", neosocksd.splithostport, ("x"):rep(298) .. ":1")
    raises("bad argument #1 to 'neosocksd.splithostport' (string expected, got no value)", neosocksd.splithostport)
end

function tests.config()
    local c = neosocksd.config()
    is(c ~= neosocksd.config(), true, "a new table each time")
    is(c.timeout, 60.0)
    is(math.type(c.loglevel), "integer")
    is(c.api, c.restapi)
    is(c.block_multicast, true)
    is(c.tcp_nodelay, true)
    is(c.netdev, nil)
    is(c.relay, "auto")
    for _, key in ipairs{ "listen", "timeout", "auth_required", "block_local", "max_sessions", "proxy", "ruleset", "tcp_sndbuf" } do
        is(neosocksd.setting(key), c[key], key)
    end
    is(neosocksd.setting("nothing"), nil)
    raises("string expected, got no value", neosocksd.setting)
end

function tests.now_and_stats()
    is(math.abs(neosocksd.now() - os.time()) < 5, true)
    local s = neosocksd.stats()
    for _, key in ipairs{ "num_halfopen", "num_sessions", "num_sessions_peak", "num_request", "num_success", "num_reject_ruleset",
        "num_reject_timeout", "num_reject_upstream", "byt_up", "byt_down", "num_accept", "num_serve", "num_api_request",
        "num_api_success", "num_dns_query", "num_dns_success", "bytes_allocated", "num_object", "num_thread_active",
        "num_thread_peak" } do
        is(math.type(s[key]), "integer", key)
    end
    is(s.uptime > 1e6 and s.uptime < 1e13, true)
    is(s.bytes_allocated > 10000 and s.num_object > 100, true)
    is(s.num_thread_active >= 1, true)
end

function tests.setinterval()
    for _, n in ipairs{ 60, 0.001, 0, 0 / 0, 1 / 0, -1 / 0, 1e300, 5e-324, -1, 0 } do neosocksd.setinterval(n) end
    raises("bad argument #1 to 'neosocksd.setinterval' (number expected, got string)", neosocksd.setinterval, "5")
    raises("number expected, got no value", neosocksd.setinterval)
end

function tests.async()
    local got
    local co = neosocksd.async(function(...) got = table.pack(...) end, function(a, b) return b, a, nil end, 1, 2)
    is(type(co), "thread")
    same(got, { true, 2, 1, nil, n = 4 })
    neosocksd.async(function(...) got = table.pack(...) end, function() error("broken", 0) end)
    same(got, { false, "broken" })
    neosocksd.async(function(...) got = table.pack(...) end, 5)
    is(got[1], false)
    is(got[2]:find("attempt to call a number value", 1, true) ~= nil, true)
    got = nil
    neosocksd.async(function(...) got = table.pack(...) end, function() await.sleep(0.02) return "later" end)
    is(got, nil)
    await.sleep(0.1)
    same(got, { true, "later" })
    neosocksd.async(function() error("in finish", 0) end, function() end)
    is(neosocksd.stats().lasterror, "in finish")
    raises("bad argument #1 to 'neosocksd.async' (function expected", neosocksd.async, 5, print)
    raises("value expected", neosocksd.async, print)
end

function tests.async_in_numbers()
    local done = 0
    for i = 1, 2000 do
        neosocksd.async(function(ok, n) done = done + (ok and n == i and 1 or 0) end, function()
            await.sleep(i % 7 * 0.003)
            await.idle()
            return i
        end)
    end
    for _ = 1, 100 do
        if done == 2000 then break end
        await.sleep(0.05)
    end
    is(done, 2000)
end

function tests.sleep()
    local begin = time.monotonic()
    is(select("#", await.sleep(0.05)), 0)
    is(time.monotonic() - begin >= 0.05, true)
    is(select("#", await.sleep("0")), 0)
    is(select("#", await.idle()), 0)
    for _, bad in ipairs{ -1, 0 / 0, 1 / 0, 1.1e9 } do raises("n must be finite and in [0, 1e9]", await.sleep, bad) end
    raises("number expected, got nil", await.sleep, nil)
    raises("not in asynchronous routine", function()
        -- a coroutine of our own may sleep; where nothing can yield it may not
        table.sort({ 1, 2 }, function() await.sleep(0) end)
    end)
end

function tests.sleeping_in_a_coroutine_of_our_own()
    local steps = {}
    local co = coroutine.create(function()
        table.insert(steps, "before")
        await.sleep(0.01)
        table.insert(steps, "behind")
    end)
    coroutine.resume(co)
    await.sleep(0.1)
    is(table.concat(steps, " "), "before behind")
    is(coroutine.status(co), "dead")
end

function tests.resolve()
    is(await.resolve("192.0.2.1"), "192.0.2.1")
    is(await.resolve("2001:DB8::1"), "2001:DB8::1")
    is(await.resolve("localhost") == "127.0.0.1" or await.resolve("localhost") == "::1", true)
    for _, bad in ipairs{ "", "a b", "x:1", ("x"):rep(300) } do is(select("#", await.resolve(bad)), 0) end
    raises("string expected, got no value", await.resolve)
    is(neosocksd.resolve("127.0.0.1"), "127.0.0.1")
    is(select("#", neosocksd.resolve("no such name at all")), 0)
end

function tests.invoke_addresses()
    for _, bad in ipairs{ "nothing", "", "a:b", "::1:80", 5 } do
        raises("invalid address", await.invoke, "return 1", bad)
        raises("invalid address", neosocksd.invoke, "return 1", bad)
    end
    raises("invalid address", await.invoke, "return 1")
    raises("invalid address", await.invoke, "return 1", "a:1", "ftp://b:1")
    raises("string expected", await.invoke)
    raises("must be called from a ruleset request handler", await.forward, "a:1")
    raises("must be called from a ruleset request handler", sluice.cache, 1)
    raises("give 0 to 86400 seconds", sluice.cache, -1)
end

function tests.execute()
    same({ await.execute("exit 2") }, { nil, "exit", 2, n = 3 })
    same({ await.execute("kill -TERM $$") }, { nil, "signal", 15, n = 3 })
    raises("string expected", await.execute)
    local results, count = {}, 0
    for i = 1, 20 do
        neosocksd.async(function(_, _, _, code)
            results[i], count = code, count + 1
        end, await.execute, "exit " .. i)
    end
    for _ = 1, 200 do
        if count == 20 then break end
        await.sleep(0.05)
    end
    for i = 1, 20 do is(results[i], i) end
end

function tests.traceback()
    is(neosocksd.traceback("x"):sub(1, 19), "x\nstack traceback:\n")
    is(neosocksd.traceback(nil), "(nil)")
    is(neosocksd.traceback({}):find("^%(table: 0x") ~= nil, true)
end

function tests.sets()
    is(sluice.domains({ "example.com" })("a.example.com"), true)
    is(sluice.subnets("10.0.0.0/8\n")(0x0a000001), true)
    is(sluice.subnets6({ "::/0" })(0, 0), true)
end

function tests.require_embedded()
    raises("no embedded script 'nothing_such.lua'", require, "nothing_such")
    is(type(require("libruleset")), "table")
end

function tests.closing_values()
    local closed
    neosocksd.async(function() end, function()
        local x <close> = setmetatable({}, { __close = function() closed = true end })
        await.sleep(0.01)
    end)
    await.sleep(0.1)
    is(closed, true)
end

local names = {}
for name in pairs(tests) do table.insert(names, name) end
table.sort(names)
for _, name in ipairs(names) do
    local ok, message = pcall(tests[name])
    if not ok then error(name .. ": " .. tostring(message), 0) end
end
return check.count
