-- What the suites share: named checks, and errors that must be raised.
local check = { count = 0 }

local function show(value)
    if type(value) == "string" then return string.format("%q", value) end
    return tostring(value)
end

-- same(got..., expected...) by lists
function check.same(got, expected, what)
    check.count = check.count + 1
    local n = math.max(got.n or #got, expected.n or #expected)
    for i = 1, n do
        if got[i] ~= expected[i] then
            error(string.format("%s: value %d is %s, expected %s", what or "check", i, show(got[i]), show(expected[i])), 2)
        end
    end
end

function check.is(got, expected, what)
    check.count = check.count + 1
    if got ~= expected and not (got ~= got and expected ~= expected) then
        error(string.format("%s: got %s, expected %s", what or "check", show(got), show(expected)), 2)
    end
end

function check.raises(part, f, ...)
    check.count = check.count + 1
    local ok, message = pcall(f, ...)
    if ok then error("no error was raised, expected: " .. part, 2) end
    if not tostring(message):find(part, 1, true) then
        error(string.format("raised %s, expected %s", show(tostring(message)), show(part)), 2)
    end
end

return check
