"""HTTP heads that are large, slow, odd, or never end: what passes, what is repaired, what is refused and with which words."""
import os
import socket
import struct
import threading
import time

import pytest

import origins
import process
import wire
from test_http import OK, Exchange, ask, get, parse, read_chunked, response, value

SMALL = 8192  # octets of a head that need no larger buffer


def field(size, name=b"Cookie"):
    """One field line of that many octets."""
    return name + b": " + b"c" * (size - len(name) - 4) + b"\r\n"


def reason_of(reply):
    """(status, error type of Proxy-Status) of a refusal."""
    head = reply.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    status = value(parse(head)[1], "Proxy-Status")
    return wire.status_of(reply)[0], status.removeprefix("sluice; error=")


# --- large requests ---

@pytest.mark.parametrize("size", [8000, 8200, 16000, 32000])
def test_long_request_line(shared, origin, size):
    proxy, exchange = shared(), Exchange(origin, OK)
    path = b"/" + b"p" * (size - 1)
    assert ask(proxy, get(exchange, path=path)).read_all().endswith(b"ok")
    assert parse(exchange.request()[0])[0].encode() == b"GET " + path + b" HTTP/1.1"


@pytest.mark.parametrize("body", [0, 3, 100_000, 3_000_000])
@pytest.mark.parametrize("size", [8100, 8500, 12_000, 16_384, 24_000, 32_000])
def test_large_cookies(shared, origin, size, body):
    """Head and body in one piece, so that what the head's buffer takes of the body is as much as it can be."""
    proxy, exchange = shared(), Exchange(origin, OK)
    content = os.urandom(body)
    client = ask(proxy, get(exchange, field(size) + b"Content-Length: %d\r\n" % body, method=b"POST") + content)
    assert client.read_all().endswith(b"ok")
    head, got = exchange.request()
    assert value(parse(head)[1], "Cookie") == "c" * (size - 10) and got == content


def test_large_head_in_pieces_with_chunks(shared, origin):
    proxy, exchange = shared(), Exchange(origin, OK)
    data = get(exchange, field(20_000) + b"Transfer-Encoding: chunked\r\n", method=b"PUT") + b"5\r\nhello\r\n0\r\n\r\n"
    client = wire.Client(proxy.address)
    for at in range(0, len(data), 1000):
        client.send(data[at:at + 1000])
        time.sleep(0.005)
    assert client.read_all().endswith(b"ok")
    assert exchange.request()[1] == b"hello"


@pytest.mark.parametrize("early", [0, 11, 7000])
def test_large_connect(shared, origin, early):
    """What follows the head of a tunnel in the same piece goes first, from the large buffer."""
    proxy, target = shared(), origin(origins.echo)
    content = os.urandom(early)
    client = ask(proxy, wire.http_connect("127.0.0.1", target.port, field(20_000)) + content)
    assert client.read_head().startswith(b"HTTP/1.1 200 ")
    client.send(b"more")
    assert client.read(early + 4) == content + b"more"


def test_large_upgrade(shared, origin):
    def serve(one, connection):
        origins.read_http_head(connection)
        connection.sendall(b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n" + field(20_000, b"X-Large") +
                           b"\r\nfirst")
        return origins.echo(one, connection)

    target = origin(serve)
    client = ask(shared(), b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n" % target.port +
                 field(20_000) + b"\r\nearly")
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 101 ") and len(head) > 20_000
    assert client.read(5) == b"first"
    client.send(b" and late")
    assert client.read(14) == b"early and late"


@pytest.mark.parametrize("request_head, status, words", [
    pytest.param(b"GET {url}/" + b"p" * 40_000 + b" HTTP/1.1\r\n\r\n", 414, "URI Too Long", id="line"),
    pytest.param(b"CONNECT " + b"p" * 40_000, 414, "URI Too Long", id="line-without-end"),
    pytest.param(b"GET {url}/ HTTP/1.1\r\n" + field(40_000) + b"\r\n", 431, "Request Header Fields Too Large", id="field"),
    pytest.param(b"GET {url}/ HTTP/1.1\r\n" + field(3000) * 11, 431, "Request Header Fields Too Large", id="fields"),
    pytest.param(b"GET {url}/ HTTP/1.1\r\n" + b"a: b\r\n" * 257 + b"\r\n", 431, "Request Header Fields Too Large",
                 id="257-fields"),
    pytest.param(b"POST {url}/ HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n", 413, "Content Too Large",
                 id="length")])
def test_too_large(shared, origin, request_head, status, words):
    proxy, exchange = shared(), Exchange(origin, OK)
    answer = ask(proxy, request_head.replace(b"{url}", exchange.url)).read_all()
    assert wire.status_of(answer) == (status, words)
    assert reason_of(answer)[1] == "http_request_error"
    assert not exchange.origin.connections


def test_larger_buffers_are_bounded(sluice, origin):
    """Whoever holds all that requests may have keeps neither small requests nor large responses out, and nobody for ever."""
    proxy = sluice("--workers", "1")
    large = b"HTTP/1.1 200 OK\r\n" + field(40_000, b"X-Large") + b"Content-Length: 2\r\n\r\nok"
    plain, wide = Exchange(origin, OK), Exchange(origin, large)
    before = proxy.rss()
    holders = [ask(proxy, get(plain, field(9000))[:-2]) for _ in range(300)]
    refused = process.wait_until(lambda: [h for h in holders if wait_readable(h)][:44] or None)
    assert refused and reason_of(refused[0].read_all()) == (503, "proxy_internal_error")
    assert reason_of(ask(proxy, get(plain, field(9000))).read_all()) == (503, "proxy_internal_error")
    assert ask(proxy, get(plain, field(7000))).read_all().endswith(b"ok")
    line, fields, body = response(proxy, wide)
    assert len(value(fields, "X-Large")) == 40_000 - 11 and body == b"ok"
    if not process.SANITIZED:
        assert proxy.rss() < before + (60 << 20)
    for holder in holders:
        holder.close()
    assert proxy.flat()
    assert ask(proxy, get(plain, field(9000))).read_all().endswith(b"ok")


def test_one_client_cannot_hold_plain_http(shared, origin):
    """By bodies that it never finishes, or responses that it never reads: the last quarter is for those who have few."""
    proxy = shared("--workers", "1", "--max-sessions", "64")
    exchange = Exchange(origin, OK)
    data = get(exchange, b"Content-Length: 2\r\n", method=b"POST")
    holders = [ask(proxy, data) for _ in range(48)]
    assert process.wait_until(lambda: len(exchange.origin.connections) == 48)
    assert reason_of(ask(proxy, data).read_all()) == (503, "proxy_internal_error")
    assert ask(proxy, data + b"ab", source=("127.0.0.2", 0)).read_all().endswith(b"ok")
    for holder in holders:
        holder.close()
    assert proxy.flat()
    assert ask(proxy, data + b"ab").read_all().endswith(b"ok")


def test_tunnels_hold_nothing_of_plain_http(shared, origin):
    """A WebSocket may last for days: what plain HTTP needs of it is given back when it begins."""
    def serve(one, connection):
        origins.read_http_head(connection)
        connection.sendall(b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        return origins.echo(one, connection)

    proxy, target, plain = shared("--workers", "1", "--max-sessions", "64"), origin(serve), Exchange(origin, OK)
    tunnels = []
    for _ in range(55):
        tunnels.append(ask(proxy, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" %
                           target.port))
        assert tunnels[-1].read_head().startswith(b"HTTP/1.1 101 ")
    assert ask(proxy, get(plain)).read_all().endswith(b"ok")
    for tunnel in tunnels:
        tunnel.send(b"still there")
        assert tunnel.read(11) == b"still there"


def wait_readable(client):
    client.socket.setblocking(False)
    try:
        return bool(client.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.socket.settimeout(15)


# --- large responses ---

@pytest.mark.parametrize("body", [2, 1_000_000])
@pytest.mark.parametrize("size", [16_300, 16_500, 33_000, 65_400])
def test_large_response_head(shared, origin, size, body):
    content = os.urandom(body)
    exchange = Exchange(origin, b"HTTP/1.1 200 OK\r\n" + field(size, b"Set-Cookie") + b"Content-Length: %d\r\n\r\n" % body +
                        content)
    line, fields, got = response(shared(), exchange)
    assert len(value(fields, "Set-Cookie")) == size - 14 and got == content


def test_large_response_head_in_pieces_with_chunks(shared, origin):
    text = b"HTTP/1.1 200 OK\r\n" + field(30_000, b"X") * 2 + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    exchange = Exchange(origin, *[text[at:at + 1500] for at in range(0, len(text), 1500)], pause=0.005)
    client = ask(shared(), get(exchange))
    assert len(client.read_head()) > 60_000
    assert read_chunked(client.read) == b"hello"


def test_256_fields(shared, origin):
    exchange = Exchange(origin, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 255 + b"Content-Length: 2\r\n\r\nok")
    _, fields, body = response(shared(), exchange)
    assert [text for name, text in fields if name == "X"] == ["y"] * 255 and body == b"ok"


def test_large_interim_responses(shared, origin):
    exchange = Exchange(origin, (b"HTTP/1.1 103 Hints\r\n" + field(30_000, b"Link") + b"\r\n") * 5 + OK)
    client = ask(shared(), get(exchange))
    for _ in range(5):
        assert len(client.read_head()) > 30_000
    assert client.read_all().endswith(b"ok")


# --- responses that are repaired ---

REPAIRED = {
    "bare LF": b"HTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok",
    "some bare LF": b"HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 2\r\n\nok",
    "fold": b"HTTP/1.1 200 OK\r\nX-A:\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "equal lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok",
    "list of equal lengths": b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2, 2\r\n\r\nok",
    "blank before the colon": b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length\t: 2\r\n\r\nok",
    "fold behind bare LF": b"HTTP/1.0 200\nX-A:\n\t b\nContent-Length:\n 2\n\nok",
}


@pytest.mark.parametrize("name", REPAIRED)
def test_repaired(shared, origin, name):
    """The client sees nothing of it."""
    text = REPAIRED[name]
    for pieces in ([text], [text[i:i + 1] for i in range(len(text))]):
        client = ask(shared(), get(Exchange(origin, *pieces, pause=0.001, close=False)))
        head = client.read_head()
        assert head.count(b"\n") == head.count(b"\r\n") and b"\r\n " not in head
        line, fields = parse(head)
        assert line == "HTTP/1.1 200 OK" and value(fields, "X-A") == "b" and value(fields, "Content-Length") == "2"
        assert client.read_all() == b"ok"


# --- heads that do not end ---

def test_endless_interim_responses(shared, origin):
    """Each is a movement, but none is the answer."""
    def serve(one, connection):
        origins.read_http_head(connection)
        for _ in range(1000):
            connection.sendall(b"HTTP/1.1 102 Wait\r\n\r\n")

    client = ask(shared("-t", "5"), b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % origin(serve).port)
    for _ in range(32):
        assert client.read_head().startswith(b"HTTP/1.1 102 ")
    assert reason_of(client.read_all()) == (502, "http_protocol_error")


def test_endless_interim_responses_that_nobody_sees(shared, origin):
    """HTTP/1.0 clients are not shown them; they are counted all the same."""
    def serve(one, connection):
        origins.read_http_head(connection)
        for _ in range(1000):
            connection.sendall(b"HTTP/1.1 102 Wait\r\n\r\n")

    client = ask(shared("-t", "5"), b"GET http://127.0.0.1:%d/ HTTP/1.0\r\n\r\n" % origin(serve).port)
    assert reason_of(client.read_all()) == (502, "http_protocol_error")


def trickle(text, pause=0.25):
    def serve(one, connection):
        origins.read_http_head(connection)
        for i in range(len(text)):
            connection.sendall(text[i:i + 1])
            time.sleep(pause)
    return serve


def test_heads_that_trickle(shared, origin):
    """An octet now and then keeps a session for --timeout, not for ever; the clients' own heads, likewise. What moves while a
    request is sent is a reason to wait on."""
    proxy, start = shared("-t", "5"), time.monotonic()
    endless = b"HTTP/1.1 200 OK\r\nX-Endless: " + b"x" * 1000
    behind = b"HTTP/1.1 103 Soon\r\n\r\n" + endless
    upload = Exchange(origin, OK)
    slow = ask(proxy, get(upload, b"Content-Length: 7\r\n", method=b"POST"))
    clients = [(ask(proxy, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % origin(trickle(text)).port), *expected)
               for text, *expected in ((endless, 504, 6.5), (behind, 504, 12))]
    line = ask(proxy, b"GET http://127.0.0.1/")
    stuck = ask(proxy, get(upload, b"Content-Length: 7\r\n", method=b"POST"))
    for i in range(7):
        slow.send(b"%d" % i)
        try:
            line.send(b"x")
        except OSError:
            pass  # refused by now
        time.sleep(1)
    assert slow.read_all().endswith(b"ok") and upload.request()[1] == b"0123456"
    assert reason_of(line.read_all()) == (408, "http_request_error")
    assert reason_of(stuck.read_all()) == (408, "http_request_error")
    for client, status, limit in clients:
        answer = client.read_all()
        answer = answer[answer.rindex(b"HTTP/1.1 "):]
        assert reason_of(answer) == (status, "http_response_timeout")
        assert time.monotonic() - start < limit * process.SLOW + 7


def keepalive_timers(port):
    """How many connections to that port on 127.0.0.1 have a keepalive timer (proc(5): timer_active 2)."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [row.split() for row in table.readlines()[1:]]
    remote = "0100007F:%04X" % port
    return sum(row[2] == remote and row[5].startswith("02") for row in rows)


def test_silent_upstream_is_probed(shared, origin):
    """No --idle-timeout: a response that stops in the middle is not given up, but a dead upstream is noticed."""
    def serve(one, connection):
        origins.read_http_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        one.wait_for_end = connection.recv(1)

    target = origin(serve)
    client = ask(shared("-t", "5"), b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % target.port)
    client.read_head()
    assert client.read(4) == b"half"
    assert process.wait_until(lambda: keepalive_timers(target.port) == 1, 10, pause=0.1)
    target.connection().sendall(b"second")
    assert client.read(6) == b"second"


# --- credentials of other schemes ---

OTHERS = [b"Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gMDAuBgkqhkiC9xIBAgI=", b"NTLM TlRMTVNTUAABAAAAB4IIAA==",
          b'Digest username="a", realm="b", nonce="c", uri="/", response="d"', b"Bearer abc"]


@pytest.mark.parametrize("credentials", OTHERS, ids=lambda text: text.split()[0].decode())
def test_other_schemes(sluice, origin, tmp_path, credentials):
    """Nobody has asked for credentials: those that are sent are ignored. Where they are asked for, Basic is."""
    line = b"Proxy-Authorization: " + credentials + b"\r\n"
    proxy, exchange, echo = sluice(), Exchange(origin, OK), origin(origins.echo)
    assert ask(proxy, get(exchange, line)).read_all().endswith(b"ok")
    assert value(parse(exchange.request()[0])[1], "Proxy-Authorization") is None
    client = ask(proxy, wire.http_connect("127.0.0.1", echo.port, line))
    assert client.read_head().startswith(b"HTTP/1.1 200 ")
    client.close()
    rules = tmp_path / "rules.lua"
    rules.write_text("return {resolve = function(name, user) return user and name end}")
    strict = sluice("-r", rules, "--auth-required")
    for request in (get(exchange, line), wire.http_connect("127.0.0.1", echo.port, line)):
        answer = ask(strict, request).read_all()
        assert wire.status_of(answer)[0] == 407
        assert value(parse(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")[1], "Proxy-Authenticate") == 'Basic realm="proxy"'
    assert len(exchange.requests) == 1


# --- reasons ---

def test_reasons(sluice, origin, dns):
    server = dns()
    proxy = sluice("--nameserver", server.text)
    mute = origin(lambda one, connection: origins.read_http_head(connection) and None)
    huge = Exchange(origin, b"HTTP/1.1 200 OK\r\n" + field(70_000) + b"\r\n")
    garbage = Exchange(origin, b"SSH-2.0-x\r\n")
    closed = process.free_port()
    cases = [(f"http://127.0.0.1:{closed}/", 502, "connection_refused"),
             ("http://nowhere.example/", 502, "dns_error"),
             ("http://224.0.0.1/", 403, "destination_ip_prohibited"),
             (f"http://127.0.0.1:{mute.port}/", 502, "http_response_incomplete"),
             (huge.url.decode() + "/", 502, "http_response_header_section_size"),
             (garbage.url.decode() + "/", 502, "http_protocol_error"),
             ("/", 400, "http_request_error")]
    for url, status, error in cases:
        answer = ask(proxy, f"GET {url} HTTP/1.1\r\n\r\n".encode()).read_all()
        assert reason_of(answer) == (status, error), url
    answer = ask(proxy, wire.http_connect("127.0.0.1", closed)).read_all()
    assert reason_of(answer) == (502, "connection_refused")
    assert b"The destination refused the connection." in answer
