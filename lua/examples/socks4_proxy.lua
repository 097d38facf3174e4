-- A SOCKS4 and SOCKS4A proxy as a script, CONNECT only:
--
--   sluice --script lua/examples/socks4_proxy.lua
--   curl --socks4a 127.0.0.1:8080 http://www.example.org/
--
-- It dials by itself: --block-outbound, -x and the ruleset do not apply to its connections. What this process itself
-- listens on, the API first, is kept from its clients by sluice.is_own() below.

local address, port = "127.0.0.1", 8080
local mode = "script" -- who moves the octets: "script": this script; "relay": a worker, with sock:relay
local max_clients = 1000
local setup_seconds = 10 -- for a request to arrive, and for a connection to be made
local idle_seconds = 300 -- script mode: without an octet in either direction
local small, large = 16 * 1024, 256 * 1024 -- buffers: of a direction, and while it is bulk

local CONNECT = 1
local GRANTED, REJECTED = 90, 91
local TEXT_MAX = 255 -- octets of a user or a name
local REQUEST_MAX = 8 + 2 * (TEXT_MAX + 1)

local clients = 0
local spare = { [small] = {}, [large] = {} } -- buffers to be used again
local spare_max = 64 -- of each size

-- The request at the start of `text`: a table and what stands behind it. nil: more of it is to come. false: it is none.
local function parse(text)
    if #text > 0 and text:byte(1) ~= 4 then return false end
    if #text < 8 then return nil end
    local _, command, to_port, ip = string.unpack(">BBI2I4", text)
    local finish = text:find("\0", 9, true)
    if (finish or #text + 1) - 9 > TEXT_MAX then return false end
    if not finish then return nil end
    local request = { command = command, port = to_port, host = ip }
    if ip > 0 and ip < 256 then -- 0.0.0.x: a name follows the user
        local start = finish + 1
        finish = text:find("\0", start, true)
        if (finish or #text + 1) - start > TEXT_MAX then return false end
        if not finish then return nil end
        request.host = text:sub(start, finish - 1)
    end
    if command ~= CONNECT or to_port == 0 or ip == 0 or request.host == "" then return false end
    return request, text:sub(finish + 1)
end

local function read_request(client)
    local text, buffer = "", data.new(REQUEST_MAX)
    local request, rest = parse(text)
    while request == nil do
        local _, size = client:recv(buffer)
        if size == 0 then return false end
        text = text .. buffer:string(0, size)
        request, rest = parse(text)
    end
    return request, rest
end

-- The answer must arrive: a close with octets of the client still unread would overtake it with a reset.
local function refuse(client)
    client:send(string.pack(">BBI2I4", 0, REJECTED, 0, 0))
    client:shutdown("send")
    client:settimeout(1)
    for _ = 1, 16 do
        if not client:receive(4096) then break end
    end
end

-- Returns a socket, or nothing.
local function connect(host, port)
    if sluice.is_own(host, port) then return nil end
    local is_ipv6 = type(host) == "string" and host:find(":", 1, true)
    local upstream = socket.new(is_ipv6 and "inet6" or "inet", "tcp")
    upstream:settimeout(setup_seconds)
    if pcall(upstream.connect, upstream, host, port) then return upstream end
    upstream:close()
    return nil
end

-- The same. Of a name one address after the other is tried.
local function dial(request)
    if type(request.host) ~= "string" then return connect(request.host, request.port) end
    for _, host in ipairs{ await.addresses(request.host) } do
        local upstream = connect(host, request.port)
        if upstream then return upstream end
    end
    return nil
end

local function take_buffer(size)
    return table.remove(spare[size]) or data.new(size)
end

local function give_buffer(buffer)
    local list = spare[#buffer]
    if #list < spare_max then list[#list + 1] = buffer end
end

-- Larger reads cost less for each octet, smaller buffers less memory: a direction has the large one while it fills the
-- small one.
local function fit_buffer(buffer, received)
    local wanted = #buffer
    if received == small then wanted = large elseif received < small then wanted = small end
    if wanted == #buffer then return buffer end
    give_buffer(buffer)
    return take_buffer(wanted)
end

-- One direction until its end. A timeout counts only if the other direction has been silent as well.
local function copy(pair, from, to)
    local buffer = take_buffer(small)
    while true do
        local ok, why, size = pcall(from.recv, from, buffer)
        if ok then
            if size == 0 then break end
            pair.active = true
            to:send(size == #buffer and buffer or buffer:segment(0, size))
            buffer = fit_buffer(buffer, size)
        elseif why.name ~= "ETIMEDOUT" or not pair.active then
            error(why)
        else
            pair.active = false
        end
    end
    give_buffer(buffer)
    to:shutdown("send")
end

-- Both directions side by side; the last one to end closes. An error ends both, with a reset as in the original.
local function relay_by_script(client, upstream)
    local pair = { left = 2, active = false }
    local function finish(ok)
        pair.left = pair.left - 1
        if not ok then
            pcall(client.setsockopt, client, "socket", "linger", 0)
            pcall(upstream.setsockopt, upstream, "socket", "linger", 0)
        end
        if not ok or pair.left == 0 then
            client:close()
            upstream:close()
        end
        if pair.left == 0 then clients = clients - 1 end
    end
    client:settimeout(idle_seconds)
    upstream:settimeout(idle_seconds)
    neosocksd.async(finish, copy, pair, client, upstream)
    neosocksd.async(finish, copy, pair, upstream, client)
end

-- Returns true if somebody else closes and counts from now on.
local function join(client, upstream, rest)
    client:send(string.pack(">BBI2I4", 0, GRANTED, 0, 0))
    upstream:send(rest) -- what came with the request goes first
    if mode == "script" then
        relay_by_script(client, upstream)
        return true
    end
    client:relay(upstream)
    return false
end

local function serve(client)
    client:settimeout(setup_seconds)
    local request, rest = read_request(client)
    local upstream = request and dial(request)
    if not upstream then
        refuse(client)
        return false
    end
    local ok, taken = pcall(join, client, upstream, rest)
    if ok and taken then return true end
    upstream:close()
    return false
end

local function start(client)
    if clients >= max_clients then
        client:close()
        return
    end
    clients = clients + 1
    neosocksd.async(function(ok, taken)
        if ok and taken then return end
        client:close()
        clients = clients - 1
    end, serve, client)
end

local server <close> = socket.new("inet", "tcp")
server:setsockopt("socket", "reuseaddr", 1)
server:bind(address, port)
server:listen(1024)
while true do
    local ok, client = pcall(server.accept, server)
    if ok then
        start(client)
    elseif client.name == "EMFILE" or client.name == "ENFILE" or client.name == "ENOBUFS" or client.name == "ENOMEM" then
        await.sleep(0.1) -- until descriptors are free again
    else
        error(client)
    end
end
