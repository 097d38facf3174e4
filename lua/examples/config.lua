-- One file that does all: settings and rules. What stands here as a comment is the default.
--     sluice -c lua/examples/config.lua
-- SIGHUP runs it again: what can change while sessions run does (all but addresses, user, and what opens at the start).
_G.libruleset = require("libruleset")
neosocksd.setinterval(60)

_G.redirect_name = {
    { match.domain("example.com"), rule.proxy("socks5://192.0.2.1:1080"), "by way of the proxy" },
}

return {
    listen = "127.0.0.1:1080", -- several, separated by commas; unix:/path
    -- http_listen = "127.0.0.1:8080",
    -- forward = "192.0.2.7:22", -- one for each address of `listen`, in its order
    restapi = "127.0.0.1:9080",
    -- api_token_file = "/etc/sluice/tokens",
    -- proxy = "socks5://user:password@192.0.2.1:1080,http://192.0.2.2:3128",
    -- user_name = "nobody:nogroup",
    -- nameserver = "192.0.2.53",
    -- netdev = "eth0",
    loglevel = 4,
    -- resolve_pf = 0, -- 2: IPv4 only, 10: IPv6 only
    timeout = 60, -- seconds
    -- idle_timeout = 7440,
    -- half_close_timeout = 3600,
    -- drain = 0,
    memlimit = 64, -- MiB
    -- lua_budget = 5000, -- milliseconds
    -- allow_self = false,
    -- conn_cache = true, -- keep connections to HTTP servers for the next plain HTTP request
    -- auth_required = false,
    -- pipe = false,
    -- reuseport = false,
    -- tcp_fastopen = true,
    -- tcp_fastopen_connect = false,
    -- tcp_nodelay = true,
    -- tcp_keepalive = true,
    -- tcp_sndbuf = 0, -- octets; 0: what the kernel chooses
    -- tcp_rcvbuf = 0,
    -- transparent = false,
    -- traceback = false,
    -- socks5_bind = false,
    -- socks5_udp = false,
    -- block_loopback = false,
    -- block_multicast = true,
    -- block_local = false,
    -- block_global = false,
    -- max_sessions = 0,
    -- startup_limit_start = 0,
    -- startup_limit_rate = 30,
    -- startup_limit_full = 0,
    -- workers = 0, -- one per CPU
    -- relay = "auto",
    -- scripts = "/etc/sluice/one.lua,/etc/sluice/two.lua", -- as of --script
    ruleset = libruleset,
}
