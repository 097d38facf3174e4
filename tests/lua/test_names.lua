-- Every name that rulesets of any version may use is there, and is what it should be. The list is the contract's (sections
-- 5, 6 and 8 of docs/compatibility.md), not what the code happens to define. Runs in a coroutine of a real server.
local check = require("check")
local is = check.is

local FUNCTIONS = {
    neosocksd = "async config invoke now parse_ipv4 parse_ipv6 resolve setinterval splithostport stats traceback",
    sluice = "async config invoke now parse_ipv4 parse_ipv6 resolve setinterval splithostport stats traceback " ..
        "cache tag setting domains subnets subnets6",
    await = "sleep resolve execute invoke forward idle",
    regex = "compile find match gmatch",
    time = "monotonic process thread unix wall measure",
    zlib = "compress uncompress gzip gunzip",
}
local LIBRARY = { -- with libruleset
    neosocksd = "sendmsg",
    await = "callback rpcall",
    regex = "compat",
    match = "any exact host port domain domaintree pattern regex agent",
    rule = "direct reject default proxy redirect rewrite loopback maybe resolve agent",
    lb = "roundrobin iwrr",
    inet = "subnet",
    inet6 = "subnet",
    composite = "inverse anyof allof maybe subchain",
    list = "new check totable iter insert remove unpack concat insertf append map reverse sort",
    rlist = "new check push get next iter",
    string = "startswith endswith",
    table = "get",
    package = "replace",
    rpc = "echo",
    msgh = "nop",
}
local GLOBALS = "printf format_timestamp log logf evlog evlogf parse_cidr parse_cidr6 async unmarshal"
local TABLES = "config recent_events secrets stat_requests rpc msgh"
local SETTINGS = "listen forward proxy restapi http_listen user_name nameserver netdev loglevel resolve_pf timeout memlimit " ..
    "auth_required pipe reuseport tcp_fastopen tcp_fastopen_connect tcp_nodelay tcp_keepalive transparent traceback socks5_bind " ..
    "socks5_udp daemonize block_loopback block_multicast block_local block_global tcp_sndbuf tcp_rcvbuf max_sessions " ..
    "startup_limit_start startup_limit_rate startup_limit_full ruleset api"
local OPTIONAL = "listen forward proxy http_listen user_name nameserver netdev ruleset" -- nil unless they are set
local AGENT = "matcher proxy rpcall wake maintenance stats stop _subdomain _resolve_internal _build_index"

local function each(words, f)
    for word in words:gmatch("%S+") do f(word) end
end

local function functions(all)
    for name, words in pairs(all) do
        each(words, function(word) is(type(_G[name][word]), "function", name .. "." .. word) end)
    end
end

is(type(marshal), "function")
is(type(NDEBUG), "boolean")
functions(FUNCTIONS)
each("EXTENDED ICASE NEWLINE NOSUB", function(word) is(math.type(regex[word]), "integer", word) end)

local libruleset = require("libruleset")
functions(LIBRARY)
each(GLOBALS, function(word) is(type(_G[word]), "function", word) end)
each(TABLES, function(word) is(type(_G[word]), "table", word) end)
each("num_requests num_authorized RECENT_EVENTS_STATS", function(word) is(math.type(_G[word]), "integer", word) end)
each("resolve route route6 tick stats failover", function(word) is(type(libruleset[word]), "function", word) end)
each("resolve route route6", function(word) is(type(libruleset.decide[word]), "function", word) end)

local optional, settings = {}, neosocksd.config()
each(OPTIONAL, function(word) optional[word] = true end)
each(SETTINGS, function(word)
    is(settings[word] ~= nil or optional[word] == true, true, word)
    is(config[word], settings[word], word)
end)

local future = async(function() return 7 end)
each("get wait", function(word)
    local ok, result = future[word](future)
    is(ok and result, 7, word)
end)
is(getmetatable(future).__name, "future")
is(getmetatable(list:new()).__name, "list")
is(getmetatable(rlist:new(1)).__name, "rlist")
is(getmetatable(regex.compile("x")).__name, "regex")

local agent = require("agent")
each(AGENT, function(word) is(type(agent[word]), "function", word) end)
is(type(agent.chain), "table")
agent.stop()
return check.count
