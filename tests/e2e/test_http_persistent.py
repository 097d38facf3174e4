"""Several plain HTTP requests on one connection of a client (RFC 9112 section 9.3): each is a request of its own."""
import os
import signal
import threading

import pytest

import origins
import wire
from test_http import Exchange, OK, ask, chunked, get, parse, read_chunked, value

BAD_REQUESTS = {
    "length and chunked": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "two equal lengths": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "length with a comma behind it": b"Content-Length: 3,\r\n\r\nabc",
    "empty length": b"Content-Length: \r\n\r\n",
    "length with a sign": b"Content-Length: +3\r\n\r\nabc",
    "length in hexadecimal": b"Content-Length: 0x3\r\n\r\nabc",
    "chunked with a comma": b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "blank before the length's colon": b"Content-Length : 3\r\n\r\nabc",
    "folded line": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "two hosts": b"Host: other\r\n\r\n",
}


def request(port, path=b"/", fields=b"", method=b"GET", version=b"1.1"):
    return b"%s http://127.0.0.1:%d%s HTTP/%s\r\nHost: x\r\n%s\r\n" % (method, port, path, version, fields)


def read_response(client, method=b"GET"):
    """(status, fields, body) of the next response, interim ones before it left out; nothing behind it is read."""
    while True:
        line, fields = parse(client.read_head())
        status = int(line.split()[1])
        if status >= 200:
            break
    if method == b"HEAD" or status in (204, 304):
        return status, fields, b""
    if value(fields, "Transfer-Encoding"):
        return status, fields, read_chunked(client.read)
    length = value(fields, "Content-Length")
    return status, fields, client.read_all() if length is None else client.read(int(length))


def teller(name):
    """An origin whose answers say who it is and what it was asked; one request per connection."""
    def serve(_origin, connection):
        head = origins.read_http_head(connection)
        body = b"%s %s" % (name, head.split(b" ")[1])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return head

    return serve


def heads_heard(proxy, target, fields=b"Connection: close\r\n"):
    """The heads of all requests that the origin has got so far: a last one shows that no other is on its way."""
    with ask(proxy, request(target.port, b"/last", fields)) as client:
        assert read_response(client)[0] == 200
    heads = target.wait("results", len(target.connections))
    assert len(heads) == len(target.connections)
    return [head for head in heads if not head.startswith(b"GET /last ")]


def is_over(client):
    """The proxy has ended the connection, and nothing came before the end."""
    return client.read(1) == b""


def test_each_request_goes_where_it_says(shared, origin):
    proxy, first, second = shared(), origin(teller(b"first")), origin(teller(b"second"))
    with wire.Client(proxy.address) as client:
        for target, name in ((first, b"first"), (second, b"second"), (first, b"first"), (second, b"second")):
            status, fields, body = read_response(client.send(request(target.port, b"/" + name)))
            assert status == 200 and body == name + b" /" + name and value(fields, "Connection") is None
        client.send(request(first.port, fields=b"Connection: close\r\n"))
        assert value(read_response(client)[1], "Connection") == "close" and is_over(client)
    assert proxy.flat()


def test_each_request_is_decided(ruled, origin):
    """Target, user and password are judged anew: what the first request was allowed says nothing of the next one."""
    allowed, forbidden = origin(teller(b"allowed")), origin(teller(b"forbidden"))
    proxy, _ = ruled("""return { resolve = function(address, user)
            if user ~= "bad" and address:match(":(%%d+)$") ~= "%d" then return address end
        end }""" % forbidden.port)
    good, bad = (b"Proxy-Authorization: Basic %s\r\n" % word for word in (b"Z29vZDp4", b"YmFkOng="))
    for last in (request(forbidden.port, fields=good), request(allowed.port, fields=bad)):
        with wire.Client(proxy.address) as client:
            for _ in range(2):
                assert read_response(client.send(request(allowed.port, fields=good)))[0] == 200
            status, fields, _ = read_response(client.send(last))
            assert status == 403 and value(fields, "Connection") == "close" and is_over(client)
    heard = heads_heard(proxy, allowed, good + b"Connection: close\r\n")
    assert len(heard) == 4 and all(b"Proxy-Authorization" not in head for head in heard) and not forbidden.connections


def test_credentials_are_asked_of_each_request(ruled, origin):
    target = origin(teller(b"x"))
    proxy, _ = ruled("return { resolve = function(address) return address end }", "--auth-required")
    with wire.Client(proxy.address) as client:
        client.send(request(target.port, fields=b"Proxy-Authorization: Basic dTpw\r\n"))
        assert read_response(client)[0] == 200
        assert read_response(client.send(request(target.port)))[0] == 407 and is_over(client)


@pytest.mark.parametrize("relay", ["auto", "copy", "splice"])
def test_pipelined_requests_are_answered_in_order(shared, origin, relay):
    """With bodies of all framings and sizes between them; a small one must not overtake a large one."""
    def serve(_origin, connection):
        head = origins.read_http_head(connection)
        fields = parse(head)[1]
        reader = wire.Client.__new__(wire.Client)
        reader.socket = connection
        if value(fields, "Transfer-Encoding"):
            body = read_chunked(reader.read)
        else:
            body = reader.read(int(value(fields, "Content-Length") or 0))
        path = head.split(b" ")[1]
        answer = path + b":" + body
        if b"chunked" in path:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(answer, [1, 70000]))
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))

    proxy, target = shared("--relay", relay), origin(serve)
    said, expected = [], []
    for i, size in enumerate([0, 1, 20_000, 500_000, 3, 70_000, 0, 2_000_000, 10]):
        content, path = os.urandom(size), b"/%s-%d" % (b"chunked" if i % 3 == 1 else b"length", i)
        if i % 2 and size:
            said.append(request(target.port, path, b"Transfer-Encoding: chunked\r\n", b"POST") + chunked(content, [3, 40000, 100_000]))
        else:
            said.append(request(target.port, path, b"Content-Length: %d\r\n" % size if size else b"", b"POST") + content)
        expected.append(path + b":" + content)
    with wire.Client(proxy.address) as client:
        everything = b"".join(said) + request(target.port, b"/last", b"Connection: close\r\n")
        sender = threading.Thread(target=client.socket.sendall, args=(everything,))
        sender.start()
        for answer in [*expected, b"/last:"]:
            status, _, body = read_response(client)
            assert status == 200 and body == answer
        assert is_over(client)
        sender.join()
    assert proxy.flat()


def test_second_request_octet_by_octet(shared, origin):
    proxy, target = shared(), origin(teller(b"x"))
    with wire.Client(proxy.address) as client:
        assert read_response(client.send(request(target.port)))[2] == b"x /"
        client.send_slowly(request(target.port, b"/slow"), 0.001)
        assert read_response(client)[2] == b"x /slow"


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_smuggled_request(shared, origin, name):
    """Behind a good one as well: refused, the connection ends, and the upstream gets nothing of it."""
    proxy, target = shared(), origin(teller(b"x"))
    with wire.Client(proxy.address) as client:
        assert read_response(client.send(request(target.port)))[0] == 200
        client.send(b"POST http://127.0.0.1:%d/bad HTTP/1.1\r\nHost: x\r\n" % target.port + BAD_REQUESTS[name] +
                    request(target.port, b"/smuggled"))
        status, fields, _ = read_response(client)
        assert status == 400 and value(fields, "Connection") == "close" and is_over(client)
    assert len(heads_heard(proxy, target)) == 1


def test_coding_in_another_case_is_one(shared, origin):
    """`Chunked` is the coding, and read as such: what follows the body is the next request."""
    proxy, exchange = shared(), Exchange(origin, OK)
    with ask(proxy, request(exchange.port, b"/1", b"Transfer-Encoding: Chunked\r\n", b"POST") + b"3\r\nabc\r\n0\r\n\r\n" +
             request(exchange.port, b"/2", b"Connection: close\r\n")) as client:
        assert [read_response(client)[2] for _ in range(2)] == [b"ok", b"ok"] and is_over(client)
    assert exchange.request(0)[1] == b"abc" and exchange.request(1)[0].startswith(b"GET /2 ")


RESPONSES = {
    "100 and 103": (b"GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, 200, b"ok"),
    "HEAD with a length": (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 200, b""),
    "HEAD of chunks": (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, b""),
    "304 with a length": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", 304, b""),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "204 with a length": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 1000\r\n\r\n", 204, b""),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_next_pair_matches(shared, origin, name):
    """The upstream keeps its side open: only the framing says where a response ends. It serves one request for each
    connection; test_http_reuse.py has these responses on a connection that carries more."""
    method, reply, status, body = RESPONSES[name]
    proxy, odd, target = shared("--no-conn-cache"), Exchange(origin, reply, close=False), origin(teller(b"x"))
    with wire.Client(proxy.address) as client:
        for i in range(3):
            client.send(request(odd.port, method=method) + request(target.port, b"/%d" % i))
            answer = read_response(client, method)
            assert (answer[0], answer[2]) == (status, body)
            assert read_response(client)[2] == b"x /%d" % i


def test_expectation_and_the_next_pair(shared, origin):
    def serve(_origin, connection):
        origins.read_http_head(connection)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = connection.recv(5)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    proxy, target = shared(), origin(serve)
    with wire.Client(proxy.address) as client:
        for word in (b"hello", b"again"):
            client.send(request(target.port, fields=b"Content-Length: 5\r\nExpect: 100-continue\r\n", method=b"PUT"))
            assert parse(client.read_head())[0] == "HTTP/1.1 100 Continue"
            assert read_response(client.send(word))[2] == word


def test_surplus_behind_a_response_is_nobodys(shared, origin):
    """What an upstream sends behind its response is not taken for the answer to the next request."""
    forged = Exchange(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    proxy, target = shared(), origin(teller(b"x"))
    with wire.Client(proxy.address) as client:
        client.send(request(forged.port) + request(target.port, b"/own"))
        assert [read_response(client)[2] for _ in range(2)] == [b"body", b"x /own"]


def test_ends_that_the_client_is_told(shared, origin):
    """Where the end of the connection is the end of the body, or the request is not complete, or the client says so."""
    until_close = Exchange(origin, b"HTTP/1.1 200 OK\r\n\r\nall of it")
    early = Exchange(origin, b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig", body=False, close=False)
    target, proxy = origin(teller(b"x")), shared()
    for said, expected in ((request(until_close.port), b"all of it"),
                           (request(early.port, fields=b"Content-Length: 1000\r\n", method=b"POST") + b"part", b"big"),
                           (request(target.port, fields=b"Connection: x, Close\r\n"), b"x /")):
        with ask(proxy, said) as client:
            _, fields, body = read_response(client)
            assert body == expected and value(fields, "Connection") == "close" and is_over(client)


def test_version_1_0_has_to_ask(shared, origin):
    chunks = Exchange(origin, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"in chunks", [4]))
    target, proxy = origin(teller(b"x")), shared()
    with ask(proxy, request(target.port, version=b"1.0")) as client:
        assert value(read_response(client)[1], "Connection") == "close" and is_over(client)
    with wire.Client(proxy.address) as client:
        keep = b"Connection: Keep-Alive\r\n"
        for _ in range(2):
            _, fields, body = read_response(client.send(request(target.port, fields=keep, version=b"1.0")))
            assert body == b"x /" and value(fields, "Connection") == "keep-alive"
        _, fields, body = read_response(client.send(request(chunks.port, fields=keep, version=b"1.0")))
        assert body == b"in chunks" and value(fields, "Connection") == "close"


def test_connect_behind_a_request(shared, origin):
    proxy, target, echo = shared(), origin(teller(b"x")), origin(origins.echo)
    with wire.Client(proxy.address) as client:
        assert read_response(client.send(request(target.port)))[0] == 200
        client.send(wire.http_connect("127.0.0.1", echo.port) + b"early")
        assert client.read_head().startswith(b"HTTP/1.1 200 ") and client.read(5) == b"early"


def test_client_that_leaves_between_requests(shared, origin):
    proxy, target = shared(), origin(teller(b"x"))
    for leave in ("shut", "reset"):
        client = wire.Client(proxy.address)
        assert read_response(client.send(request(target.port)))[0] == 200
        getattr(client, leave)()
        if leave == "shut":
            assert is_over(client)
            client.close()
    assert proxy.flat()


def test_idle_connection_ends(sluice, origin):
    """Nobody waits for ever: --timeout is the limit, or --idle-timeout where that is less."""
    target = origin(teller(b"x"))
    for options in (("-t", "5"), ("--idle-timeout", "4")):
        proxy = sluice(*options)
        with wire.Client(proxy.address) as client:
            assert read_response(client.send(request(target.port)))[0] == 200
            assert is_over(client)
        assert proxy.flat()


def test_idle_connections_do_not_hold_a_stop(sluice, origin):
    target, proxy = origin(teller(b"x")), sluice("--drain", "600")
    clients = [wire.Client(proxy.address) for _ in range(20)]
    for client in clients:
        assert read_response(client.send(request(target.port)))[0] == 200
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    assert all(is_over(client) for client in clients)


def test_idle_connections_hold_no_handshake(shared, origin):
    """--max-startups counts those whose request is under way alone."""
    target, proxy = origin(teller(b"x")), shared("--max-startups", "10:100:10", "--workers", "1")
    clients = []
    for _ in range(60):
        clients.append(wire.Client(proxy.address))
        assert read_response(clients[-1].send(request(target.port)))[0] == 200
    for client in clients:
        assert read_response(client.send(request(target.port)))[0] == 200
        client.close()
    assert proxy.flat()
