-- Rules in tables, the usual beginning: some names elsewhere, some refused, the rest directly.
--     sluice -l 127.0.0.1:1080 -r lua/examples/simple.lua
_G.libruleset = require("libruleset")
neosocksd.setinterval(60) -- one column of the chart in POST /stats

-- in place of DNS
_G.hosts = {
    ["router.home"] = "192.168.1.1",
}

-- requests by name, "host:port"; the first rule that matches decides
_G.redirect_name = {
    { match.exact("printer.home:80"), rule.redirect("192.168.1.20:631") },
    { match.domain({ "ads.example", "tracker.example" }), rule.reject(), "ads" },
    { match.port(25), rule.reject(), "mail" },
}

-- requests by IPv4 address
_G.route = {
    { inet.subnet({ "169.254.0.0/16" }), rule.reject(), "link-local" },
}

-- everything else
_G.route_default = { rule.direct() }

return libruleset
