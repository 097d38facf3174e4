-- Checks as lines of TAP, one each.
local tap = { count = 0, failed = 0 }

local function show(value)
    if type(value) == "string" then return string.format("%q", value):gsub("\n", "n") .. "" end
    return tostring(value)
end

function tap.ok(good, name, why)
    tap.count = tap.count + 1
    if not good then tap.failed = tap.failed + 1 end
    print(string.format("%s %d - %s", good and "ok" or "not ok", tap.count, name))
    if not good and why then print("# " .. why) end
    return good
end

function tap.is(got, expected, name)
    return tap.ok(got == expected, name, string.format("got %s, expected %s", (show(got)), (show(expected))))
end

function tap.near(got, least, most, name)
    local good = type(got) == "number" and got >= least and got <= most
    return tap.ok(good, name, string.format("got %s, expected %s to %s", tostring(got), tostring(least), tostring(most)))
end

function tap.has(text, part, name)
    return tap.ok(type(text) == "string" and text:find(part, 1, true) ~= nil, name, string.format("%s has no %s", (show(text)), (show(part))))
end

function tap.raises(part, name, f, ...)
    local ok, message = pcall(f, ...)
    if ok then return tap.ok(false, name, "nothing was raised") end
    return tap.has(tostring(message), part, name)
end

return tap
