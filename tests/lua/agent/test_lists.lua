-- agent_lists.lua by itself.
local tap = require("tap")
local lists = require("agent_lists")
local tests = {}

function tests.bounded()
    tap.is(lists.is_bounded({ 1, 2, x = 3 }, 3), true, "three fields are not more than three")
    tap.is(lists.is_bounded({ 1, 2, x = 3 }, 2), false, "but more than two")
    tap.is(lists.is_bounded({}, 0), true, "nothing is not more than nothing")
    tap.is(lists.is_bounded("abc", 3), false, "a text is no table")
    local looked = setmetatable({}, { __pairs = error, __len = error, __index = error })
    tap.is(lists.is_bounded(looked, 1), true, "no metamethod is called")
end

function tests.same()
    tap.is(lists.same({}, {}), true, "nothing is the same as nothing")
    tap.is(lists.same({ "a", "b" }, { "a", "b" }), true, "the same texts")
    tap.is(lists.same({ "a", "b" }, { "b", "a" }), false, "in another order they are others")
    tap.is(lists.same({ "a" }, { "a", "b" }), false, "one more")
    tap.is(lists.same({ "a", "b" }, { "a" }), false, "one less")
end

-- the least of what has not expired, found without a window
local function least_of(samples, now)
    local least
    for _, sample in ipairs(samples) do
        if sample.expiry > now and (not least or sample.rtt < least) then least = sample.rtt end
    end
    return least
end

function tests.window_of_samples()
    local window, samples, wrong, longest = nil, {}, 0, 0
    for now = 1, 3000 do
        local rtt = math.random(1, 50) / 1000
        window = lists.note(window, rtt, now, 60)
        table.insert(samples, { rtt = rtt, expiry = now + 60 })
        longest = math.max(longest, #window)
        if lists.least(window) ~= least_of(samples, now) then wrong = wrong + 1 end
        if not lists.is_window(window, 1) then wrong = wrong + 1 end
    end
    tap.is(wrong, 0, "the first of a window is the least of its time")
    tap.near(longest, 2, 50, "and it keeps only what may become the least")
end

function tests.window_edges()
    tap.is(lists.least(nil), nil, "no window has no least")
    tap.is(lists.least({}), nil, "nor has an empty one")
    local window = lists.note(nil, 0.2, 0, 10)
    tap.is(lists.least(lists.note(window, 0.3, 9.9, 10)), 0.2, "it counts until its time is over")
    tap.is(lists.least(lists.note(window, 0.4, 10, 10)), 0.3, "and no longer")
    tap.is(#lists.note(lists.note(nil, 0.2, 0, 10), 0.2, 1, 10), 1, "of two equal ones the later is kept")
end

function tests.forms()
    local function is(window, good, name) tap.is(lists.is_window(window, 1), good, name) end
    is({}, true, "an empty window")
    is({ { rtt = 0, expiry = 1 }, { rtt = 1, expiry = 2 } }, true, "a rising one")
    is({ { rtt = 0.5, expiry = 1 }, { rtt = 0.4, expiry = 2 } }, false, "a falling one")
    is({ { rtt = 1.1, expiry = 1 } }, false, "a round trip that is too long")
    is({ { rtt = -1, expiry = 1 } }, false, "a negative one")
    is({ { rtt = 0 / 0, expiry = 1 } }, false, "one that is no number")
    is({ { rtt = "1", expiry = 1 } }, false, "a text")
    is({ { rtt = 1 } }, false, "one without an end")
    is({ 0.5 }, false, "a bare number")
    is(nil, false, "no window")
end

return tests
