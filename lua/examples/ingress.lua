-- For people who come from outside: users with passwords, and inner hosts that they may reach, no others.
--     sluice -l :1080 --auth-required -r lua/examples/ingress.lua
-- The list of users may be replaced while it runs:
--     curl -d '_G.secrets = { alice = "new password" }' http://127.0.0.1:9080/ruleset/invoke
_G.libruleset = require("libruleset")
neosocksd.setinterval(60)

_G.secrets = secrets or {}
secrets.alice = secrets.alice or "change me"

_G.redirect_name = {
    { match.exact({ "wiki:80", "wiki.corp.example:80" }), rule.redirect("127.0.0.1:8000"), "wiki" },
    { match.domain("corp.example"), rule.resolve() }, -- and then the rules for its address
}
_G.route = {
    { inet.subnet({ "10.20.0.0/16" }), rule.direct(), "office" },
}
_G.route_default = { rule.reject(), "outside" }

return libruleset
