-- The text of agent.stats.
local stubs, tap = require("stubs"), require("tap")
local is, has = tap.is, tap.has
local tests = {}

local function lines(text)
    local all = {}
    for line in (text .. "\n"):gmatch("(.-)\n") do table.insert(all, line) end
    return all
end

function tests.lines()
    local w = stubs.row({ "a", "b", "c" })
    w:rounds(4)
    local text = lines(w.nodes.a.agent.stats(60))
    is(#text, 3, "a head and a line for each other peer")
    is(text[1]:match('^> Peers %(self="a"%) norelay probe=%d+s$'), text[1], "the head")
    is(text[2]:match('^"b"             : %d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%+00:00 %[b%]   10ms "b"$'), text[2], "a neighbour")
    is(text[3]:match('^"c"             : .* %[b%]   20ms "b"%->"c"$'), text[3], "one behind it")
end

function tests.unreachable()
    local w = stubs.row({ "a", "b", "c" })
    w:rounds(4)
    w:break_link("a", "b")
    w:rounds(2)
    local text = w.nodes.a.agent.stats(60)
    for _, line in ipairs({ lines(text)[2], lines(text)[3] }) do
        is(line:match("^\"[bc]\" +: %S+ %(unreachable%)$"), line, "one that is not reached")
    end
end

function tests.heads()
    local w = stubs.new_world()
    local agent = w:node("a", { relay_cost = 0 })
    is(agent.stats(1), '> Peers (self="a") probe=10s\n', "a relay that is free, and no peers")
    agent.relay_cost = 2.5
    has(agent.stats(1), '> Peers (self="a") relay_cost=2.5 probe=', "one that costs")
    agent.relay_cost = -1
    has(agent.stats(1), '> Peers (self="a") norelay probe=', "none")
    has(agent.stats(1), "probe=10s", "the interval in the beginning")
    w:run(20000)
    has(agent.stats(1), "probe=600s", "and at last")
    agent.peername = nil
    has(agent.stats(1), "> Peers norelay probe=", "without a name")
    agent.stop()
    is(agent.stats(1), "", "of one that is stopped nothing")
end

function tests.in_order()
    local w = stubs.new_world()
    local agent, env = w:node("a", {})
    for _, name in ipairs({ "m", "z", "b", "a-very-long-name-of-a-peer" }) do
        env.rpc.sync("p", {}, { [name] = { version = 1, timestamp = w.now, hosts = {}, conns = {} } })
    end
    local text = lines(agent.stats())
    is(text[2]:match('^"[%w-]+"'), '"a-very-long-name-of-a-peer"', "peers come by name")
    is(text[3]:match('^"[%w-]+"'), '"b"', "one")
    is(text[5]:match('^"[%w-]+"'), '"z"', "after the other")
end

return tests
