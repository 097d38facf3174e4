"""Connections to HTTP servers carry several plain HTTP requests, one behind the other: whose, and when they do not."""
import base64
import http.client
import os
import resource
import signal
import subprocess
import threading
import time

import pytest

import conftest
import origins
import process
import wire
from test_http import OK, ask, chunked, parse, read_chunked, read_exactly, value
from test_http_persistent import is_over, read_response, request

HEAD_ONLY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


class Server:
    """An origin that answers request behind request. `answer` is told (number of the connection, number of the request
    on it, head, body) and returns octets, or None to close without a word, or raises Reset. Keeps what it has heard."""

    def __init__(self, origin, answer=None, **options):
        self.answer = answer or (lambda connection, index, head, body: told(b"%d:%s" % (connection, path_of(head))))
        self.heard = []  # (connection, head, body)
        self.ended = []  # connections whose other side has ended them
        self.origin = origin(self.serve, **options)
        self.port = self.origin.port

    def serve(self, one, connection):
        with one.changed:
            number = one.connections.index(connection)
        index = 0
        while True:
            head = origins.read_http_head(connection)
            if not head:
                with one.changed:
                    self.ended.append(number)
                    one.changed.notify_all()
                return number
            fields = parse(head)[1]
            if value(fields, "Transfer-Encoding"):
                body = read_chunked(lambda size: read_exactly(connection, size))
            else:
                body = read_exactly(connection, int(value(fields, "Content-Length") or 0))
            with one.changed:
                self.heard.append((number, head, body))
                one.changed.notify_all()
            answer = self.answer(number, index, head, body)
            if isinstance(answer, Reset):
                origins.reset(connection)
                return number
            if answer is None:
                return number
            octets, goes_on = answer if isinstance(answer, tuple) else (answer, True)
            connection.sendall(octets)
            if not goes_on:
                return number
            index += 1

    def paths(self):
        return [path_of(head) for _, head, _ in self.heard]

    def used(self):
        """The connection that each request came on."""
        return [number for number, _, _ in self.heard]

    def wait_ended(self, number, timeout=60):
        with self.origin.changed:
            assert self.origin.changed.wait_for(lambda: number in self.ended, timeout), (number, self.ended)


class Reset:
    """In place of an answer."""


def path_of(head):
    return head.split(b" ")[1]


def told(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def fetch(proxy, port, path=b"/", fields=b"", method=b"GET", host=b"127.0.0.1", body=b""):
    """One request on a connection of its own: (status, body)."""
    head = b"%s http://%s:%d%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n" % (method, host, port, path, fields)
    with ask(proxy, head + body) as client:
        status, _, answer = read_response(client, method)
        assert is_over(client)
        return status, answer


def authorization(user):
    return b"Proxy-Authorization: Basic %s\r\n" % base64.b64encode(user + b":x")


# --- whose ---

def test_requests_of_all_clients_share_a_connection(shared, origin):
    """Behind one another: of one client, and of clients that have gone. None is told to close."""
    proxy, server = shared("--workers", "1"), Server(origin)
    with wire.Client(proxy.address) as client:
        for i in range(4):
            assert read_response(client.send(request(server.port, b"/%d" % i)))[2] == b"0:/%d" % i
    for i in range(4, 8):
        assert fetch(proxy, server.port, b"/%d" % i) == (200, b"0:/%d" % i)
    assert server.used() == [0] * 8 and all(value(parse(head)[1], "Connection") is None for _, head, _ in server.heard)
    assert all(b"Proxy-Authorization" not in head for _, head, _ in server.heard)


def test_each_origin_has_its_own(shared, origin):
    """A, B, A, B on one connection of the client: each request arrives where it says."""
    proxy, first, second = shared("--workers", "1"), Server(origin), Server(origin)
    with wire.Client(proxy.address) as client:
        for i in range(6):
            server, path = (first, second)[i % 2], b"/%d" % i
            assert read_response(client.send(request(server.port, path)))[2] == b"0:" + path
    assert first.paths() == [b"/0", b"/2", b"/4"] and second.paths() == [b"/1", b"/3", b"/5"]
    assert len(first.origin.connections) == len(second.origin.connections) == 1


def test_several_at_a_time(shared, origin):
    """A connection carries one request at a time: who comes meanwhile gets another."""
    proxy, server, barrier = shared("--workers", "1"), None, threading.Barrier(3)

    def answer(connection, _index, head, _body):
        barrier.wait(30)
        return told(b"%d:%s" % (connection, path_of(head)))

    server = Server(origin, answer)
    for turn in range(2):
        clients = [ask(proxy, request(server.port, b"/%d" % (3 * turn + i))) for i in range(3)]
        answers = [read_response(client)[2] for client in clients]
        assert [one.split(b":")[1] for one in answers] == [b"/%d" % (3 * turn + i) for i in range(3)]
        assert sorted(one.split(b":")[0] for one in answers) == [b"0", b"1", b"2"]
        for client in clients:
            client.close()
    assert len(server.origin.connections) == 3


@pytest.mark.parametrize("how", ["option", "file"])
def test_switched_off(sluice, origin, tmp_path, how):
    """Each request has a connection of its own, and the server is told so."""
    options = ["--no-conn-cache"]
    if how == "file":
        port = process.free_port()
        (tmp_path / "conf.lua").write_text(f'return {{ listen = "127.0.0.1:{port}", conn_cache = false, workers = 1 }}')
        options = ["-c", tmp_path / "conf.lua"]
    proxy, server = sluice(*options, listen=None if how == "file" else "127.0.0.1"), Server(origin)
    address = ("127.0.0.1", port) if how == "file" else proxy.address
    with wire.Client(address) as client:
        for i in range(3):
            assert read_response(client.send(request(server.port)))[2] == b"%d:/" % i
    assert all(value(parse(head)[1], "Connection") == "close" for _, head, _ in server.heard)


def test_what_decides_is_part_of_the_key(ruled, origin):
    """Another user, another rule, another name for the same target: another connection, each of which is used again."""
    server = Server(origin)
    proxy, _ = ruled("""return { resolve = function(address, user)
            if user == "tagged" then neosocksd.tag = 1 end
            return "127.0.0.1:%d"
        end }""" % server.port, "--workers", "1")
    asked = [(b"one.test", b""), (b"two.test", b""), (b"one.test", authorization(b"alice")),
             (b"one.test", authorization(b"bob"))]
    for turn in range(3):
        for index, (host, fields) in enumerate(asked):
            assert fetch(proxy, 80, b"/%d" % turn, fields, host=host) == (200, b"%d:/%d" % (index, turn))
    assert len(server.origin.connections) == len(asked)


def test_each_request_is_still_decided(ruled, origin):
    """What waits for a target helps nobody who may not go there."""
    server = Server(origin)
    proxy, api = ruled("""return { resolve = function(address, user) if user ~= "bad" then return address end end }""",
                       "--workers", "1")
    for _ in range(2):
        assert fetch(proxy, server.port)[0] == 200
        assert fetch(proxy, server.port, fields=authorization(b"bad"))[0] == 403
    stats = api.get("/stats?format=json").json()
    assert stats["requests"] == 4 and stats["decisions"]["asked"] == 4 and stats["successes"] == 2
    assert stats["failures"]["rejected"] == 2 and server.used() == [0, 0]


def test_listeners_do_not_share(sluice, origin):
    port = process.free_port()
    proxy, server = sluice("--workers", "1", "-l", f"127.0.0.1:{port}"), Server(origin)
    for turn in range(2):
        assert fetch(proxy, server.port) == (200, b"0:/")
        with wire.Client(("127.0.0.1", port)) as client:
            assert read_response(client.send(request(server.port)))[2] == b"1:/"


def test_lists_that_deny_its_address_end_it(sluice, origin, dns, tmp_path):
    """A request by name takes a connection that waits for it, and its address is not judged again: a reload ends those."""
    server, names, denied = Server(origin), dns(), tmp_path / "denied"
    names.add("a.test", "127.0.0.1")
    denied.write_text("192.0.2.1\n")
    proxy = sluice("--workers", "1", "--nameserver", names.text, "--deny-target", f"@{denied}")
    for path in (b"/0", b"/1"):
        assert fetch(proxy, server.port, path, host=b"a.test") == (200, b"0:" + path)
    denied.with_suffix(".new").write_text("127.0.0.0/8\n")
    os.replace(denied.with_suffix(".new"), denied)
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: fetch(proxy, server.port, b"/there", host=b"127.0.0.1")[0] == 403)
    assert fetch(proxy, server.port, b"/2", host=b"a.test")[0] == 403 and b"/2" not in server.paths()
    server.wait_ended(0)


def test_what_the_operator_alone_may_reach(ruled):
    """A connection into the API, which a rule has made, is not found by a client who names the API."""
    door = process.free_port()
    proxy, _ = ruled("""return { resolve = function(address)
            if address == "door.test:80" then return "127.0.0.1:%d" end
            return address
        end }""" % door, "--workers", "1", "-l", f"127.0.0.1:{door}")
    name = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % door
    for _ in range(2):
        fetch(proxy, 80, host=b"door.test")
        with ask(proxy, name) as client:
            assert read_response(client)[0] == 403


def test_chains_are_part_of_the_key(ruled, shared, origin):
    """The same target by way of two proxies, and by way of one with another user."""
    server = Server(origin)
    first, second = shared(), shared()
    proxy, _ = ruled("""return { resolve = function(address, user)
            if user == "direct" then return address end
            if user == "second" then return address, "http://127.0.0.1:%d" end
            if user == "named" then return address, "socks5://me:secret@127.0.0.1:%d" end
            return address, "socks5://127.0.0.1:%d"
        end }""" % (second.port, first.port, first.port), "--workers", "1")
    for turn in range(2):
        for index, user in enumerate([b"direct", b"first", b"second", b"named"]):
            assert fetch(proxy, server.port, fields=authorization(user)) == (200, b"%d:/" % index)
    assert len(server.origin.connections) == 4


# --- what follows whom ---

ANSWERS = {
    "length": (b"GET", told(b"some body"), 200, b"some body"),
    "empty": (b"GET", told(b""), 200, b""),
    "chunks": (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"in chunks", [2, 4]), 200, b"in chunks"),
    "trailers": (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n", 200, b"abc"),
    "100 and 103": (b"GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, 200, b"ok"),
    "HEAD": (b"HEAD", HEAD_ONLY, 200, b""),
    "HEAD of chunks": (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, b""),
    "304": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", 304, b""),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "204 with a length": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 1000\r\n\r\n", 204, b""),
    "404": (b"GET", b"HTTP/1.1 404 x\r\nContent-Length: 4\r\n\r\nlost", 404, b"lost"),
    "HTTP/1.0 that goes on": (b"GET", b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_next_pair_matches(shared, origin, name):
    """On the same connection of the upstream: only the framing says where a response ends."""
    method, odd, status, body = ANSWERS[name]
    server = Server(origin, lambda connection, index, head, body: odd if index % 2 == 0 else told(path_of(head)))
    proxy = shared("--workers", "1")
    with wire.Client(proxy.address) as client:
        for i in range(3):
            answer = read_response(client.send(request(server.port, method=method)), method)
            assert (answer[0], answer[2]) == (status, body)
            assert read_response(client.send(request(server.port, b"/%d" % i)))[2] == b"/%d" % i
    assert server.used() == [0] * 6


ENDS = {
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nall of it",
    "it says so": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "in a list": b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "surplus": OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
    "surplus of one octet": OK + b"\n",
    "surplus behind chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("name", ENDS)
def test_not_behind_these(shared, origin, name):
    """The upstream's connection ends with such a response, though it would go on; nothing of it is taken for another."""
    goes_on = name != "until the end"
    server = Server(origin, lambda connection, index, head, body: told(b"own") if path_of(head) == b"/own" else (ENDS[name], goes_on))
    proxy = shared("--workers", "1")
    for i in range(3):
        with wire.Client(proxy.address) as client:
            assert read_response(client.send(request(server.port, b"/odd"))) is not None
        assert fetch(proxy, server.port, b"/own") == (200, b"own")
    assert server.paths() == [b"/odd", b"/own"] * 3
    assert server.used() == [0, 1, 1, 2, 2, 3]  # what was odd was the last on its connection


LATE = {"surplus": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", "one octet": b"\n",
        "idle 408": b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"}


@pytest.mark.parametrize("name", LATE)
def test_words_of_an_idle_upstream_end_it(shared, origin, name):
    """Nobody has asked for them: the connection is dropped, and the next request makes another."""
    proxy, server = shared("--workers", "1"), Server(origin)
    assert fetch(proxy, server.port, b"/1") == (200, b"0:/1")
    connection = server.origin.connection(0)
    connection.sendall(LATE[name])
    assert fetch(proxy, server.port, b"/2") == (200, b"1:/2")
    assert process.wait_until(lambda: connection.fileno() < 0 or len(server.origin.results) == 1)


def test_version_1_0_is_written_as_before(shared, origin):
    proxy, server = shared("--workers", "1"), Server(origin)
    with wire.Client(proxy.address) as client:
        for i in range(2):
            client.send(request(server.port, fields=b"Connection: keep-alive\r\n", version=b"1.0"))
            assert read_response(client)[2] == b"%d:/" % i
    assert all(value(parse(head)[1], "Connection") == "close" for _, head, _ in server.heard)


@pytest.mark.parametrize("relay", ["auto", "copy", "splice"])
def test_large_bodies_between_small_ones(shared, origin, relay):
    """Bodies that move as flows leave nothing behind on the connection."""
    content = os.urandom(3_000_000)

    def answer(_connection, _index, head, _body):
        if path_of(head) == b"/chunks":
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(content, [70_000, 1, 900_000])
        return told(content if path_of(head) == b"/large" else b"small")

    proxy, server = shared("--workers", "1", "--relay", relay), Server(origin, answer)
    with wire.Client(proxy.address) as client:
        for path in (b"/large", b"/small", b"/chunks", b"/small", b"/large", b"/chunks"):
            body = read_response(client.send(request(server.port, path)))[2]
            assert body == (b"small" if path == b"/small" else content)
    assert server.used() == [0] * 6


def test_bodies_up_leave_their_connection_to_others(shared, origin):
    """A POST makes a connection of its own, and the next GET takes it over."""
    proxy, server = shared("--workers", "1"), Server(origin)
    with wire.Client(proxy.address) as client:
        for i, size in enumerate([0, 3, 200_000]):
            content = os.urandom(size)
            client.send(request(server.port, b"/post", b"Content-Length: %d\r\n" % size, b"POST") + content)
            assert read_response(client)[2] == b"%d:/post" % i
            assert server.heard[-1][2] == content
            assert read_response(client.send(request(server.port)))[2] == b"%d:/" % i


# --- connections that had ended ---

def worn(first):
    """An answer that does so with the first request that a used connection brings; fresh ones answer."""
    def answer(connection, index, head, _body):
        if index == 1 and connection == 0:
            return first()
        whole = told(b"%d:%s" % (connection, path_of(head)))
        return whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.startswith(b"HEAD ") else whole

    return answer


WORN = {"end": lambda: None, "reset": Reset, "408": lambda: (LATE["idle 408"], False)}


@pytest.mark.parametrize("name", WORN)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"PUT", b"OPTIONS"])
def test_idempotent_request_is_sent_again(ruled, origin, name, method):
    """Once, on another connection; the client sees nothing of it, and the request is one in all counters."""
    server = Server(origin, worn(WORN[name]))
    proxy, api = ruled(None, "--workers", "1")
    assert fetch(proxy, server.port, b"/1")[0] == 200
    with wire.Client(proxy.address) as client:
        status, _, body = read_response(client.send(request(server.port, b"/2", method=method)), method)
        assert status == 200 and body == (b"" if method == b"HEAD" else b"1:/2")
        assert read_response(client.send(request(server.port, b"/3")))[2] == b"1:/3"
    assert server.paths() == [b"/1", b"/2", b"/2", b"/3"]
    stats = api.get("/stats?format=json").json()
    assert stats["requests"] == stats["successes"] == 3 and not any(stats["failures"].values())
    conns = stats["upstreams"]
    assert (conns["opened"], conns["reused"], conns["stale"]) == (2, 2, 1)


def test_large_head_is_sent_again(shared, origin):
    """Whatever it takes to keep it until the answer is there; pipelined requests behind it are not touched."""
    server = Server(origin, worn(Reset))
    proxy = shared("--workers", "1")
    assert fetch(proxy, server.port, b"/1")[0] == 200
    pad = b"X-Pad: %s\r\n" % (b"x" * 20_000)
    with wire.Client(proxy.address) as client:
        client.send(request(server.port, b"/2", pad) + request(server.port, b"/3", pad) + request(server.port, b"/4"))
        assert [read_response(client)[2] for _ in range(3)] == [b"1:/2", b"1:/3", b"1:/4"]
    assert server.paths() == [b"/1", b"/2", b"/2", b"/3", b"/4"]
    assert [len(head) > 20_000 for _, head, _ in server.heard] == [False, True, True, True, False]


@pytest.mark.parametrize("name", ["end", "reset"])
def test_request_is_sent_twice_at_most(shared, origin, name):
    """A request that ends every connection is not to end many: the second one's end is the client's answer."""
    server = Server(origin, lambda connection, index, head, body: told(b"x") if path_of(head) == b"/good" else WORN[name]())
    proxy = shared("--workers", "1")
    assert fetch(proxy, server.port, b"/good")[0] == 200
    assert fetch(proxy, server.port, b"/bad")[0] == 502
    assert server.paths() == [b"/good", b"/bad", b"/bad"]
    assert fetch(proxy, server.port, b"/bad")[0] == 502 and server.paths().count(b"/bad") == 3


def test_nothing_is_sent_again_behind_a_word_of_an_answer(shared, origin):
    server = Server(origin, lambda connection, index, head, body:
                    told(b"x") if path_of(head) == b"/good" else (b"HTTP/1.1 2", False))
    proxy = shared("--workers", "1")
    assert fetch(proxy, server.port, b"/good")[0] == 200
    assert fetch(proxy, server.port, b"/half")[0] == 502
    assert server.paths() == [b"/good", b"/half"]


@pytest.mark.parametrize("fields", [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"])
@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"PUT"])
def test_others_never_meet_a_worn_connection(shared, origin, method, fields):
    """What may not be sent twice is sent once, on a connection of its own: no answer is lost, and nothing is doubled."""
    server = Server(origin, worn(Reset))
    proxy = shared("--workers", "1")
    assert fetch(proxy, server.port, b"/1")[0] == 200
    body = b"" if b": 0" in fields else b"4\r\nbody\r\n0\r\n\r\n" if b"chunked" in fields else b"body"
    status, answer = fetch(proxy, server.port, b"/2", fields, method, body=body)
    assert status == 200 and answer == b"1:/2" and server.paths().count(b"/2") == (2 if method == b"PUT" and not body else 1)


def test_upstream_that_ends_an_idle_connection(shared, origin):
    """Whether its end is seen while the connection waits or when it is taken: a GET is answered, a POST is sent once."""
    read = threading.Semaphore(0)

    def serve(one, connection):
        number = len(one.results)
        connection.sendall(told(b"%d:%s" % (number, path_of(origins.read_http_head(connection)))))
        assert read.acquire(timeout=30)
        if number % 2:
            origins.reset(connection)
        return number

    server = origin(serve)
    proxy = shared("--workers", "1")
    for i in range(20):
        assert fetch(proxy, server.port, b"/%d" % i) == (200, b"%d:/%d" % (i, i))
        read.release()
        server.result(i)
    read.release()
    assert fetch(proxy, server.port, b"/post", b"Content-Length: 1\r\n", b"POST", body=b"x") == (200, b"20:/post")


def test_client_that_leaves_while_its_request_is_sent_again(shared, origin):
    """Nothing is left of it."""
    proxy, hole = shared("--workers", "1"), threading.Event()

    def answer(connection, index, head, _body):
        if path_of(head) == b"/slow":
            hole.wait(30)
        return Reset() if index == 1 else told(b"x")

    server = Server(origin, answer)
    assert fetch(proxy, server.port, b"/1")[0] == 200
    client = ask(proxy, request(server.port, b"/slow"))
    assert process.wait_until(lambda: len(server.heard) == 2)
    client.reset()
    hole.set()
    assert process.wait_until(lambda: len(server.origin.results) == 1)
    assert proxy.flat()


# --- authentication that belongs to the connection ---

def challenges(scheme):
    """The dance of NTLM: the third message makes the connection its client's."""
    proven = set()

    def answer(connection, _index, head, _body):
        word = value(parse(head)[1], "Authorization")
        refuse = b"HTTP/1.1 401 x\r\nWWW-Authenticate: %s%s\r\nContent-Length: 2\r\n\r\nno"
        if connection in proven:
            return told(b"%d:welcome" % connection)
        if word is None:
            return refuse % (b"Basic realm=\"x\", " + scheme, b"")
        if word.endswith(" one"):
            return refuse % (scheme, b" two")
        proven.add(connection)
        return told(b"%d:welcome" % connection)

    return answer


@pytest.mark.parametrize("scheme", [b"NTLM", b"Negotiate"])
def test_authenticated_connection_is_its_clients(shared, origin, scheme):
    """All three messages travel on one connection; so do the requests behind them, and nobody else's."""
    server = Server(origin, challenges(scheme))
    proxy = shared("--workers", "1")
    with wire.Client(proxy.address) as client, wire.Client(proxy.address) as other:
        assert read_response(client.send(request(server.port)))[0] == 401
        assert read_response(other.send(request(server.port)))[0] == 401
        for word in (b" one", b" three"):
            fields = b"Authorization: " + scheme + word + b"\r\n"
            status, _, body = read_response(client.send(request(server.port, fields=fields)))
        assert (status, body) == (200, b"0:welcome")
        assert read_response(other.send(request(server.port)))[0] == 401
        post = request(server.port, b"/p", b"Content-Length: 4\r\n", b"POST") + b"body"
        for _ in range(2):
            assert read_response(client.send(post))[2] == b"0:welcome"
            assert read_response(client.send(request(server.port)))[2] == b"0:welcome"
        assert fetch(proxy, server.port)[0] == 401
        client.close()
        server.wait_ended(0)
        assert fetch(proxy, server.port)[0] == 401
    assert server.used().count(0) == 7 and proxy.flat()


def test_authentication_on_a_connection_of_others(shared, origin):
    """One that was anybody's before becomes its client's with the word that authenticates it."""
    server = Server(origin, lambda connection, index, head, body: told(b"%d" % connection))
    proxy = shared("--workers", "1")
    assert fetch(proxy, server.port) == (200, b"0")
    with wire.Client(proxy.address) as client:
        fields = b"Authorization: Negotiate oYH\r\n"
        assert read_response(client.send(request(server.port, fields=fields)))[2] == b"0"
        assert fetch(proxy, server.port) == (200, b"1")
        assert read_response(client.send(request(server.port)))[2] == b"0"
        assert fetch(proxy, server.port) == (200, b"1")


# --- bounds ---

def conns_of(api):
    return api.get("/stats?format=json").json()["upstreams"]


def test_few_wait_for_the_same_origin(ruled, origin):
    """Forty at a time, of which 32 wait for others; the eight that have waited longest were closed."""
    barrier = threading.Barrier(40)

    def answer(connection, _index, head, _body):
        if path_of(head) == b"/together":
            barrier.wait(30)
        return told(b"%d" % connection)

    server = Server(origin, answer)
    proxy, api = ruled(None, "--workers", "1")
    clients = [ask(proxy, request(server.port, b"/together")) for _ in range(40)]
    for client in clients:
        assert read_response(client)[0] == 200
    assert process.wait_until(lambda: len(server.ended) == 8)
    process.becomes(lambda: tuple(conns_of(api)[name] for name in ("opened", "evicted", "idle")), (40, 8, 32))


def test_all_workers_together_are_bounded(ruled, origin):
    """Sixteen workers hold no more than a thirty-second of the descriptors, and give them back."""
    server = Server(origin, host="0.0.0.0")
    proxy, api = ruled(None, "--workers", "16", files=2048)
    begin = time.monotonic()
    clients = [ask(proxy, b"GET http://127.0.1.%d:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % (i + 1, server.port))
               for i in range(150)]  # all at once, before the first one has waited for its 15 s
    for client in clients:
        assert read_response(client)[0] == 200

    def is_late():  # on a busy machine some have ended by themselves
        return time.monotonic() - begin > 14

    assert process.wait_until(lambda: sum(conns_of(api)[name] for name in ("idle", "evicted")) == 150 or is_late(), 30), conns_of(api)
    conns = conns_of(api)
    assert conns["idle"] <= 64 and conns["opened"] == 150 and (conns["idle"] > 0 or is_late())
    for client in clients:
        client.close()
    assert proxy.flat(60)
    process.becomes(lambda: conns_of(api)["idle"], 0)


def test_idle_connection_ends(ruled, origin):
    """Nothing waits for ever."""
    proxy, api = ruled(None, "--workers", "1")
    server = Server(origin)
    assert fetch(proxy, server.port)[0] == 200
    process.becomes(lambda: conns_of(api)["idle"], 1)
    server.wait_ended(0)
    process.becomes(lambda: conns_of(api)["idle"], 0)
    assert conns_of(api)["evicted"] == 0


def test_stop_ends_what_waits(sluice, origin):
    proxy, server = sluice("--drain", "600"), Server(origin)
    for _ in range(5):
        assert fetch(proxy, server.port)[0] == 200
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    server.wait_ended(0)


def test_new_ruleset_ends_what_waits(ruled, origin):
    """Also what is in use just then: a verdict of before makes no connection for one of now."""
    hold, heard = threading.Event(), threading.Event()

    def answer(connection, _index, head, _body):
        if path_of(head) == b"/held":
            heard.set()
            hold.wait(30)
        return told(b"%d" % connection)

    server, rules = Server(origin, answer), "return { resolve = function(address) return address end }"
    proxy, api = ruled(rules, "--workers", "1")
    assert fetch(proxy, server.port) == (200, b"0")
    with ask(proxy, request(server.port, b"/held")) as client:
        assert heard.wait(30)
        with ask(proxy, request(server.port)) as other:
            assert read_response(other)[2] == b"1"
        api.update(rules)
        server.wait_ended(1)
        hold.set()
        assert read_response(client)[2] == b"0"
        server.wait_ended(0)
        assert fetch(proxy, server.port) == (200, b"2")


def test_new_settings_end_what_waits(sluice, origin, tmp_path):
    """What may not be reached any more is not reached by a connection of before."""
    port = process.free_port()
    conf = 'return { listen = "127.0.0.1:%d", workers = 1, block_loopback = %s }'
    (tmp_path / "conf.lua").write_text(conf % (port, "false"))
    proxy, server = sluice("-c", tmp_path / "conf.lua", listen=None), Server(origin)
    with wire.Client(("127.0.0.1", port)) as client:
        for _ in range(2):
            assert read_response(client.send(request(server.port)))[2] == b"0:/"
        (tmp_path / "conf.lua").write_text(conf % (port, "true"))
        proxy.signal(signal.SIGHUP)
        server.wait_ended(0)
        assert read_response(client.send(request(server.port)))[0] == 403
    assert server.used() == [0, 0]


def test_clients_come_before_idle_connections(ruled, origin):
    """Without a descriptor left, a client is let in and its request answered: what waits is given up."""
    server = Server(origin, host="0.0.0.0")
    proxy, api = ruled(None, "--workers", "1")
    for i in range(20):
        assert fetch(proxy, server.port, host=b"127.0.1.%d" % (i + 1))[0] == 200
    process.becomes(lambda: conns_of(api)["idle"], 20)
    process.becomes(proxy.sockets, proxy.sockets_at_start + 20)  # neither clients nor callers of the API are left
    _, most = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (proxy.descriptors(), most))
    assert fetch(proxy, server.port, host=b"127.0.2.1")[0] == 200
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (most, most))
    process.becomes(lambda: conns_of(api)["idle"], 1)
    assert conns_of(api)["evicted"] == 20


# --- real ones ---

@pytest.fixture
def nginx(tmp_path):
    """A server of Debian, which closes its idle connections of itself: port."""
    binary = conftest.require("nginx", "nginx")
    port, root = process.free_port(), tmp_path / "www"
    root.mkdir()
    for i in range(20):
        (root / f"{i}.txt").write_bytes(b"%d\n" % i * (1 << i))
    os.chmod(tmp_path, 0o755)
    (tmp_path / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;
        events {{ }}
        http {{
            access_log {tmp_path}/access.log; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
            fastcgi_temp_path {tmp_path}/fastcgi; uwsgi_temp_path {tmp_path}/uwsgi; scgi_temp_path {tmp_path}/scgi;
            keepalive_requests 7;
            server {{ listen 127.0.0.1:{port}; root {root}; }}
        }}""")
    server = subprocess.Popen([binary, "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")])
    assert process.wait_until(lambda: process.listens("127.0.0.1", port))
    yield port
    server.terminate()
    server.wait()


def test_curl_and_nginx(ruled, nginx, tmp_path):
    """Two hundred files, of a server that ends each connection behind seven requests, by eight transfers at a time."""
    curl = conftest.require("curl", "curl")
    proxy, api = ruled(None, "--workers", "1")
    urls = [f"http://127.0.0.1:{nginx}/{i % 20}.txt" for i in range(200)]
    words = [word for i, url in enumerate(urls) for word in ("-o", str(tmp_path / f"got-{i}"), url)]
    subprocess.run([curl, "-sSf", "--parallel", "--parallel-max", "8", "-x", f"http://{proxy.url}", *words], check=True, timeout=120)
    for i in range(200):
        assert (tmp_path / f"got-{i}").read_bytes() == b"%d\n" % (i % 20) * (1 << i % 20)
    conns = conns_of(api)
    assert conns["opened"] + conns["reused"] - conns["stale"] == 200 and conns["reused"] > 100


def test_agent_of_node(ruled, nginx):
    """A client that keeps its own connections."""
    node = conftest.require("node", "nodejs")
    proxy, api = ruled(None, "--workers", "1")
    script = """
        const http = require('http');
        const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
        const ask = i => new Promise((done, fail) => http.get({ host: '%s', port: %d, agent,
            path: 'http://127.0.0.1:%d/' + i %% 10 + '.txt' }, response => {
            let text = '';
            response.on('data', part => text += part).on('end', () => done(text));
        }).on('error', fail));
        Promise.all(Array.from({ length: 100 }, (_, i) => ask(i))).then(all => {
            const wrong = all.filter((text, i) => text !== (i %% 10 + '\\n').repeat(1 << i %% 10));
            console.log(wrong.length);
            process.exit(0);
        });""" % (proxy.host, proxy.port, nginx)
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, timeout=60 * process.SLOW)
    assert done.stdout == "0\n", done
    conns = conns_of(api)
    assert conns["opened"] + conns["reused"] - conns["stale"] == 100 and conns["reused"] > 50


def test_python_client(sluice, nginx):
    proxy = sluice("--workers", "1")
    client = http.client.HTTPConnection(*proxy.address, timeout=30)
    for i in range(30):
        client.request("GET" if i % 3 else "HEAD", f"http://127.0.0.1:{nginx}/{i % 5}.txt")
        answer = client.getresponse()
        assert answer.status == 200
        assert answer.read() == (b"%d\n" % (i % 5) * (1 << i % 5) if i % 3 else b"")
    client.close()
