-- Lists of the agent: bounded ones, and windows of round trips.
local lists = {}

-- Whether it is a table of not more than so many fields. A list of others may be endless: it is not counted to its end.
function lists.is_bounded(t, most)
    if type(t) ~= "table" then return false end
    local count = 0
    for _ in next, t do
        count = count + 1
        if count > most then return false end
    end
    return true
end

function lists.same(a, b)
    if #a ~= #b then return false end
    for i = 1, #a do
        if a[i] ~= b[i] then return false end
    end
    return true
end

--------------------------------------------------------------------------------
-- windows: what may still become the least round trip of a time, { rtt, expiry } each; rising, so that the first is the
-- least. The form is that of the original: whichever agent comes next finds what it knows.

function lists.least(window)
    local first = window and window[1]
    return first and first.rtt
end

-- a sample that counts for so many seconds; window: nil, or one that is changed. The window
function lists.note(window, rtt, now, seconds)
    window = window or {}
    while window[1] and window[1].expiry <= now do table.remove(window, 1) end
    while #window > 0 and window[#window].rtt >= rtt do table.remove(window) end
    table.insert(window, { rtt = rtt, expiry = now + seconds })
    return window
end

-- Whether it has that form, with round trips of 0...most.
function lists.is_window(window, most)
    if type(window) ~= "table" then return false end
    local least = 0
    for _, sample in ipairs(window) do
        if type(sample) ~= "table" or type(sample.expiry) ~= "number" then return false end
        if type(sample.rtt) ~= "number" or not (sample.rtt >= least and sample.rtt <= most) then return false end
        least = sample.rtt
    end
    return true
end

return lists
