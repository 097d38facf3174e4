"""Plain HTTP through the proxy: what the upstream hears, what the client hears (contract 2.5, RFC 9110, RFC 9112)."""
import hashlib
import os
import re
import socket
import threading
import time

import pytest

import origins
import process
import wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def parse(head):
    """(first line, [(name, value)]) of a complete head."""
    assert head.endswith(b"\r\n\r\n"), head
    lines = head[:-4].decode("latin-1").split("\r\n")
    return lines[0], [tuple(line.split(": ", 1)) for line in lines[1:]]


def value(fields, name):
    """The one value of a field, None if it is not there."""
    found = [text for key, text in fields if key.lower() == name.lower()]
    assert len(found) <= 1, found
    return found[0] if found else None


def read_exactly(connection, size):
    parts = []
    while size > 0:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_chunked(read_octets):
    """Decodes strictly: sizes, lines and the end as RFC 9112 section 7.1 has them, without extensions and trailers."""
    parts = []
    while True:
        line = b""
        while not line.endswith(b"\r\n"):
            octet = read_octets(1)
            assert octet, "the end came in the middle of a chunk"
            line += octet
        assert re.fullmatch(rb"[0-9A-Fa-f]+\r\n", line), line
        size = int(line, 16)
        if size:
            part = read_octets(size)
            assert len(part) == size
            parts.append(part)
        assert read_octets(2) == b"\r\n"
        if not size:
            return b"".join(parts)


class Exchange:
    """An origin for one request per connection: keeps head and body, answers what it was given, in these pieces."""

    def __init__(self, origin, *pieces, body=True, close=True, pause=0):
        self.pieces, self.body, self.close, self.pause = pieces, body, close, pause
        self.requests = []
        self.origin = origin(self.handle)
        self.port = self.origin.port
        self.url = f"http://127.0.0.1:{self.port}".encode()

    def handle(self, one, connection):
        head = origins.read_http_head(connection)
        if not head:
            return None
        _, fields = parse(head)
        content = b""
        if self.body and value(fields, "Transfer-Encoding"):
            content = read_chunked(lambda size: read_exactly(connection, size))
        elif self.body:
            content = read_exactly(connection, int(value(fields, "Content-Length") or 0))
        with one.changed:
            self.requests.append((head, content))
            one.changed.notify_all()
        for piece in self.pieces:
            connection.sendall(piece)
            time.sleep(self.pause)
        if not self.close:
            return origins.KEEP
        connection.shutdown(socket.SHUT_WR)
        return origins.collect(one, connection)

    def request(self, index=0):
        with self.origin.changed:
            assert self.origin.changed.wait_for(lambda: len(self.requests) > index, 10)
            return self.requests[index]


def ask(proxy, data, **options):
    client = wire.Client(proxy.address, **options)
    client.send(data)
    return client


def get(exchange, fields=b"", path=b"/", method=b"GET", version=b"1.1"):
    """A request that is the last one on its connection, unless the fields have an option of their own."""
    if b"Connection:" not in fields and version == b"1.1":
        fields += b"Connection: close\r\n"
    return method + b" " + exchange.url + path + b" HTTP/" + version + b"\r\nHost: ignored\r\n" + fields + b"\r\n"


# --- what the upstream hears ---

def test_request_is_rewritten(shared, origin):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, get(
        exchange, b"Accept: */*\r\nConnection: close, X-Drop\r\nX-Drop: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: X-T\r\nUpgrade-Insecure-Requests: 1\r\n"
        b"Via: 1.0 before\r\nCookie: a=b\r\n" + wire.basic(b"user", b"secret") + b"X-Last:   two  words \t\r\n",
        b"/path/%41?query=1&b"))
    assert client.read_all().endswith(b"ok")
    line, fields = parse(exchange.request()[0])
    assert line == "GET /path/%41?query=1&b HTTP/1.1"
    assert fields[0] == ("Host", f"127.0.0.1:{exchange.port}")
    names = [name.lower() for name, _ in fields]
    assert [name for name in names if name not in ("via", "connection")] == [
        "host", "accept", "upgrade-insecure-requests", "cookie", "x-last"]
    assert value(fields, "X-Last") == "two  words"
    assert value(fields, "Connection") is None  # the client's is its own; the upstream's is kept
    assert ", ".join(text for name, text in fields if name.lower() == "via") == "1.0 before, 1.1 neosocksd"


@pytest.mark.parametrize("target, line", [
    (b"", "GET / HTTP/1.1"), (b"?q", "GET /?q HTTP/1.1"), (b"/a#fragment", "GET /a HTTP/1.1"),
    (b"/a?b?c=/d", "GET /a?b?c=/d HTTP/1.1"), (b"//double", "GET //double HTTP/1.1"), (b"/*", "GET /* HTTP/1.1")])
def test_request_target(shared, origin, target, line):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, get(exchange, path=target))
    assert client.read_all().endswith(b"ok")
    assert parse(exchange.request()[0])[0] == line


def test_user_information_is_dropped(shared, origin):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, b"GET http://user:secret@127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % exchange.port)
    assert client.read_all().endswith(b"ok")
    assert b"secret" not in exchange.request()[0]
    assert value(parse(exchange.request()[0])[1], "Host") == f"127.0.0.1:{exchange.port}"


def test_scheme_and_host_in_upper_case(shared, origin):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, b"GET HTTP://LOCALHOST:%d/X HTTP/1.1\r\nConnection: close\r\n\r\n" % exchange.port)
    assert client.read_all().endswith(b"ok")
    assert parse(exchange.request()[0])[0] == "GET /X HTTP/1.1"


def test_ipv6_host(shared, origin):
    proxy, seen = shared(), []

    def serve(_origin, connection):
        seen.append(origins.read_http_head(connection))
        connection.sendall(OK)

    target = origin(serve, host="::1")
    client = ask(proxy, b"GET http://[::1]:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % target.port)
    assert client.read_all().endswith(b"ok")
    assert value(parse(seen[0])[1], "Host") == f"[::1]:{target.port}"


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS", b"PROPFIND", b"X-ODD!"])
def test_any_method(shared, origin, method):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, get(exchange, method=method, path=b"/m"))
    assert client.read_all().endswith(b"ok")
    assert parse(exchange.request()[0])[0].encode() == method + b" /m HTTP/1.1"


def test_head_octet_by_octet(shared, origin):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = wire.Client(proxy.address).send_slowly(get(exchange, b"Content-Length: 3\r\n", method=b"POST") + b"abc",
                                                    0.001)
    assert client.read_all().endswith(b"ok")
    assert exchange.request()[1] == b"abc"


@pytest.mark.parametrize("relay", ["auto", "copy", "splice"])
@pytest.mark.parametrize("size", [0, 1, 20000, 5_000_000])
def test_body_with_a_length(shared, origin, size, relay):
    proxy, exchange = shared("--relay", relay), Exchange(origin, OK)
    content = os.urandom(size)
    client = ask(proxy, get(exchange, b"Content-Length: %d\r\n" % size, method=b"POST") + content)
    assert client.read_all().endswith(b"ok")
    head, body = exchange.request()
    assert value(parse(head)[1], "Content-Length") == str(size) and body == content


def chunked(content, sizes, extension=b"", trailer=b""):
    out, at, turn = [], 0, 0
    while at < len(content):
        part = content[at:at + sizes[turn % len(sizes)]]
        out.append(b"%x%s\r\n%s\r\n" % (len(part), extension, part))
        at, turn = at + len(part), turn + 1
    return b"".join(out) + b"0" + extension + b"\r\n" + trailer + b"\r\n"


@pytest.mark.parametrize("extension, trailer", [
    pytest.param(b"", b"", id="plain"),
    pytest.param(b";a=b;c=\"d e\"", b"X-Trailer: 1\r\nX-More: 2\r\n", id="with-extensions-and-trailers")])
@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_chunked_body(shared, origin, size, extension, trailer):
    proxy, exchange = shared(), Exchange(origin, OK)
    content = os.urandom(size)
    client = ask(proxy, get(exchange, b"Transfer-Encoding: chunked\r\n", method=b"PUT") +
                 chunked(content, [1, 10, 4096, 16385, 70000], extension, trailer))
    assert client.read_all().endswith(b"ok")
    head, body = exchange.request()
    assert body == content
    assert value(parse(head)[1], "Transfer-Encoding") == "chunked"
    assert value(parse(head)[1], "Content-Length") is None


def test_chunked_body_octet_by_octet(shared, origin):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, get(exchange, b"Transfer-Encoding: chunked\r\n", method=b"POST"))
    client.send_slowly(chunked(b"hello, chunks", [5, 1, 7], b";x", b"T: 1\r\n"), 0.001)
    assert client.read_all().endswith(b"ok")
    assert exchange.request()[1] == b"hello, chunks"


def test_what_follows_a_request_is_not_forwarded(shared, origin):
    """One request per connection: a second one, smuggled or pipelined, must not reach the upstream."""
    proxy, exchange = shared(), Exchange(origin, OK, close=True)
    for body, field in ((b"abc", b"Content-Length: 3\r\n"), (b"", b""),
                        (b"3\r\nabc\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\r\n")):
        client = ask(proxy, get(exchange, field, method=b"POST") + body + get(exchange, path=b"/second"))
        answer = client.read_all()
        assert answer.count(b"HTTP/1.1 200") == 1
    for rest in exchange.origin.wait("results", 3):
        assert rest == b"", rest
    assert len(exchange.requests) == 3


def test_expect_continue(shared, origin):
    def serve(_origin, connection):
        head = origins.read_http_head(connection)
        assert b"Expect: 100-continue\r\n" in head
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = read_exactly(connection, 5)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)

    target = origin(serve)
    client = ask(shared(), b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
                 b"Connection: close\r\n\r\n" % target.port)
    line, _ = parse(client.read_head())
    assert line == "HTTP/1.1 100 Continue"
    client.send(b"hello")
    answer = client.read_all()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nhello")


def test_version_1_0(shared, origin):
    proxy, exchange = shared(), Exchange(origin, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
                                         chunked(b"plain text", [3]))
    client = ask(proxy, get(exchange, version=b"1.0"))
    head, _, body = client.read_all().partition(b"\r\n\r\n")
    assert body == b"plain text" and b"ransfer-" not in head  # such a client knows no chunks
    assert "1.0 neosocksd" in (value(parse(exchange.request()[0])[1], "Via") or "")


# --- requests that are refused ---

REFUSED = {
    "duplicate host": b"GET {url}/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "length twice": b"POST {url}/ HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "lengths": b"POST {url}/ HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "negative length": b"POST {url}/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "length with a sign": b"POST {url}/ HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
    "hexadecimal length": b"POST {url}/ HTTP/1.1\r\nContent-Length: 0x3\r\n\r\nabc",
    "empty length": b"POST {url}/ HTTP/1.1\r\nContent-Length:\r\n\r\n",
    "length and chunks": b"POST {url}/ HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"POST {url}/ HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    "two codings": b"POST {url}/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": b"POST {url}/ HTTP/1.1\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "port of the target": b"GET http://127.0.0.1:99999/ HTTP/1.1\r\n\r\n",
    "no host": b"GET http:///path HTTP/1.1\r\n\r\n",
    "space in the target": b"GET {url}/a b HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_request(shared, origin, name):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, REFUSED[name].replace(b"{url}", exchange.url))
    assert wire.status_of(client.read_all()) == (400, "Bad Request")
    assert not exchange.origin.connections


def test_length_beyond_all_numbers(shared, origin):
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, get(exchange, b"Content-Length: 99999999999999999999\r\n", method=b"POST"))
    assert wire.status_of(client.read_all()) == (413, "Content Too Large")
    assert not exchange.origin.connections


@pytest.mark.parametrize("body", [
    pytest.param(b"x\r\n", id="no-number"), pytest.param(b"-1\r\n", id="negative"),
    pytest.param(b"3\r\nabcd\r\n", id="too-long"), pytest.param(b"fffffffffffffffff\r\n", id="endless"),
    pytest.param(b"3\nabc\n0\n\n", id="bare-line-feeds"), pytest.param(b"3;\0\r\nabc\r\n", id="nul-in-extension"),
    pytest.param(b" 3\r\nabc\r\n", id="blank-before")])
def test_bad_chunk(shared, origin, body):
    """The upstream is under way by then: it must not take what it has got for a whole request."""
    proxy, exchange = shared(), Exchange(origin, OK)
    client = ask(proxy, get(exchange, b"Transfer-Encoding: chunked\r\n", method=b"POST") + b"2\r\nok\r\n" + body)
    assert wire.status_of(client.read_all()) == (400, "Bad Request")
    client.close()
    assert proxy.flat()
    assert not exchange.requests


def test_dial_failures(sluice, dns):
    server = dns()
    proxy = sluice("--nameserver", server.text)
    cases = [(f"127.0.0.1:{process.free_port()}", 502), ("nowhere.example", 502), ("224.0.0.1", 403)]
    for host, status in cases:
        client = ask(proxy, f"GET http://{host}/ HTTP/1.1\r\n\r\n".encode())
        assert wire.status_of(client.read_all())[0] == status, host


def test_timeouts(shared, origin, blackhole):
    nowhere, silent = blackhole(), origin(origins.collect)
    halfway = Exchange(origin, b"HTTP/1.1 200 OK\r\nContent-Le", close=False)
    proxy = shared("-t", "5")
    start = time.monotonic()
    clients = {
        "connecting": (ask(proxy, b"GET http://127.0.0.2:%d/ HTTP/1.1\r\n\r\n" % nowhere.port), 504),
        "no response": (ask(proxy, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n\r\n" % silent.port), 504),
        "half a response": (ask(proxy, get(halfway)), 504),
        "half a head": (ask(proxy, b"GET http://127.0.0.1/ HTTP/1.1\r\nHos"), 408),
    }
    for name, (client, status) in clients.items():
        assert wire.status_of(client.read_all())[0] == status, name
        assert 4.5 < time.monotonic() - start < 30
        client.close()
    halfway.origin.connection().close()


# --- responses ---

def response(proxy, exchange, request=None):
    client = ask(proxy, request or get(exchange))
    head = client.read_head()
    line, fields = parse(head)
    return line, fields, client.read_all()


def test_response_is_rewritten(shared, origin):
    exchange = Exchange(origin, b"HTTP/1.1 200 Fine, thanks\r\nServer: x\r\nConnection: keep-alive, X-Hop\r\n"
                        b"X-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: T\r\nUpgrade: h2c\r\n"
                        b"Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 4\r\n\r\nbody")
    line, fields, body = response(shared(), exchange)
    assert line == "HTTP/1.1 200 OK" and body == b"body"
    assert [text for name, text in fields if name == "Set-Cookie"] == ["a", "b"]
    assert value(fields, "Server") == "x" and value(fields, "Content-Length") == "4"
    assert value(fields, "Connection") == "close"
    for name in ("X-Hop", "Keep-Alive", "Proxy-Authenticate", "Trailer", "Upgrade"):
        assert value(fields, name) is None, name


@pytest.mark.parametrize("status, line", [(b"404 Nix", "HTTP/1.1 404 Not Found"), (b"299 Odd", "HTTP/1.1 299 "),
                                          (b"500", "HTTP/1.1 500 Internal Server Error"), (b"999 ?", "HTTP/1.1 999 ")])
def test_reason_is_the_canonical_one(shared, origin, status, line):
    exchange = Exchange(origin, b"HTTP/1.0 " + status + b"\r\nContent-Length: 0\r\n\r\n")
    assert response(shared(), exchange)[0] == line


@pytest.mark.parametrize("size", [0, 1, 100_000, 8_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked", "end"])
def test_response_body(shared, origin, size, framing):
    content = os.urandom(size)
    wrapped = {"length": (b"Content-Length: %d\r\n" % size, content), "end": (b"", content),
               "chunked": (b"Transfer-Encoding: chunked\r\n", chunked(content, [1, 4096, 50000], b";e", b"T: 1\r\n"))}
    field, body = wrapped[framing]
    proxy, exchange = shared(), Exchange(origin, b"HTTP/1.1 200 OK\r\n" + field + b"\r\n" + body)
    client = ask(proxy, get(exchange))
    _, fields = parse(client.read_head())
    if value(fields, "Transfer-Encoding"):
        got = read_chunked(client.read)
        assert client.read_all() == b""
    else:
        got = client.read_all()
        assert value(fields, "Content-Length") in (None, str(size))
    client.close()
    assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()
    assert proxy.flat()


def test_response_octet_by_octet(shared, origin):
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"slowly it comes", [4], b";x")
    exchange = Exchange(origin, *[text[i:i + 1] for i in range(len(text))], pause=0.001)
    client = ask(shared(), get(exchange))
    _, fields = parse(client.read_head())
    got = read_chunked(client.read) if value(fields, "Transfer-Encoding") else client.read_all()
    assert got == b"slowly it comes"


def test_surplus_behind_a_response_is_not_delivered(shared, origin):
    for framed in (b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"):
        exchange = Exchange(origin, b"HTTP/1.1 200 OK\r\n" + framed + b"HTTP/1.1 200 OK\r\n\r\nforged")
        client = ask(shared(), get(exchange))
        answer = client.read_all()
        assert b"body" in answer and b"forged" not in answer


@pytest.mark.parametrize("reply", [
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", id="head-with-length"),
    pytest.param(b"HTTP/1.1 304 Nope\r\nContent-Length: 1000\r\nETag: x\r\n\r\n", id="304"),
    pytest.param(b"HTTP/1.1 204 None\r\n\r\n", id="204"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="head-with-chunks")])
def test_response_without_a_body(shared, origin, reply):
    """HEAD, 204 and 304 have none, whatever the fields say; the upstream keeps its connection open to prove it."""
    head_method = b" 200 " in reply
    exchange = Exchange(origin, reply, close=False)
    line, fields, body = response(shared(), exchange, get(exchange, method=b"HEAD" if head_method else b"GET"))
    assert body == b""
    if b"Content-Length" in reply:
        assert value(fields, "Content-Length") == "1000"
    if b"ETag" in reply:
        assert value(fields, "ETag") == "x"
    exchange.origin.connection().close()


def test_interim_responses(shared, origin):
    exchange = Exchange(origin, b"HTTP/1.1 102 Working\r\n\r\n", b"HTTP/1.1 103 Soon\r\nLink: </a>\r\n\r\n" * 20, OK,
                        pause=0.02)
    client = ask(shared(), get(exchange))
    assert parse(client.read_head())[0] == "HTTP/1.1 102 Processing"
    for _ in range(20):
        line, fields = parse(client.read_head())
        assert re.fullmatch("HTTP/1.1 103 (Early Hints)?", line) and value(fields, "Link") == "</a>"
    assert parse(client.read_head())[0] == "HTTP/1.1 200 OK"
    assert client.read_all() == b"ok"


BAD_RESPONSES = {
    "garbage": b"SSH-2.0-OpenSSH\r\n\r\n",
    "short status": b"HTTP/1.1 20 OK\r\n\r\n",
    "long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "version 2": b"HTTP/2 200\r\n\r\n",
    "no end": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
    "nothing": b"",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "huge head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 66000 + b"\r\n\r\n",
    "257 fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 257 + b"\r\n",
    "bad field": b"HTTP/1.1 200 OK\r\nX y: z\r\n\r\n",
    "fold of nothing": b"HTTP/1.1 200 OK\r\n z\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: y\rZ: z\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_bad_response(shared, origin, name):
    exchange = Exchange(origin, BAD_RESPONSES[name])
    client = ask(shared(), get(exchange))
    assert wire.status_of(client.read_all()) == (502, "Bad Gateway")


def test_upstream_that_resets(shared, origin):
    target = origin(lambda _origin, connection: (connection.recv(10), origins.reset(connection)))
    client = ask(shared(), b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % target.port)
    assert wire.status_of(client.read_all()) == (502, "Bad Gateway")


@pytest.mark.parametrize("reply", [pytest.param(b"Content-Length: 100\r\n\r\nhalf", id="length"),
                                   pytest.param(b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf", id="chunked")])
@pytest.mark.parametrize("ending", ["end", "reset"])
def test_response_that_breaks_off(shared, origin, reply, ending):
    """The client must be able to tell: an orderly end would look like a response, to those who do not count."""
    def serve(_origin, connection):
        origins.read_http_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + reply)
        time.sleep(0.2)
        if ending == "reset":
            origins.reset(connection)

    target = origin(serve)
    client = ask(shared(), b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % target.port)
    assert client.read_head().startswith(b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(ConnectionResetError):
        client.read_all()


@pytest.mark.parametrize("way", ["copy", "splice"])
@pytest.mark.parametrize("size", [4, 100000])
def test_response_until_the_end_that_a_reset_cuts(shared, origin, way, size):
    """The reset meets the request, which is still being sent: the response must not seem to have ended there."""
    target = origin(origins.hold)
    client = ask(shared("--relay", way), b"POST http://127.0.0.1:%d/ HTTP/1.0\r\nContent-Length: 1000000000\r\n\r\n" % target.port)
    upstream = target.connection()
    origins.read_http_head(upstream)
    upstream.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(size))
    assert client.read_head().startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.read(size) == bytes(size)
    client.socket.settimeout(0.5 * process.SLOW)
    with pytest.raises(TimeoutError):  # until the upstream's buffers are full, and the proxy waits for it
        while True:
            client.send(bytes(1 << 20))
    origins.reset(upstream)
    client.socket.settimeout(15 * process.SLOW)
    with pytest.raises(ConnectionResetError):
        client.read_all()


def test_early_response_to_a_large_body(shared, origin):
    """A server that refuses without reading: its answer arrives, although the client is still sending."""
    def serve(_origin, connection):
        origins.read_http_head(connection)
        connection.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.5)

    target = origin(serve)
    client = ask(shared(), b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n" % target.port)

    def feed():
        try:
            for _ in range(1000):
                client.send(bytes(10000))
        except OSError:
            pass

    sender = threading.Thread(target=feed)
    sender.start()
    assert client.read_head().startswith(b"HTTP/1.1 413 Content Too Large\r\n")
    assert client.read(3) == b"big"
    sender.join(20)
    assert not sender.is_alive()
    client.close()


def test_client_that_leaves(shared, origin):
    proxy, target = shared(), origin(origins.collect)
    request = b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf" % target.port
    for size in (10, 40, len(request) - 4, len(request)):
        for ending in ("close", "reset"):
            client = ask(proxy, request[:size])
            time.sleep(0.02)
            getattr(client, ending)()
    assert proxy.flat()


def test_half_closed_client_gets_its_response(shared, origin):
    exchange = Exchange(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok", pause=0.4)
    client = ask(shared(), get(exchange)).shut()
    assert client.read_all().endswith(b"ok")


def test_slow_reader(sluice, origin):
    """Back-pressure: a response that nobody reads costs no memory, and arrives whole when it is read."""
    content = os.urandom(30 << 20)
    proxy = sluice()
    exchange = Exchange(origin, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content), content)
    before = proxy.rss()
    client = ask(proxy, get(exchange))
    time.sleep(0.7)
    if not process.SANITIZED:
        assert proxy.rss() < before + (8 << 20)
    client.read_head()
    assert hashlib.sha256(client.read_all()).digest() == hashlib.sha256(content).digest()


# --- upgrades ---

SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: x\r\n\r\n")
UPGRADE = (b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n"
           b"Sec-WebSocket-Version: 13\r\n")


@pytest.mark.parametrize("early", [b"", b"early frame"])
def test_websocket(shared, origin, early):
    seen = []

    def serve(one, connection):
        seen.append(origins.read_http_head(connection))
        connection.sendall(SWITCH + b"server first" * 100)
        return origins.echo(one, connection)

    target = origin(serve)
    client = ask(shared(), b"GET http://127.0.0.1:%d/chat HTTP/1.1\r\n" % target.port + UPGRADE + b"\r\n" + early)
    line, fields = parse(client.read_head())
    assert line == "HTTP/1.1 101 Switching Protocols"
    assert value(fields, "Upgrade") == "websocket" and value(fields, "Connection").lower() == "upgrade"
    assert value(fields, "Sec-WebSocket-Accept") == "x"
    assert client.read(1200) == b"server first" * 100
    assert client.read(len(early)) == early
    for size in (1, 1000, 3_000_000):
        frame = os.urandom(size)
        sender = threading.Thread(target=client.send, args=(frame,))
        sender.start()
        assert client.read(size) == frame
        sender.join()
    client.shut()
    assert client.read_all() == b""
    line, fields = parse(seen[0])
    assert line == "GET /chat HTTP/1.1"
    assert value(fields, "Upgrade") == "websocket" and value(fields, "Connection").lower() == "upgrade"
    assert value(fields, "Sec-WebSocket-Key") == "k"


def test_websocket_that_is_refused(shared, origin):
    exchange = Exchange(origin, b"HTTP/1.1 426 No\r\nContent-Length: 4\r\n\r\nnope")
    client = ask(shared(), get(exchange, UPGRADE))
    line, fields = parse(client.read_head())
    assert line == "HTTP/1.1 426 Upgrade Required" and client.read(4) == b"nope"
    assert value(fields, "Connection") is None
    answer = client.send(get(exchange)).read_all()  # the connection has gone on
    assert answer.startswith(b"HTTP/1.1 426 ") and b"\r\nConnection: close\r\n" in answer


def test_websocket_resets(shared, origin):
    def serve(_origin, connection):
        origins.read_http_head(connection)
        connection.sendall(SWITCH)
        connection.recv(1)
        origins.reset(connection)

    target = origin(serve)
    client = ask(shared(), b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n" % target.port + UPGRADE + b"\r\n")
    assert client.read_head().startswith(b"HTTP/1.1 101 ")
    client.send(b"x")
    assert client.ends_with() == "reset"


# --- chains and crowds ---

@pytest.mark.parametrize("scheme", ["http", "socks5", "socks4a"])
def test_through_a_chain(sluice, origin, scheme):
    exchange, second = Exchange(origin, OK), sluice()
    first = sluice("-x", f"{scheme}://{second.url}")
    line, _, body = response(first, exchange, get(exchange, path=b"/far"))
    assert line == "HTTP/1.1 200 OK" and body == b"ok"
    assert parse(exchange.request()[0])[0] == "GET /far HTTP/1.1"


def test_many_at_once(shared, origin):
    proxy, target = shared(), origin(origins.pages)
    clients = [ask(proxy, b"GET http://127.0.0.1:%d/%d HTTP/1.1\r\nConnection: close\r\n\r\n" % (target.port, i)) for i in range(300)]
    for i, client in enumerate(clients):
        assert client.read_all().endswith(b"\r\n\r\npage /%d" % i)
        client.close()
    assert proxy.flat()
