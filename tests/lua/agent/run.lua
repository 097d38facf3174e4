-- lua5.4 tests/lua/agent/run.lua [suite...], from the root of the repository
package.path = "tests/lua/agent/?.lua;lua/scripts/?.lua;" .. package.path
local tap = require("tap")

local suites = { "heap", "lists", "paths", "entries", "routes", "addresses", "rounds", "reload", "hostile", "statistics", "settings" }
if arg and #arg > 0 then suites = { table.unpack(arg) } end

local function names_of(tests)
    local names = {}
    for name in pairs(tests) do table.insert(names, name) end
    table.sort(names)
    return names
end

math.randomseed(tonumber(os.getenv("SEED")) or 4711)
for _, suite in ipairs(suites) do
    local tests = require("test_" .. suite)
    for _, name in ipairs(names_of(tests)) do
        print(string.format("# %s: %s", suite, name))
        local before = tap.count
        local ok, message = xpcall(tests[name], debug.traceback)
        if not ok then tap.ok(false, name .. " came to its end", (tostring(message):gsub("\n", "\n# "))) end
        if ok and tap.count == before then tap.ok(false, name .. " has checks") end
    end
end
print(string.format("1..%d", tap.count))
os.exit(tap.failed == 0)
