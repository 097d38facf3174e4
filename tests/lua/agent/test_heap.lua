-- agent_heap.lua by itself.
local tap = require("tap")
local heap = require("agent_heap")
local tests = {}

local function less(a, b) return a < b end

-- everything in the order in which it comes out
local function drain(items, before)
    local all = {}
    while #items > 0 do table.insert(all, heap.pop(items, before)) end
    return table.concat(all, " ")
end

function tests.empty()
    local items = {}
    tap.is(heap.pop(items, less), nil, "nothing is on top of an empty heap")
    heap.push(items, 5, less)
    tap.is(heap.pop(items, less), 5, "one goes in and comes out")
    tap.is(heap.pop(items, less), nil, "and it is empty again")
end

-- every order of so many items, some of which are equal
local function each_order(items, n, visit)
    if n == 0 then return visit(items) end
    for i = 1, n do
        items[i], items[n] = items[n], items[i]
        each_order(items, n - 1, visit)
        items[i], items[n] = items[n], items[i]
    end
end

function tests.orders()
    local wrong, count = 0, 0
    each_order({ 1, 2, 2, 3, 4, 5, 6 }, 7, function(order)
        local items = {}
        for _, item in ipairs(order) do heap.push(items, item, less) end
        count = count + 1
        if drain(items, less) ~= "1 2 2 3 4 5 6" then wrong = wrong + 1 end
    end)
    tap.is(count, 5040, "all orders of seven were tried")
    tap.is(wrong, 0, "and all came out sorted")
end

function tests.mixed()
    local items, kept, wrong = {}, {}, 0
    for _ = 1, 5000 do
        if #kept > 0 and math.random() < 0.4 then
            local top = heap.pop(items, less)
            table.sort(kept)
            if top ~= table.remove(kept, 1) then wrong = wrong + 1 end
        else
            local item = math.random(1, 100)
            heap.push(items, item, less)
            table.insert(kept, item)
        end
    end
    tap.is(#items, #kept, "as many are left as were put in and not taken")
    tap.is(wrong, 0, "pushes and pops in any order give the least each time")
end

function tests.other_order()
    local items = {}
    for _, item in ipairs({ 3, 1, 4, 1, 5 }) do heap.push(items, item, function(a, b) return a > b end) end
    tap.is(drain(items, function(a, b) return a > b end), "5 4 3 1 1", "the order is the caller's")
end

return tests
