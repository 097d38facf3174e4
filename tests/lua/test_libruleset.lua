-- libruleset.lua: every function with right and wrong arguments, the order of decisions, what survives a reload.
local check = require("check")
local stubs = require("stubs")
local is, same, raises = check.is, check.same, check.raises

local function load_library()
    package.loaded.libruleset = nil
    return require("libruleset")
end

local libruleset = load_library()
local tests = {}

-- what f prints, line by line
function _G.capture(f, ...)
    local lines, saved = {}, print
    _G.print = function(...)
        local words = table.pack(...)
        for i = 1, words.n do words[i] = tostring(words[i]) end
        table.insert(lines, table.concat(words, "\t"))
    end
    local ok, message = pcall(f, ...)
    _G.print = saved
    assert(ok, message)
    return table.unpack(lines)
end
local capture = _G.capture
_G.capture = nil

local function reset()
    for _, name in ipairs{ "redirect_name", "redirect", "redirect6", "route", "route6", "route_default", "hosts", "ruleset", "agent" } do
        _G[name] = nil
    end
    stubs.handling, stubs.forward_result = false, nil
    stubs.names, stubs.forwards, stubs.sent, stubs.invoke_error = {}, {}, {}, nil
    stubs.settings.auth_required, stubs.settings.loglevel = false, 4
end

function tests.strings_and_tables()
    is(("abc"):startswith("ab"), true)
    is(("abc"):startswith(""), true)
    is(("abc"):startswith("bc"), false)
    is(("abc"):endswith("bc"), true)
    is(("abc"):endswith("abcd"), false)
    is(("abc"):endswith(""), false)
    local t = { a = { b = { 7 } } }
    is(table.get(t), t)
    is(table.get(t, "a", "b", 1), 7)
    is(table.get(t, "a", "x", "y"), nil)
    is(table.get(t, "a", "b", 1, "z"), nil)
    is(table.get(nil, "a"), nil)
    is(table.get({ [false] = 1 }, false), 1)
    is(table.get(setmetatable({}, { __index = { x = 2 } }), "x"), 2)
    local printed = table.pack(capture(printf, "%d %s", 5, "x"))
    same(printed, { "5 x" })
    is(#format_timestamp(1700000000.9), 25)
    is(format_timestamp(1700000000.9), format_timestamp(1700000000))
    is(format_timestamp(0):match("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d[+-]%d%d:%d%d$") ~= nil, true)
end

function tests.package_replace()
    package.loaded.sample_a, _G.sample_a = nil, nil
    is(package.replace("sample_a", function(name) return { name } end)[1], "sample_a")
    is(rawget(_G, "sample_a"), nil, "it was no global before")
    _G.sample_a = { "somebody else's" }
    local other = _G.sample_a
    package.replace("sample_a", function() return { "new" } end)
    is(_G.sample_a, other, "this is not the module")
    is(package.loaded.sample_a[1], "new")
    _G.sample_a = package.loaded.sample_a
    package.replace("sample_a", function() end)
    is(package.loaded.sample_a, true)
    is(_G.sample_a, true)
    raises("broken", package.replace, "sample_a", function() error("broken") end)
    is(package.loaded.sample_a, true, "the old one stays")
    package.loaded.sample_a, _G.sample_a = nil, nil
end

function tests.log_lines()
    stubs.settings.loglevel = 5
    same({ capture(log, "x") }, {})
    stubs.settings.loglevel = 6 -- after the library was loaded
    local lines = { capture(function() log("a", 2, nil) logf("%s-%d", "b", 3) evlog("c") evlogf("[%s]", "d") end) }
    is(#lines, 4)
    local here = debug.getinfo(1, "S").short_src
    for i, message in ipairs{ "a\t2\tnil", "b-3", "c", "[d]" } do
        local time, file, line, text = lines[i]:match("^D (%S+) (.-):(%d+) (.*)$")
        is(#(time or ""), 25, lines[i])
        is(file, here)
        is(tonumber(line) > 1, true)
        is(text, message)
    end
    is(recent_events:get(2).msg, "c")
    local live = config
    _G.config = { loglevel = 1 } -- a copy that a script put there
    is(#{ capture(log, "x") }, 1)
    _G.config = live
    raises("", logf, "%d", "x")
end

function tests.settings()
    stubs.settings.something = 5
    is(config.something, 5, "looked up when it is asked for")
    is(config.nothing, nil)
    local found
    for key, value in pairs(config) do found = found or key == "something" and value end
    is(found, 5)
    stubs.settings.something = nil
    is(rawget(_G, "config"), config)
end

function tests.lists()
    local l = list:new({ 3, 1, 2 })
    is(list:check(l), l)
    is(list:check({}), nil)
    is(list:check(5), nil)
    is(l:sort(), l)
    is(l:concat(","), "1,2,3")
    is(l:reverse():concat(","), "3,2,1")
    is(l:map(function(x) return x * 2 end):concat(","), "6,4,2")
    is(l:append({ 9, 8 }):concat(","), "6,4,2,9,8")
    is(l:insert(7):insert(1, 0):concat(","), "0,6,4,2,9,8,7")
    is(l:insertf("%02d", 5):concat(","), "0,6,4,2,9,8,7,05")
    is(l:remove(1), 0)
    same({ list:new({ 1, 2 }):unpack() }, { 1, 2 })
    local seen = {}
    for i, v in list:new({ "a", "b" }):iter() do seen[i] = v end
    same(seen, { "a", "b" })
    is(getmetatable(list:new({}):totable()), nil)
    is(getmetatable(l).__name, "list")
    local given = { 5 }
    is(list:new(given), given)
    is(#list:new(), 0)
    same({ list:new({ 1, 2, 3 }):unpack(2, 3) }, { 2, 3 })
    is(list:new({ "a" }):append(list:new()):append({ "b" }):concat(), "ab")
    is(list:new({ 2, 1, 3 }):sort(function(a, b) return a > b end):concat(), "321")
    is(list:new():reverse():map(error):sort():concat(), "")
    is(list:new({ 1, 2, 3 }):remove(), 3)
    local old = list:new({ 1 })
    load_library()
    is(list:check(old), old, "lists of before a reload stay lists")
end

function tests.rings()
    local r = rlist:new(3)
    is(r:get(1), nil)
    for i = 1, 5 do r:push(i) end
    same({ r:get(1), r:get(2), r:get(3), r:get(4), n = 4 }, { 5, 4, 3, nil, n = 4 })
    same({ r:get(-1), r:get(-3), r:get(-4), r:get(0), n = 4 }, { 3, 5, nil, nil, n = 4 })
    local seen = {}
    for i, v in r:iter() do seen[i] = v end
    same(seen, { 5, 4, 3 })
    is(r.len, 3)
    is(rlist:check(r), r)
    is(rlist:check({}), nil)
    local adopted = { 1, 2 }
    local s = rlist:new(4, adopted)
    is(s, adopted)
    is(s:push(3), s)
    same({ s:get(1), s:get(3) }, { 3, 1 })
    local full = rlist:new(3, { 1, 2, 3, 4, 5 })
    same({ full:get(1), full:get(2), full:get(3), full:get(4), full.len, n = 5 }, { 5, 4, 3, nil, 3, n = 5 })
    full:push(6)
    same({ full:get(1), full:get(-1), #full }, { 6, 4, 3 })
    is(getmetatable(full).__name, "rlist")
    local one = rlist:new(1)
    one:push("a"):push("b")
    same({ one:get(1), one:get(-1), one:get(2), n = 3 }, { "b", "b", nil, n = 3 })
    same({ one:next(0) }, { 1, "b" })
    is(one:next(1), nil)
    -- against a list that is cut
    local ring, model = rlist:new(7), {}
    for i = 1, 50 do
        ring:push(i)
        table.insert(model, 1, i)
        model[8] = nil
        is(ring.len, #model)
        for at = 1, 7 do
            is(ring:get(at), model[at])
            is(ring:get(-at), model[#model + 1 - at])
        end
    end
end

function tests.events()
    local before = recent_events
    evlogf("first %d", 1)
    evlogf("first %d", 1)
    evlog("second", 2, nil)
    is(recent_events:get(1).msg, "second\t2\tnil")
    is(recent_events:get(2).msg, "first 1")
    is(recent_events:get(2).count, 2)
    load_library()
    is(recent_events, before, "events survive a reload")
end

function tests.networks()
    same({ parse_cidr("192.0.2.0/24") }, { 0xc0000200, 24 })
    same({ parse_cidr("0.0.0.0/0") }, { 0, 0 })
    same({ parse_cidr("1.2.3.4/32") }, { 0x01020304, 32 })
    raises('invalid prefix size "1.2.3.4/33"', parse_cidr, "1.2.3.4/33")
    raises('invalid subnet "192.0.2.1/24"', parse_cidr, "192.0.2.1/24")
    raises('invalid subnet "x/8"', parse_cidr, "x/8")
    raises('invalid subnet "10.0.0.0"', parse_cidr, "10.0.0.0")
    raises('invalid prefix size "10.0.0.0/"', parse_cidr, "10.0.0.0/")
    raises('invalid prefix size "10.0.0.0/x"', parse_cidr, "10.0.0.0/x")
    raises('invalid prefix size "10.0.0.0/-1"', parse_cidr, "10.0.0.0/-1")
    raises('invalid prefix size "10.0.0.0/0x8"', parse_cidr, "10.0.0.0/0x8")
    raises('invalid prefix size "0.0.0.0/99999999999999999999"', parse_cidr, "0.0.0.0/99999999999999999999")
    raises('invalid subnet "2001:db8::/32"', parse_cidr, "2001:db8::/32")
    raises('invalid subnet "/8"', parse_cidr, "/8")
    raises("string expected, got nil", parse_cidr)
    raises("string expected, got number", parse_cidr6, 5)
    same({ parse_cidr6("2001:db8::/32") }, { 0x20010db800000000, 0, 32 })
    same({ parse_cidr6("::/0") }, { 0, 0, 0 })
    same({ parse_cidr6("::1/128") }, { 0, 1, 128 })
    raises("invalid prefix size", parse_cidr6, "::/129")
    raises("invalid subnet", parse_cidr6, "2001:db8::1/32")
    raises("invalid subnet", parse_cidr6, "::1/64")
    raises('invalid subnet "10.0.0.0/8"', parse_cidr6, "10.0.0.0/8")
    same({ parse_cidr6("2001:db8:0:1::/64") }, { 0x20010db800000001, 0, 64 })
    same({ parse_cidr6("2001:db8:0:1:8000::/65") }, { 0x20010db800000001, math.mininteger, 65 })
    raises("invalid subnet", parse_cidr6, "2001:db8:0:1:8000::/64")
    raises("invalid subnet", parse_cidr6, "2001:db8:0:1::/63")
end

function tests.futures()
    local done
    local first = async(function(a, b)
        coroutine.yield()
        return a + b, nil, "end"
    end, 1, 2)
    is(getmetatable(first).__name, "future")
    local results = {}
    for i = 1, 2 do
        async(function() results[i] = table.pack(first:get()) end)
    end
    local waiting = first.thread
    assert(coroutine.resume(waiting))
    is(results[1], nil, "who waited is resumed by the engine, not by who ended")
    stubs.run()
    for i = 1, 2 do same(results[i], { true, 3, nil, "end", n = 4 }) end
    async(function() done = table.pack(first:wait()) end)
    same(done, { true, 3, nil, "end", n = 4 })
    async(function() done = table.pack(async(function() error("broken", 0) end):get()) end)
    same(done, { false, "broken" })
    local own
    own = async(function()
        coroutine.yield()
        return own:get()
    end)
    local thread = own.thread
    assert(coroutine.resume(thread))
    stubs.run()
    local ok, message = own:get()
    is(ok, false)
    is(message:find("a routine cannot wait for itself", 1, true) ~= nil, true)
    raises("not in asynchronous routine", function() async(coroutine.yield):get() end)
    async(function()
        local future = async(coroutine.yield)
        -- nothing can yield in here
        table.sort({ 1, 2 }, function() raises("not in asynchronous routine", future.get, future) end)
        is(#future.waiting, 0)
    end)
    local co = coroutine.wrap(function() return async(function() return 5 end):get() end)
    same({ co() }, { true, 5 }, "a finished one needs no routine of ours")
    same({ async(function(...) return select("#", ...) end, nil, nil):get() }, { true, 2 })
    local ok, text = async(5):get()
    is(ok, false)
    is(tostring(text):find("attempt to call a number value", 1, true) ~= nil, true)
end

-- each waits for the one before it: a thousand must not be resumed one within the other
function tests.futures_in_a_row()
    local first = async(function()
        coroutine.yield()
        return 0
    end)
    local thread, last, order = first.thread, first, {}
    for i = 1, 1000 do
        local before = last
        last = async(function()
            local ok, n = before:get()
            assert(ok and n == i - 1, n)
            table.insert(order, i)
            return i
        end)
    end
    is(last.results, nil)
    assert(coroutine.resume(thread))
    stubs.run()
    same(last.results, { true, 1000 })
    is(#order, 1000)
    for i = 1, 1000 do is(order[i], i) end
end

function tests.waiters_that_end()
    local future = async(function()
        coroutine.yield()
        return "late"
    end)
    local thread, got = future.thread, nil
    local cancelled = coroutine.create(function() future:get() end)
    assert(coroutine.resume(cancelled))
    async(function()
        future:get()
        error("broken waiter")
    end)
    async(function() got = table.pack(future:get()) end)
    local raising = coroutine.create(function()
        future:get()
        error("raised behind the wait", 0)
    end)
    assert(coroutine.resume(raising))
    coroutine.close(cancelled)
    assert(coroutine.resume(thread))
    stubs.run()
    same(got, { true, "late" })
    is(coroutine.status(raising), "dead")
end

-- a waiter is woken by somebody else: it goes on waiting
function tests.wakened_too_early()
    local future, got = async(coroutine.yield), nil
    local thread = future.thread
    local waiter = coroutine.create(function() got = table.pack(future:get()) end)
    for _ = 1, 3 do assert(coroutine.resume(waiter)) end
    is(got, nil)
    assert(coroutine.resume(thread, 7))
    stubs.run()
    same(got, { true, 7 })
    local callback
    waiter = coroutine.create(function() got = table.pack(await.callback(function(f) callback = f end)) end)
    got = nil
    for _ = 1, 3 do assert(coroutine.resume(waiter)) end
    is(got, nil)
    callback()
    stubs.run()
    same(got, { n = 0 })
end

function tests.callbacks()
    local got, callback
    async(function() got = table.pack(await.callback(function(done, x) done(x, nil, 3) end, 1)) end)
    same(got, { 1, nil, 3, n = 3 })
    got = nil
    async(function() got = table.pack(await.callback(function(done) callback = done end)) end)
    is(got, nil)
    callback("later")
    callback("too late")
    stubs.run()
    same(got, { "later" })
    raises("not in asynchronous routine", await.callback, print)
    async(function() got = table.pack(pcall(await.callback, function() error("in f", 0) end)) end)
    same(got, { false, "in f" })
    -- from callback to callback, a thousand times
    local callbacks, done = {}, 0
    for i = 1, 1000 do
        async(function()
            await.callback(function(f) callbacks[i] = f end)
            done = done + 1
            if callbacks[i + 1] then callbacks[i + 1]() end
        end)
    end
    callbacks[1]()
    stubs.run()
    is(done, 1000)
end

function tests.calls_of_peers()
    local got
    rpc.sum = function(a, b) return a + b, "sum" end
    async(function() got = table.pack(await.rpcall({ "peer:80" }, "sum", 1, 2)) end)
    same(got, { true, 3, "sum" })
    same(stubs.sent[1], { 'return rpc["sum"](1,2)', "peer:80" })
    async(function() got = table.pack(await.rpcall({ "peer:80", "http://b:2", "socks5://a:1" }, "echo")) end)
    same(got, { true, n = 1 })
    same(stubs.sent[2], { 'return rpc["echo"]()', "peer:80", "http://b:2", "socks5://a:1" })
    async(function() got = table.pack(await.rpcall({ "peer:80" }, 'no "such"\n')) end)
    is(got[1], false)
    is(got[2]:find("attempt to call a nil value", 1, true) ~= nil, true)
    is(stubs.sent[3][1], 'return rpc["no \\"such\\"\\\n"]()')
    stubs.invoke_error = "connection failed"
    async(function() got = table.pack(await.rpcall({ "peer:80" }, "echo", 1)) end)
    same(got, { false, "connection failed" })
    stubs.invoke_error, stubs.sent = nil, {}
    raises("is not marshallable", await.rpcall, { "peer:80" }, "echo", print)
    raises("is not marshallable", neosocksd.sendmsg, { "peer:80" }, "nop", print)
    neosocksd.sendmsg({ "peer:80", "socks5://p:1" }, "hello", { x = 1 }, "y")
    same(stubs.sent[1], { 'msgh["hello"]({["x"]=1,},"y")', "peer:80", "socks5://p:1" })
    is(rpc.echo(5), 5)
    is(msgh.nop(), nil)
    same({ unmarshal(marshal(1, "two", nil, 4)) }, { 1, "two", nil, 4, n = 4 })
    raises("unmarshal: at octet", unmarshal, "1 +")
    raises("unmarshal: at octet", unmarshal, "print()") -- it is read, not compiled
    raises("unmarshal: at octet", unmarshal, "(function() while true do end end)()")
    same(table.pack(rpc.echo(1, nil, 3)), { 1, nil, 3, n = 3 })
end

function tests.reload()
    rpc.kept, msgh.kept, _G.num_requests = 1, 2, 77
    local kept = {}
    for _, name in ipairs{ "rpc", "msgh", "secrets", "recent_events", "stat_requests", "list", "rlist" } do kept[name] = _G[name] end
    _G.RECENT_EVENTS_STATS = 3
    local own_echo = function() end
    rpc.echo = own_echo
    local before = { match, rule, lb, composite, inet, inet6 }
    local again = load_library()
    is(again ~= libruleset, true)
    for name, value in pairs(kept) do is(_G[name], value, name) end
    same({ rpc.kept, msgh.kept, num_requests, RECENT_EVENTS_STATS }, { 1, 2, 77, 3 })
    is(rpc.echo, own_echo)
    rpc.echo, _G.RECENT_EVENTS_STATS = nil, 10
    load_library()
    is(rpc.echo(4), 4)
    for i, name in ipairs{ "match", "rule", "lb", "composite", "inet", "inet6" } do is(_G[name] ~= before[i], true, name) end
end

function tests.regex_compat()
    for pattern, expected in pairs{
        ["\\d+\\.\\w"] = "[0-9]+\\.[a-zA-Z0-9_]",
        ["\\D\\W\\s\\S"] = "[^0-9][^a-zA-Z0-9_][[:space:]][^[:space:]]",
        ["\\\\d"] = "\\\\d", -- a backslash, and a letter
        ["a\\"] = "a\\",
        ["\\(\\[\\d"] = "\\(\\[[0-9]",
        ["[\\d.-]+\\w"] = "[0-9.-]+[a-zA-Z0-9_]",
        ["[^]\\s]\\d"] = "[^][:space:]][0-9]",
        ["[[:alpha:]\\w-]"] = "[[:alpha:]a-zA-Z0-9_-]",
        ["[\\D]"] = "[\\D]", -- no word for that
        ["["] = "[", ["[\\d"] = "[0-9", [""] = "", ["plain"] = "plain",
    } do
        is(regex.compat(pattern), expected, pattern)
    end
    is(regex.compile(regex.compat("^[\\w.-]+:\\d+$")):find("a-b.c_d:80") ~= nil, true)
    is(regex.compile(regex.compat("^\\w+\\s\\d\\D\\S\\W$")):find("ab 1x.-") ~= nil, true)
end

local function judge(matcher, yes, no)
    for _, addr in ipairs(yes) do is(matcher(addr), true, addr) end
    for _, addr in ipairs(no) do is(matcher(addr), false, addr) end
end

function tests.matchers()
    judge(match.any(), { "x:1", "[::1]:2" }, {})
    judge(match.exact("A.example:80"), { "a.EXAMPLE:80" }, { "a.example:81", "b.a.example:80" })
    judge(match.exact({ "a:1", "[2001:DB8::1]:2" }), { "A:1", "[2001:db8::1]:2" }, { "a:2" })
    raises("invalid address", match.exact, "nothing")
    raises("invalid address", match.exact, { "a:1", "::1:80" })
    judge(match.host({ "a", "::1" }), { "A:5", "[::1]:5" }, { "b:5" })
    judge(match.port(80), { "a:80" }, { "a:8080", "a:http" })
    judge(match.port(80, 90), { "a:80", "a:90" }, { "a:79", "a:91" })
    judge(match.port({ 22, "443" }), { "a:22", "a:443" }, { "a:80" })
    raises("attempt to compare", match.port("80"), "a:80")
    judge(match.port(80), {}, { "a:0x50", "a:80.0", "a: 80", "a:-80", "a:", "a:8e1" })
    judge(match.port(1, 65535), { "a:1", "[::1]:65535" }, { "a:0", "a:65536", "a:99999999999999999999" })
    judge(match.port({}), {}, { "a:1" })
    judge(match.host("EXAMPLE.com"), { "example.COM:1" }, { "a.example.com:1", "example.com.:1" })
    judge(match.domain("example.com"), { "example.com:1", "A.Example.COM:1", "a.b.example.com.:1" }, { "xexample.com:1", "com:1" })
    judge(match.domain({ "com", "example.com", ".org" }), { "x.com:1", "a.example.com:1", "org:1", "x.org:1" }, { "net:1" })
    judge(match.domaintree({ com = { example = true }, org = true }), { "example.com:1", "x.example.com:1", "org:1", "A.ORG:1" },
        { "com:1", "other.com:1", "net:1" })
    judge(match.domain({ "2001:db8::1", "192.0.2.1" }), { "[2001:db8::1]:1", "192.0.2.1:1" }, { "[2001:db8::2]:1", "192.0.2.2:1" })
    judge(match.domain({ "", "a" }), { "a:1" }, { ":1", "b:1" }) -- an empty line of a file
    judge(match.domain({}), {}, { "a:1", ":1" })
    judge(match.domain("x.y"), { "x.y.:1" }, { "y:1", ":1", ".:1" })
    raises('invalid domain ".."', match.domain, { "a", ".." })
    raises("entry 2 is no string", match.domain, { "a", 5 })
    judge(match.domaintree({ a = true }), { "b.a.:1", "a.:1" }, { ":1", ".:1", "a.b:1" })
    local growing = { com = {} }
    local grown = match.domaintree(growing)
    is(grown("x.com:1"), false)
    growing.com.x = true
    is(grown("x.com:1"), true)
    raises("domain tree should be a table", match.domaintree, "x")
    for _, name in ipairs{ "exact", "host", "domain", "pattern" } do
        raises("string or table expected, got nil", match[name], nil)
        raises("string or table expected, got number", match[name], 5)
    end
    raises("string or table expected, got nil", inet.subnet)
    raises("string or table expected, got nil", inet6.subnet)
    for _, build in ipairs{ match.exact, match.host, match.domain } do judge(build({}), {}, { "a:1" }) end
    raises("invalid address", match.host("a"), "nothing")
    raises("malformed pattern", match.pattern, { "a", "[" })
    judge(match.pattern("^a%d"), { "a1:80" }, { "ab:80" })
    judge(match.pattern({ "^x", ":22$" }), { "y:22", "x:1" }, { "y:1" })
    judge(match.regex("^[a-c]+:\\d+$"), { "abc:80" }, { "abd:80" })
    judge(match.regex({ "(", "^x" }), { "x:1" }, { "y:1" })
    raises("", match.regex, "(")
    is(composite.inverse(match.port(1))("a:2"), true)
    is(composite.anyof({ match.port(1), match.port(2) })("a:2"), true)
    is(composite.anyof({})("a:2"), false)
    is(composite.allof({ match.port(2), match.host("a") })("a:2"), true)
    is(composite.allof({ match.port(2), match.host("b") })("a:2"), false)
    local later = {}
    is(composite.maybe(later, "m")("a:1"), false)
    later.m = match.any()
    is(composite.maybe(later, "m")("a:1"), true)
    later.m = inet6.subnet("2001:db8::/32")
    is(composite.maybe(later, "m")(0x20010db8 << 32, 1), true, "any arguments")
    is(composite.allof({})("a:1"), true)
    is(composite.inverse(inet6.subnet("::/0"))(1, 2), false)
    is(composite.anyof({ inet6.subnet("::/1"), inet6.subnet("8000::/1") })(-1, 0), true)
    local called = false
    composite.anyof({ match.any(), function() called = true end })("a:1")
    composite.allof({ composite.inverse(match.any()), function() called = true end })("a:1")
    is(called, false, "the first that decides is the last that is asked")
    is(composite.subchain(later, "chain")("a:1"), nil)
    later.chain = { { match.port(2), rule.direct(), "two" }, { function() return rule.reject(), "rest" end } }
    same({ select(2, composite.subchain(later, "chain")("a:2")) }, { "two" })
    same({ select(2, composite.subchain(later, "chain")("a:1")) }, { "rest" })
end

function tests.subnets()
    local inside = inet.subnet({ "10.0.0.0/8", "192.168.0.0/16", "10.1.0.0/16" })
    is(inside(0x0a000001), true)
    is(inside(0x0affffff), true)
    is(inside(0x0b000000), false)
    is(inside(0xc0a80101), true)
    raises("number expected", inside, nil)
    is(inet.subnet("0.0.0.0/0")(0xffffffff), true)
    local inside6 = inet6.subnet("2001:db8::/32")
    is(inside6(0x20010db800000000, 5), true)
    is(inside6(0x20010db900000000, 5), false)
    raises('invalid subnet "10.0.0.1/8"', inet.subnet, "10.0.0.1/8")
    raises('invalid prefix size "10.0.0.0/40"', inet.subnet, { "10.0.0.0/8", "10.0.0.0/40" })
    raises('invalid prefix size "::/200"', inet6.subnet, "::/200")
    raises('invalid subnet "::1"', inet6.subnet, "::1")
    -- the place in the ruleset, not the one in the library
    for _, build in ipairs{ inet.subnet, inet6.subnet, match.domain, match.domaintree, match.host, parse_cidr } do
        local where = debug.getinfo(1, "S").short_src .. ":"
        local ok, message = pcall(function() local _ = build(build == match.domain and ".." or 5) end)
        is(ok, false)
        is(message:sub(1, #where), where, message)
    end
    is(inet.subnet({})(0), false)
    is(inet6.subnet({})(0, 0), false)
    raises("number expected", inside6, 1)
    is(inside6(neosocksd.parse_ipv6("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")), true)
end

function tests.actions()
    same({ rule.direct()("a:1") }, { "a:1" })
    is(rule.reject()("a:1"), nil)
    same({ rule.proxy("socks5://1:1", "http://2:2")("a:1") }, { "a:1", "http://2:2", "socks5://1:1" })
    same({ rule.redirect("b:2", "socks5://1:1")("a:1") }, { "b:2", "socks5://1:1" })
    same({ rule.redirect(":2")("a:1") }, { "a:2" })
    same({ rule.redirect("b:")("a:1") }, { "b:1" })
    same({ rule.redirect(":443")("[2001:db8::1]:80") }, { "[2001:db8::1]:443" })
    same({ rule.redirect("[::1]:")("a:80") }, { "[::1]:80" })
    same({ rule.redirect(":443", "socks5://1:1", "http://2:2")("[::1]:80") }, { "[::1]:443", "http://2:2", "socks5://1:1" })
    same({ rule.redirect(":")("[::1]:80") }, { "[::1]:80" })
    same({ rule.redirect("[2001:db8::2]:8080")("a:80") }, { "[2001:db8::2]:8080" })
    same({ rule.redirect("[2001:db8::2]:")("[::1]:80") }, { "[2001:db8::2]:80" })
    same({ rule.redirect("192.0.2.1:")("[::1]:80") }, { "192.0.2.1:80" })
    raises("invalid address", rule.redirect, "::1:80")
    same({ rule.proxy()("a:1") }, { "a:1" })
    same({ rule.rewrite("%.onion:(%d+)$", ".exit:%1")("x.onion:80") }, { "x.exit:80" })
    same({ rule.rewrite("x", "y")("a:1") }, { "a:1" })
    raises("invalid address", rule.redirect, "nothing")
    same({ rule.rewrite("^a", "b", "socks5://1:1")("a:1") }, { "b:1", "socks5://1:1" })
    _G.route_default = { rule.proxy("socks5://d:1") }
    same({ rule.default()("a:1") }, { "a:1", "socks5://d:1" })
    _G.route = { { inet.subnet("10.0.0.0/8"), rule.reject() } }
    is(rule.loopback("^x", "10.0.0.1")("x:1"), nil)
    same({ rule.loopback("^x", "11.0.0.1")("x:1") }, { "11.0.0.1:1", "socks5://d:1" })
    local t = {}
    is(rule.maybe(t, "k")("a:1"), nil)
    t.k = rule.direct()
    is(rule.maybe(t, "k")("a:1"), "a:1")
    stubs.names = { six = "2001:db8::1", ten = "10.0.0.1" }
    is(rule.resolve()("ten:1"), nil)
    same({ rule.resolve()("six:443") }, { "[2001:db8::1]:443", "socks5://d:1" })
    same({ rule.resolve()("[2001:db8::7]:1") }, {})
    stubs.names["2001:db8::7"] = "2001:db8::7"
    same({ rule.resolve()("[2001:db8::7]:1") }, { "[2001:db8::7]:1", "socks5://d:1" })
    same({ rule.loopback("^x:", "[2001:db8::1]:")("x:1") }, { "[2001:db8::1]:1", "socks5://d:1" })
    _G.redirect_name = { { match.host("b"), rule.redirect("c:9") }, { match.host("a"), rule.loopback("^a", "b") } }
    same({ libruleset.decide.resolve("a:1") }, { "c:9" })
    _G.redirect_name = { { match.any(), rule.loopback("^a", "a") } } -- for ever
    raises("overflow", libruleset.decide.resolve, "a:1")
    _G.redirect_name = nil
    _G.route_default = nil
    same({ rule.default()("a:1") }, { "a:1" })
    is(rule.resolve()("unknown:1"), nil)
    is(recent_events:get(1).msg, 'unable to resolve host name: "unknown"')
end

function tests.balance()
    local names = { "a", "b", "c" }
    local actions = {}
    for i, name in ipairs(names) do actions[i] = function() return name end end
    local turn = lb.roundrobin(actions)
    same({ turn(), turn(), turn(), turn() }, { "a", "b", "c", "a" })
    for _, weights in ipairs{ { 2, 1 }, { 3, 1 }, { 5, 3, 2 }, { 1, 1, 1 }, { 7, 0, 3 }, { 100, 1 }, { 1, -5, 2 } } do
        local entries, sum, got, longest, run, last = {}, 0, {}, 0, 0, nil
        for i, weight in ipairs(weights) do
            entries[i] = { weight, actions[i] }
            sum = sum + math.max(weight, 0)
        end
        local weighted = lb.iwrr(entries)
        for _ = 1, sum * 3 do
            local name = weighted("x:1")
            got[name] = (got[name] or 0) + 1
            run = name == last and run + 1 or 1
            last, longest = name, math.max(longest, run)
        end
        for i, weight in ipairs(weights) do is(got[names[i]] or 0, math.max(weight, 0) * 3, "share of " .. names[i]) end
        if sum == 10 and #weights == 3 and weights[2] == 3 then is(longest <= 2, true, "interleaved") end
    end
    is(lb.roundrobin({})("x:1"), nil)
    math.randomseed(11)
    for _ = 1, 100 do
        local entries, sum, got = {}, 0, {}
        for i = 1, math.random(1, 6) do
            entries[i] = { math.random(0, 40), function() return i end }
            sum = sum + entries[i][1]
        end
        local weighted = lb.iwrr(entries, 100)
        for cycle = 1, 2 do -- exact in each cycle by itself
            got = {}
            for _ = 1, sum do
                local i = weighted("x:1")
                got[i] = (got[i] or 0) + 1
            end
            for i, entry in ipairs(entries) do is(got[i] or 0, entry[1], "cycle " .. cycle) end
        end
    end
    -- no entry waits longer than its share says, give or take a turn of each of the others
    local last, widest = 0, 0
    local spread = lb.iwrr({ { 10, actions[1] }, { 10, actions[2] }, { 1, actions[3] } })
    for turn = 1, 210 do
        if spread() == "a" then last, widest = turn, math.max(widest, turn - last) end
    end
    is(widest <= 4, true, "interleaved")
    -- weights that are changed while it runs
    local live = { { 1, actions[1] }, { 0, actions[2] } }
    local changing = lb.iwrr(live)
    same({ changing(), changing() }, { "a", "a" })
    live[1][1], live[2][1] = 0, 3
    same({ changing(), changing() }, { "b", "b" })
    table.insert(live, { 3, actions[3] })
    local got = {}
    for _ = 1, 60 do
        local name = changing()
        got[name] = (got[name] or 0) + 1
    end
    same({ got.a, got.b, got.c, n = 3 }, { nil, 30, 30, n = 3 })
    -- fractions; and what is no weight
    got = {}
    local halves = lb.iwrr({ { 0.5, actions[1] }, { 1.5, actions[2] } })
    for _ = 1, 40 do
        local name = halves()
        got[name] = (got[name] or 0) + 1
    end
    same({ got.a, got.b }, { 10, 30 })
    is(lb.iwrr({ { 1 / 0, actions[1] }, { 0 / 0, actions[2] }, { 1, actions[3] } })("x:1"), "c")
    raises("number expected, got string", lb.iwrr, { { "2", actions[1] } })
    raises("number expected, got nil", lb.iwrr, { {} })
    -- each action gets the address, and its decision is given on
    same({ lb.iwrr({ { 1, rule.proxy("socks5://1:1") } })("x:1") }, { "x:1", "socks5://1:1" })
    same({ lb.roundrobin({ rule.proxy("socks5://1:1") })("x:1") }, { "x:1", "socks5://1:1" })
    is(lb.iwrr({ { 0, actions[1] } })("x:1"), nil)
    is(lb.iwrr({})("x:1"), nil)
end

function tests.decisions()
    same({ libruleset.decide.resolve("a:1") }, { "a:1" })
    _G.hosts = { ["name"] = "192.0.2.1", ["six"] = "2001:db8::1", ["other"] = "elsewhere" }
    _G.route = { { inet.subnet("192.0.2.0/24"), rule.proxy("socks5://v4:1"), "v4" } }
    _G.route6 = { { inet6.subnet("2001:db8::/32"), rule.proxy("socks5://v6:1") } }
    _G.redirect = { { match.port(25), rule.reject() } }
    _G.redirect6 = { { match.port(26), rule.reject() } }
    _G.redirect_name = { { match.host("first"), rule.redirect("10.0.0.1:1"), "tagged" }, { match.host("first"), rule.reject() } }
    _G.route_default = { rule.proxy("socks5://default:1"), "default" }
    same({ libruleset.decide.resolve("NAME:80") }, { "192.0.2.1:80", "socks5://v4:1" })
    is(recent_events:get(1).msg, '[v4] "192.0.2.1:80"')
    is(libruleset.decide.resolve("name:25"), nil)
    same({ libruleset.decide.resolve("six:80") }, { "[2001:db8::1]:80", "socks5://v6:1" })
    is(libruleset.decide.resolve("six:26"), nil)
    same({ libruleset.decide.resolve("first:80") }, { "10.0.0.1:1" })
    is(recent_events:get(1).msg, '[tagged] "first:80"')
    is(stubs.tag, "tagged", "GET /sessions knows it")
    same({ libruleset.decide.resolve("other:5") }, { "elsewhere:5", "socks5://default:1" })
    is(recent_events:get(1).msg, '[default] "elsewhere:5"')
    same({ libruleset.decide.route("198.51.100.1:80") }, { "198.51.100.1:80", "socks5://default:1" })
    same({ libruleset.decide.route6("[2001:db9::1]:80") }, { "[2001:db9::1]:80", "socks5://default:1" })
    same({ libruleset.decide.route("no address:80") }, { "no address:80", "socks5://default:1" })
    same({ libruleset.decide.route6("no address:80") }, { "no address:80", "socks5://default:1" })
    -- HTTP asks by name for addresses too
    same({ libruleset.decide.resolve("192.0.2.9:80") }, { "192.0.2.9:80", "socks5://v4:1" })
    same({ libruleset.decide.resolve("[2001:db8::9]:80") }, { "[2001:db8::9]:80", "socks5://v6:1" })
    is(libruleset.decide.resolve("192.0.2.9:25"), nil)
    -- an interface behind the address: transparent proxies are asked so
    same({ libruleset.decide.route6("[2001:db8::9%eth0]:80") }, { "[2001:db8::9%eth0]:80", "socks5://v6:1" })
    -- brackets that are there already; and a name that leads to another is not looked up again
    _G.hosts = { bracketed = "[2001:db8::1]", one = "two", two = "192.0.2.1" }
    same({ libruleset.decide.resolve("bracketed:80") }, { "[2001:db8::1]:80", "socks5://v6:1" })
    same({ libruleset.decide.resolve("one:80") }, { "two:80", "socks5://default:1" })
    -- a forwarder that leaves it to the ruleset
    same({ libruleset.decide.resolve(":0") }, { ":0", "socks5://default:1" })
    -- tables may be replaced, and be gone, at any time
    _G.hosts, _G.redirect_name, _G.route, _G.route_default = nil, nil, nil, nil
    same({ libruleset.decide.resolve("NAME:80") }, { "NAME:80" }, "as the client wrote it")
    same({ libruleset.decide.route("192.0.2.1:80") }, { "192.0.2.1:80" })
    _G.route_default = { rule.reject(), "closed" }
    is(libruleset.decide.route("192.0.2.1:80"), nil)
    is(recent_events:get(1).msg, '[closed] "192.0.2.1:80"')
end

-- redirect before route, the first that matches alone, addresses as integers
function tests.order_of_decisions()
    local asked = {}
    local function note(name, answer)
        return function(...)
            table.insert(asked, name .. select("#", ...) .. math.type(...) )
            return answer
        end
    end
    local function text(name, answer)
        return function(addr)
            table.insert(asked, name .. addr)
            return answer
        end
    end
    _G.redirect_name = { { text("n:", false), rule.reject() } }
    _G.redirect = { { text("r:", false), rule.reject() } }
    _G.redirect6 = { { text("r6:", false), rule.reject() } }
    _G.route = { { note("a", false), rule.reject() }, { note("b", true), rule.direct() }, { note("c", true), rule.reject() } }
    _G.route6 = { { note("d", true), rule.direct() } }
    _G.hosts = { h = "10.0.0.1", h6 = "::1" }
    local function order(f, addr)
        asked = {}
        f(addr)
        return table.concat(asked, " ")
    end
    is(order(libruleset.decide.route, "10.0.0.1:1"), "r:10.0.0.1:1 a1integer b1integer")
    is(order(libruleset.decide.route6, "[::1]:1"), "r6:[::1]:1 d2integer")
    is(order(libruleset.decide.resolve, "H:1"), "n:H:1 r:10.0.0.1:1 a1integer b1integer")
    is(order(libruleset.decide.resolve, "h6:1"), "n:h6:1 r6:[::1]:1 d2integer")
    is(order(libruleset.decide.resolve, "other:1"), "n:other:1")
end

-- mistakes refuse a request, they do not let it through
function tests.rules_that_are_wrong()
    _G.redirect_name = { { match.any(), rule.no_such_action } }
    raises("attempt to call", libruleset.decide.resolve, "a:1")
    _G.redirect_name = { { match.any(), rule.no_such_action, "tag" } }
    raises("attempt to call", libruleset.decide.resolve, "a:1")
    _G.redirect_name = { { match.no_such_matcher, rule.direct() } }
    raises("attempt to call", libruleset.decide.resolve, "a:1")
    _G.redirect_name = { { function() error("in a matcher", 0) end, rule.direct() } }
    raises("in a matcher", libruleset.resolve, "a:1")
    _G.redirect_name = nil
    _G.route = { { function() return true end, function() error("in an action", 0) end } }
    raises("in an action", libruleset.route, "192.0.2.1:1")
end

function tests.functional_rules()
    _G.redirect_name = {
        { function(addr) if addr == "a:1" then return rule.reject(), "gone" end end },
        { composite.subchain(_G, "sub") },
        { match.any(), rule.redirect("rest:9") },
    }
    is(libruleset.decide.resolve("a:1"), nil)
    is(recent_events:get(1).msg, '[gone] "a:1"')
    is(libruleset.decide.resolve("b:1"), "rest:9")
    _G.sub = { { match.host("b"), rule.redirect("sub:9") } }
    is(libruleset.decide.resolve("b:1"), "sub:9")
    is(libruleset.decide.resolve("c:1"), "rest:9")
    _G.sub = nil
end

function tests.handlers()
    local before = num_requests
    same({ libruleset.resolve("a:1", nil, nil) }, { "a:1" }, "elsewhere than in a handler")
    stubs.handling = true
    _G.route_default = { rule.proxy("socks5://1:1") }
    same({ libruleset.route("192.0.2.1:80") }, { "192.0.2.1:80", "socks5://1:1" }, "ignored, but rulesets for 1.5 read it")
    same(stubs.forwards[1], { "192.0.2.1:80", "socks5://1:1" })
    is(#stubs.forwards, 1)
    stubs.forward_result = false
    is(libruleset.route6("[::1]:80"), nil)
    is(recent_events:get(1).msg, 'forward "[::1]:80": connection failed')
    is(num_requests, before + 3)
    is(#stubs.forwards, 2)
    _G.route_default = { rule.reject() }
    is(libruleset.resolve("a:1"), nil)
    is(#stubs.forwards, 2, "what is rejected is not tried")
    same({ num_requests, #stubs.forwards }, { before + 4, 2 })
end

-- asked before the client says where to; what the handlers will judge better is left to them
function tests.login()
    _G.secrets.alice, _G.secrets.open = "right", true
    _G.ruleset = setmetatable({}, { __index = function(_, k) return libruleset[k] end })
    local before = num_requests - num_authorized
    is(libruleset.login("alice", "right"), true)
    is(libruleset.login("open", nil), true)
    is(num_requests - num_authorized, before, "who comes in is counted with the request")
    is(libruleset.login("alice", "wrong"), false)
    is(recent_events:get(1).msg, 'authenticate failed: "alice"')
    is(libruleset.login("alice", nil), false)
    is(libruleset.login(nil, nil), false)
    is(libruleset.login("mallory", "right"), false)
    is(num_requests - num_authorized, before + 4)
    _G.ruleset = { authenticate = function() end }
    is(libruleset.login("alice", "wrong"), true, "a judge of its own wants the address, too")
    for _, name in ipairs{ "resolve", "route", "route6" } do
        _G.ruleset = setmetatable({ [name] = function() end }, { __index = libruleset })
        is(libruleset.login("alice", "wrong"), true, "a handler of its own may know others: " .. name)
    end
    stubs.settings.auth_required, stubs.unauthorized = true, 0
    _G.ruleset = libruleset
    is(libruleset.resolve("a:1", "alice", "wrong"), nil)
    is(stubs.unauthorized, 1, "a refusal of who it is")
    _G.route_default = { rule.reject() }
    is(libruleset.resolve("a:1", "alice", "right"), nil)
    is(stubs.unauthorized, 1, "any other one is not")
end

function tests.authentication()
    stubs.settings.auth_required = true -- after the library was loaded
    _G.secrets.alice, _G.secrets.open = "right", true
    local before = num_authorized
    is(libruleset.resolve("a:1", "alice", "right"), "a:1")
    is(libruleset.resolve("a:1", "alice", "wrong"), nil)
    is(recent_events:get(1).msg, 'authenticate failed: "alice"')
    is(libruleset.resolve("a:1", "x\n[tag] \"y\"\0", "wrong"), nil)
    is(recent_events:get(1).msg, [[authenticate failed: "x\n[tag] \"y\"\0"]], "one line")
    is(libruleset.resolve("a:1", "alice", nil), nil)
    is(libruleset.resolve("a:1", "alice", "right and more"), nil)
    is(libruleset.resolve("a:1", "open", "anything"), "a:1")
    is(libruleset.resolve("a:1", "open", nil), "a:1", "SOCKS4")
    is(libruleset.resolve("a:1", nil, nil), nil)
    is(libruleset.resolve("a:1", "mallory", "right"), nil)
    _G.secrets.nobody, _G.secrets.number, _G.secrets.off = "", 1234, false
    is(libruleset.resolve("a:1", "nobody", nil), nil, "no password is not the empty one")
    is(libruleset.resolve("a:1", "nobody", ""), "a:1")
    is(libruleset.resolve("a:1", "number", "1234"), nil)
    is(libruleset.resolve("a:1", "off", nil), nil)
    is(libruleset.resolve("a:1", "", ""), nil)
    is(libruleset.route("192.0.2.1:1", nil, nil), nil)
    is(libruleset.route6("[::1]:1", "alice", "wrong"), nil)
    _G.num_authorized = num_authorized - 1
    local live = config
    _G.config = { auth_required = false } -- as documents of 1.4 have it: _G.config = neosocksd.config()
    is(libruleset.resolve("a:1", "alice", "wrong"), nil, "a copy of the settings opens nothing")
    _G.config = live
    local all = secrets
    _G.secrets = {}
    is(libruleset.resolve("a:1", "alice", "right"), nil, "replaced while it runs")
    _G.secrets = all
    is(libruleset.decide.resolve("a:1"), "a:1", "a decision asks nobody")
    is(num_authorized, before + 3)
    _G.ruleset = { authenticate = function(addr, user, password) return addr == "a:1" and user == password end }
    is(libruleset.resolve("a:1", "x", "x"), "a:1")
    is(libruleset.resolve("b:1", "x", "x"), nil)
    is(libruleset.resolve("a:1", "alice", "right"), nil, "it is asked alone")
    _G.ruleset = setmetatable({}, { __index = { authenticate = function() return true end } })
    is(libruleset.resolve("a:1"), "a:1")
    _G.ruleset = { authenticate = function() error("broken judge", 0) end }
    raises("broken judge", libruleset.resolve, "a:1", "alice", "right")
    _G.ruleset = { authenticate = function() end }
    is(libruleset.resolve("a:1", "alice", "right"), nil)
    _G.ruleset = {}
    is(libruleset.resolve("a:1", "alice", "right"), "a:1")
    stubs.settings.auth_required = false
    is(libruleset.resolve("a:1", "alice", "wrong"), "a:1")
    load_library()
    is(secrets.alice, "right", "secrets survive a reload")
end

function tests.failover()
    stubs.handling = true
    local tries = 0
    local forward = await.forward
    await.forward = function(...)
        forward(...)
        tries = tries + 1
        return tries == 2
    end
    is(libruleset.failover("a:1", { { "socks5://1:1", "socks5://2:2" }, {}, { "socks5://3:3" } }), true)
    same(stubs.forwards[1], { "a:1", "socks5://2:2", "socks5://1:1" })
    same(stubs.forwards[2], { "a:1" })
    is(#stubs.forwards, 2)
    await.forward = function() return false end
    is(libruleset.failover("a:1", { {}, {} }), false)
    is(libruleset.failover("a:1", {}), false)
    tries = 0
    await.forward = function()
        tries = tries + 1
        return false, tries == 2 and "request cancelled" or "connection failed"
    end
    is(libruleset.failover("a:1", { {}, {}, {}, {} }), false)
    is(tries, 2, "the client has gone")
    await.forward = forward
    stubs.handling = false
    raises("must be called from a ruleset request handler", libruleset.failover, "a:1", { {} })
end

-- a ring of what num_requests was, with one element at first; the minute that has not ended counts (contract 6.1, 6.4)
function tests.statistics()
    _G.num_requests, _G.stat_requests, _G.recent_events = 7, nil, rlist:new(100)
    libruleset = load_library()
    same({ stat_requests.len, stat_requests.cap, stat_requests:get(1) }, { 1, 60, 7 })
    is(libruleset.stats(1), "> Recent Events\n> Request Stats (avg=0.0/min, max=0)\n \n \n \n \n \n*")
    _G.num_requests = 9
    is(libruleset.stats(1), "> Recent Events\n> Request Stats (avg=2.0/min, max=2)\n|\n|\n|\n|\n|\n*")
    _G.num_requests = 7
    for _, n in ipairs{ 1, 0, 5, 3 } do
        _G.num_requests = num_requests + n
        libruleset.tick(neosocksd.now())
    end
    same({ stat_requests.len, stat_requests:get(1), stat_requests:get(-1) }, { 5, 16, 7 })
    _G.num_requests = num_requests + 4
    evlog("once")
    evlog("twice")
    evlog("twice")
    local now = format_timestamp(stubs.now)
    is(libruleset.stats(60, nil), table.concat({
        "> Recent Events", now .. " twice (x2)", now .. " once",
        "> Request Stats (avg=2.2/min, max=5)",
        "  |  ", "  | |", "  |||", "  |||", "| |||", "----*",
    }, "\n"))
    for i = 1, 100 do
        evlogf("event %d", i)
        _G.num_requests = num_requests + 1
        libruleset.tick()
    end
    local text = libruleset.stats(60, nil)
    is(select(2, text:gsub("event %d+\n", "")), RECENT_EVENTS_STATS)
    is(text:find(" event 100\n", 1, true) ~= nil, true)
    is(text:match("([^\n]*)$"), ("-"):rep(59) .. "*")
    is(text:find("(avg=1.0/min, max=1)", 1, true) ~= nil, true)
    _G.num_requests = 4 -- a script begins anew
    libruleset.tick()
    is(stat_requests:get(1), 4)
    is(libruleset.stats(60):find("(avg=1.0/min, max=1)", 1, true) ~= nil, true)
    -- one of a script's own, and that of the original, which begins with one element too
    _G.stat_requests = rlist:new(60)
    is(libruleset.stats(60):match("avg=%S+ max=%d+"), "avg=0.0/min, max=0")
    _G.stat_requests = rlist:new(60, { 1, 2 })
    is(libruleset.stats(60):match("avg=%S+ max=%d+"), "avg=1.0/min, max=2")
end

function tests.overlay_shims()
    is(match.agent()("x:1"), false)
    is(rule.agent()("x:1"), nil)
    _G.agent = { matcher = function(addr) if addr == "x.internal:1" then return rule.redirect("y:2") end end }
    is(match.agent()("x.internal:1"), true)
    is(match.agent()("x:1"), false)
    is(rule.agent()("x.internal:1"), "y:2")
end

function tests.idioms()
    libruleset = load_library()
    _G.libruleset = libruleset
    local ruleset = setmetatable({}, { __index = function(_, k) return _G.libruleset[k] end })
    is(ruleset.resolve("a:1"), "a:1")
    is(ruleset.nothing, nil)
    is(type(config.loglevel), "number")
    -- a function that overrides
    function ruleset.resolve(addr, ...)
        if addr == "own:1" then return "mine:2" end
        return _G.libruleset.resolve(addr, ...)
    end
    function ruleset.stats(dt, q) return libruleset.stats(dt, q) .. "\n> Mine" end
    is(ruleset.resolve("own:1"), "mine:2")
    is(ruleset.resolve("a:1"), "a:1")
    is(ruleset.stats(1):sub(-7), "\n> Mine")
    -- the library is replaced while the ruleset stays
    local again
    package.replace("libruleset", function(name)
        for _, search in ipairs(package.searchers) do
            local loader, data = search(name)
            if type(loader) == "function" then
                again = loader(name, data)
                return again
            end
        end
    end)
    is(type(again), "table")
    is(_G.libruleset, again)
    is(ruleset.route, again.route)
    _G.libruleset = nil
end

-- as ruleset_ingress does: lists that come from a peer, and are there or not
function tests.lists_of_peers()
    function rpc.update() return { "10.0.0.0/8" }, { "2001:db8::/32" }, { "com", "example.com" } end
    _G.redirect_name = { { composite.maybe(_G, "biglist_name"), rule.reject(), "list" } }
    _G.route = { { composite.maybe(_G, "biglist"), rule.reject(), "list" } }
    _G.route6 = { { composite.maybe(_G, "biglist6"), rule.reject(), "list" } }
    is(libruleset.decide.resolve("a.com:1"), "a.com:1")
    is(libruleset.decide.route("10.0.0.1:1"), "10.0.0.1:1")
    async(function()
        local ok, list4, list6, names = await.rpcall({ "api.neosocksd.internal:80", "socks5://127.0.0.1:1080" }, "update")
        assert(ok, list4)
        _G.biglist, _G.biglist6, _G.biglist_name = inet.subnet(list4), inet6.subnet(list6), match.domain(names)
    end)
    is(libruleset.decide.resolve("a.COM:1"), nil)
    is(libruleset.decide.resolve("a.net:1"), "a.net:1")
    is(libruleset.decide.route("10.0.0.1:1"), nil)
    is(libruleset.decide.route6("[2001:db8::5]:1"), nil)
    is(libruleset.decide.route6("[2001:db9::5]:1"), "[2001:db9::5]:1")
    _G.biglist, _G.biglist6, _G.biglist_name, rpc.update = nil, nil, nil, nil
end

-- a time of day, as a functional rule and as a matcher; a balancer whose backends are set from outside
function tests.rules_of_users()
    local hour = 3
    local function at_night() return hour < 6 end
    _G.redirect_name = {
        { composite.allof({ match.domain("games.example"), at_night }), rule.reject(), "night" },
        { match.host("lb"), rule.maybe(_G, "balance") },
    }
    is(libruleset.decide.resolve("a.games.example:1"), nil)
    hour = 12
    is(libruleset.decide.resolve("a.games.example:1"), "a.games.example:1")
    is(libruleset.decide.resolve("lb:80"), nil)
    local backends = { { 2, rule.redirect("127.0.0.1:8001") }, { 1, rule.redirect("127.0.0.1:8002") } }
    _G.balance = lb.iwrr(backends)
    function rpc.set_weight(i, weight) backends[i][1] = weight end
    local seen = list:new()
    for _ = 1, 3 do seen:insert((libruleset.decide.resolve("lb:80"))) end
    is(seen:sort():concat(" "), "127.0.0.1:8001 127.0.0.1:8001 127.0.0.1:8002")
    rpc.set_weight(1, 0)
    for _ = 1, 5 do is(libruleset.decide.resolve("lb:80"), "127.0.0.1:8002") end
    _G.balance, rpc.set_weight = nil, nil
end

-- large lists decide as small ones do
function tests.large_lists()
    local names, nets = {}, {}
    for i = 1, 50000 do
        names[i] = ("n%d.example"):format(i)
        nets[i] = ("10.%d.%d.0/24"):format(i // 200, i % 200)
    end
    _G.redirect_name = { { match.domain(names), rule.reject() } }
    _G.route = { { inet.subnet(nets), rule.reject() } }
    is(libruleset.decide.resolve("www.n777.example:1"), nil)
    is(libruleset.decide.resolve("n50001.example:1"), "n50001.example:1")
    is(libruleset.decide.route("10.3.4.5:1"), nil)
    is(libruleset.decide.route("11.3.4.5:1"), "11.3.4.5:1")
end

local names = {}
for name in pairs(tests) do table.insert(names, name) end
table.sort(names)
for i, name in ipairs(names) do
    reset()
    tests[name]()
    print(string.format("ok %d - libruleset %s", i, name))
end
print(string.format("# %d checks", check.count))
