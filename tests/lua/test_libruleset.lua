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

local function reset()
    for _, name in ipairs{ "redirect_name", "redirect", "redirect6", "route", "route6", "route_default", "hosts", "ruleset", "agent" } do
        _G[name] = nil
    end
    stubs.handling, stubs.forward_result = false, nil
    stubs.names, stubs.forwards, stubs.sent = {}, {}, {}
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
    is(#format_timestamp(1700000000.9), 25)
    is(format_timestamp(1700000000.9), format_timestamp(1700000000))
    is(format_timestamp(0):match("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d[+-]%d%d:%d%d$") ~= nil, true)
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
    local s = rlist:new(4, { 1, 2 })
    s:push(3)
    same({ s:get(1), s:get(3) }, { 3, 1 })
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
    same({ parse_cidr6("2001:db8::/32") }, { 0x20010db800000000, 0, 32 })
    same({ parse_cidr6("::/0") }, { 0, 0, 0 })
    same({ parse_cidr6("::1/128") }, { 0, 1, 128 })
    raises("invalid prefix size", parse_cidr6, "::/129")
    raises("invalid subnet", parse_cidr6, "2001:db8::1/32")
    raises("invalid subnet", parse_cidr6, "::1/64")
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
    local ok, message = own:get()
    is(ok, false)
    is(message:find("a routine cannot wait for itself", 1, true) ~= nil, true)
    raises("not in asynchronous routine", function() async(coroutine.yield):get() end)
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
    same(got, { "later" })
    raises("not in asynchronous routine", await.callback, print)
end

function tests.calls_of_peers()
    local got
    rpc.sum = function(a, b) return a + b, "sum" end
    async(function() got = table.pack(await.rpcall({ "peer:80" }, "sum", 1, 2)) end)
    same(got, { 3, "sum" })
    neosocksd.sendmsg({ "peer:80", "socks5://p:1" }, "hello", { x = 1 }, "y")
    same(stubs.sent[1], { 'msgh["hello"]({["x"]=1,},"y")', "peer:80", "socks5://p:1" })
    is(rpc.echo(5), 5)
    is(msgh.nop(), nil)
    same({ unmarshal(marshal(1, "two", nil, 4)) }, { 1, "two", nil, 4, n = 4 })
    raises("", unmarshal, "1 +")
    rpc.kept = 1
    load_library()
    is(rpc.kept, 1)
end

function tests.regex_compat()
    is(regex.compat("\\d+\\.\\w"), "[0-9]+\\.[[:alnum:]_]")
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
    judge(match.domain("example.com"), { "example.com:1", "A.Example.COM:1", "a.b.example.com.:1" }, { "xexample.com:1", "com:1" })
    judge(match.domain({ "com", "example.com", ".org" }), { "x.com:1", "a.example.com:1", "org:1", "x.org:1" }, { "net:1" })
    judge(match.domaintree({ com = { example = true }, org = true }), { "example.com:1", "x.example.com:1", "org:1", "A.ORG:1" },
        { "com:1", "other.com:1", "net:1" })
    raises("domain tree should be a table", match.domaintree, "x")
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
    raises("invalid subnet", inet.subnet, "10.0.0.1/8")
    raises("invalid prefix size", inet6.subnet, "::/200")
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
    same({ libruleset.decide.resolve("other:5") }, { "elsewhere:5", "socks5://default:1" })
    is(recent_events:get(1).msg, '[default] "elsewhere:5"')
    same({ libruleset.decide.route("198.51.100.1:80") }, { "198.51.100.1:80", "socks5://default:1" })
    same({ libruleset.decide.route6("[2001:db9::1]:80") }, { "[2001:db9::1]:80", "socks5://default:1" })
    same({ libruleset.decide.route("no address:80") }, { "no address:80", "socks5://default:1" })
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
    is(libruleset.route("192.0.2.1:80"), nil)
    same(stubs.forwards[1], { "192.0.2.1:80", "socks5://1:1" })
    stubs.forward_result = false
    is(libruleset.route6("[::1]:80"), nil)
    is(recent_events:get(1).msg, 'forward "[::1]:80": connection refused')
    is(num_requests, before + 3)
end

function tests.authentication()
    stubs.settings.auth_required = true -- after the library was loaded
    _G.secrets.alice, _G.secrets.open = "right", true
    local before = num_authorized
    is(libruleset.resolve("a:1", "alice", "right"), "a:1")
    is(libruleset.resolve("a:1", "alice", "wrong"), nil)
    is(recent_events:get(1).msg, 'authenticate failed: "alice"')
    is(libruleset.resolve("a:1", "alice", nil), nil)
    is(libruleset.resolve("a:1", "alice", "right and more"), nil)
    is(libruleset.resolve("a:1", "open", "anything"), "a:1")
    is(libruleset.resolve("a:1", "open", nil), "a:1", "SOCKS4")
    is(libruleset.resolve("a:1", nil, nil), nil)
    is(libruleset.resolve("a:1", "mallory", "right"), nil)
    is(num_authorized, before + 3)
    _G.ruleset = { authenticate = function(addr, user, password) return addr == "a:1" and user == password end }
    is(libruleset.resolve("a:1", "x", "x"), "a:1")
    is(libruleset.resolve("b:1", "x", "x"), nil)
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
    is(libruleset.failover("a:1", { {} }), false)
    await.forward = forward
end

function tests.statistics()
    for i = 1, 3 do
        _G.num_requests = num_requests + i
        libruleset.tick()
    end
    local text = libruleset.stats(60, nil)
    is(text:match("^> Recent Events\n") ~= nil, true)
    is(text:match("> Request Stats %(avg=%d+%.%d/min, max=%d+%)\n") ~= nil, true)
    is(text:match("\n%-*%*$") ~= nil, true)
    is(select(2, text:gsub("\n", "")) >= 7, true)
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
    local ruleset = setmetatable({}, { __index = function(_, k) return libruleset[k] end })
    is(ruleset.resolve("a:1"), "a:1")
    is(type(config.loglevel), "number")
    is(package.replace("sample", function(name) return { name } end)[1], "sample")
    _G.sample = package.loaded.sample
    package.replace("sample", function() return { "new" } end)
    is(_G.sample[1], "new")
    _G.sample = nil
end

local names = {}
for name in pairs(tests) do table.insert(names, name) end
table.sort(names)
for i, name in ipairs(names) do
    reset()
    tests[name]()
    print(string.format("ok %d - libruleset %s", i, name))
end
