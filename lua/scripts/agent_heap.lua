-- A binary heap in a table: the first one of all is on top. before(a, b) tells whether a comes before b.
local heap = {}

function heap.push(items, item, before)
    local at = #items + 1
    while at > 1 and before(item, items[at // 2]) do
        items[at] = items[at // 2]
        at = at // 2
    end
    items[at] = item
end

-- the first one, or nil if there is none
function heap.pop(items, before)
    local top, last = items[1], table.remove(items)
    if #items == 0 then return top end
    local at = 1
    while true do
        local child = 2 * at
        if child > #items then break end
        if child < #items and before(items[child + 1], items[child]) then child = child + 1 end
        if not before(items[child], last) then break end
        items[at] = items[child]
        at = child
    end
    items[at] = last
    return top
end

return heap
