-- For programs that fetch what strangers ask for: no way into the inner network (SSRF), whatever a name resolves to.
--     sluice -l 127.0.0.1:1080 -r lua/examples/egress.lua --block-outbound loopback,multicast,local
-- --block-outbound judges the address that is really dialled. The rules here give the reason in the statistics, and
-- catch addresses before they are tried.
_G.libruleset = require("libruleset")
neosocksd.setinterval(60)

local inner = inet.subnet({
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "240.0.0.0/4",
})
local inner6 = inet6.subnet({ "::1/128", "fc00::/7", "fe80::/10", "::ffff:0:0/96", "64:ff9b::/96", "2002::/16" })

_G.route = { { inner, rule.reject(), "inner" } }
_G.route6 = { { inner6, rule.reject(), "inner" } }
_G.redirect_name = {
    { composite.inverse(match.port({ 80, 443 })), rule.reject(), "port" },
    { match.domain({ "localhost", "local", "internal" }), rule.reject(), "inner name" },
    { match.any(), rule.resolve() }, -- then route and route6 decide, and what they allow is dialled as that address
}
_G.route_default = { rule.direct() }

return libruleset
