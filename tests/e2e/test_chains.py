"""Through other proxies: what we say to them octet by octet, what their answers become, and real ones of Debian."""
import base64
import getpass
import hashlib
import os
import time

import pytest

import origins
import process
import wire
from conftest import require

TEXT = b"through the chain"
HTTP_OK = b"HTTP/1.1 200 OK\r\n\r\n"


def round_trip(client, message=TEXT):
    client.send(message)
    assert client.read(len(message)) == message


# --- a scripted proxy: says its lines, keeps what it hears ---

def scripted(*lines, then=None):
    """Handler: for each (number of octets or 'head', answer): reads, answers. Its result is all that it has heard."""
    def handler(origin, connection):
        heard = b""
        for size, answer in lines:
            if size == "head":
                heard += origins.read_http_head(connection)
            else:
                while size > 0:
                    part = connection.recv(size)
                    if not part:
                        return heard
                    heard += part
                    size -= len(part)
            connection.sendall(answer)
        with origin.changed:
            origin.results.append(heard)
            origin.changed.notify_all()
        return then(origin, connection) if then else heard

    return handler


@pytest.fixture(scope="module")
def hop_port():
    return process.free_port()


@pytest.fixture
def hop(origin, hop_port):
    """hop(handler): an origin whose port is the same in all tests, so that those who go through it are shared."""
    return lambda handler: origin(handler, port=hop_port)


def said_to(hop, shared, uri, lines, request=None):
    """What a chain of one proxy hears, and the client's answer to a SOCKS5 request."""
    proxy = hop(scripted(*lines, then=origins.echo))
    ours = shared("-x", uri.format(port=proxy.port))
    client = wire.greet(wire.Client(ours.address))
    client.send(request or wire.socks5("192.0.2.7", 443))
    return client, proxy


def test_socks4a_says_an_address(shared, hop):
    expected = b"\4\1\1\xbb\xc0\0\2\7\0"
    client, proxy = said_to(hop, shared, "socks4a://127.0.0.1:{port}", [(len(expected), b"\0\x5a" + bytes(6))])
    assert wire.read_socks5_reply(client)[0] == 0
    assert proxy.result() == expected
    round_trip(client)


@pytest.mark.parametrize("host, host_text", [("target.example", b"target.example"), ("2001:db8::7", b"2001:db8::7"),
                                             ("0.0.0.9", b"0.0.0.9")])
def test_socks4a_says_a_name(shared, hop, host, host_text):
    expected = b"\4\1\1\xbb\0\0\0\xffjoe\0" + host_text + b"\0"
    client, proxy = said_to(hop, shared, "socks4a://joe:ignored@127.0.0.1:{port}",
                            [(len(expected), b"\0\x5a" + bytes(6))], wire.socks5(host, 443))
    assert wire.read_socks5_reply(client)[0] == 0
    assert proxy.result() == expected
    round_trip(client)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "target.example"])
def test_socks5_says(shared, hop, host):
    request = wire.socks5(host, 443)
    client, proxy = said_to(hop, shared, "socks5://127.0.0.1:{port}",
                            [(3, b"\5\0"), (len(request), b"\5\0\0\1\x7f\0\0\1\x12\x34")], request)
    assert wire.read_socks5_reply(client)[0] == 0
    assert proxy.result() == b"\5\1\0" + request
    round_trip(client)


@pytest.mark.parametrize("bound", [
    pytest.param(b"\1\x7f\0\0\1", id="ipv4"), pytest.param(b"\4" + bytes(16), id="ipv6"),
    pytest.param(b"\3\7name.ex", id="name"), pytest.param(b"\3\xff" + b"n" * 255, id="longest-name")])
def test_socks5_takes_any_bound_address(shared, hop, bound):
    client, _ = said_to(hop, shared, "socks5://127.0.0.1:{port}",
                        [(3, b"\5\0"), (10, b"\5\0\0" + bound + b"\x12\x34")])
    assert wire.read_socks5_reply(client)[0] == 0
    round_trip(client)


def test_socks5_says_user_and_password(shared, hop):
    request = wire.socks5("192.0.2.7", 443)
    client, proxy = said_to(
        hop, shared, "socks5://us%65r:p%40ss@127.0.0.1:{port}",
        [(4, b"\5\2"), (11, b"\1\0"), (len(request), b"\5\0\0\1" + bytes(6))])
    assert wire.read_socks5_reply(client)[0] == 0
    assert proxy.result() == b"\5\2\0\2" + wire.socks5_auth(b"user", b"p@ss") + request
    round_trip(client)


def test_socks5_offers_a_password_that_nobody_wants(shared, hop):
    client, proxy = said_to(hop, shared, "socks5://user@127.0.0.1:{port}",
                            [(4, b"\5\0"), (10, b"\5\0\0\1" + bytes(6))])
    assert wire.read_socks5_reply(client)[0] == 0
    assert proxy.result() == b"\5\2\0\2" + wire.socks5("192.0.2.7", 443)


@pytest.mark.parametrize("host, authority", [("192.0.2.7", b"192.0.2.7:443"), ("target.example", b"target.example:443"),
                                             ("2001:db8::7", b"[2001:db8::7]:443")])
def test_http_says(shared, hop, host, authority):
    client, proxy = said_to(hop, shared, "http://user:p%3Ass@127.0.0.1:{port}", [("head", HTTP_OK)],
                            wire.socks5(host, 443))
    assert wire.read_socks5_reply(client)[0] == 0
    assert proxy.result() == (b"CONNECT " + authority + b" HTTP/1.1\r\nHost: " + authority +
                              b"\r\nProxy-Authorization: Basic " + base64.b64encode(b"user:p:ss") + b"\r\n\r\n")
    round_trip(client)


@pytest.mark.parametrize("reply", [
    pytest.param(b"HTTP/1.0 200 Connection established\r\n\r\n", id="version-1.0"),
    pytest.param(b"HTTP/1.1 200\r\n\r\n", id="no-reason"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nVia: x\r\n\r\n", id="interim"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3000 + b"\r\n\r\n", id="long")])
def test_http_takes(shared, hop, reply):
    client, _ = said_to(hop, shared, "http://127.0.0.1:{port}", [("head", reply)])
    assert wire.read_socks5_reply(client)[0] == 0
    round_trip(client)


CHAIN_ANSWERS = {
    "socks5-01": ("socks5", [(3, b"\5\0"), (10, b"\5\1\0\1" + bytes(6))], 1, 502),
    "socks5-02": ("socks5", [(3, b"\5\0"), (10, b"\5\2\0\1" + bytes(6))], 2, 502),
    "socks5-03": ("socks5", [(3, b"\5\0"), (10, b"\5\3\0\1" + bytes(6))], 3, 502),
    "socks5-04": ("socks5", [(3, b"\5\0"), (10, b"\5\4\0\1" + bytes(6))], 4, 502),
    "socks5-05": ("socks5", [(3, b"\5\0"), (10, b"\5\5\0\1" + bytes(6))], 5, 502),
    "socks5-06": ("socks5", [(3, b"\5\0"), (10, b"\5\6\0\1" + bytes(6))], 6, 504),
    "socks5-99": ("socks5", [(3, b"\5\0"), (10, b"\5\x63\0\1" + bytes(6))], 1, 502),
    "socks5-no-method": ("socks5", [(3, b"\5\xff")], 2, 502),
    "socks5-method-not-offered": ("socks5", [(3, b"\5\2")], 1, 502),
    "socks5-not-5": ("socks5", [(3, b"HT")], 1, 502),
    "socks5-reply-not-5": ("socks5", [(3, b"\5\0"), (10, b"\4\0\0\1" + bytes(6))], 1, 502),
    "socks5-reply-of-type-9": ("socks5", [(3, b"\5\0"), (10, b"\5\0\0\x09" + bytes(6))], 1, 502),
    "socks5-password": ("socks5user", [(4, b"\5\2"), (7, b"\1\1")], 2, 502),
    "socks4-5b": ("socks4a", [(9, b"\0\x5b" + bytes(6))], 5, 502),
    "socks4-5c": ("socks4a", [(9, b"\0\x5c" + bytes(6))], 1, 502),
    "socks4-version": ("socks4a", [(9, b"\4\x5a" + bytes(6))], 1, 502),
    "http-403": ("http", [("head", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nsorry")], 2, 502),
    "http-407": ("http", [("head", b"HTTP/1.1 407 Who\r\n\r\n")], 2, 502),
    "http-502": ("http", [("head", b"HTTP/1.0 502 Bad\r\n\r\n")], 5, 502),
    "http-503": ("http", [("head", b"HTTP/1.1 503\r\n\r\n")], 5, 502),
    "http-500": ("http", [("head", b"HTTP/1.1 500 Oops\r\n\r\n")], 1, 502),
    "http-301": ("http", [("head", b"HTTP/1.1 301 There\r\nLocation: /\r\n\r\n")], 1, 502),
    "http-garbage": ("http", [("head", b"SSH-2.0-OpenSSH_9.2\r\n")], 1, 502),
    "http-endless": ("http", [("head", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 15000)], 1, 502),
    "closes-at-once": ("socks5", [], 1, 502),
    "closes-after-method": ("socks5", [(3, b"\5\0")], 1, 502),
    "closes-in-the-middle": ("socks4a", [(9, b"\0\x5a\0")], 1, 502),
}
CHAIN_URIS = {"socks5": "socks5://127.0.0.1:{}", "socks5user": "socks5://u:pwd@127.0.0.1:{}",
              "socks4a": "socks4a://127.0.0.1:{}", "http": "http://127.0.0.1:{}"}


@pytest.mark.parametrize("name", CHAIN_ANSWERS)
def test_what_a_proxy_answers_is_told(shared, hop, name):
    kind, lines, rep, status = CHAIN_ANSWERS[name]
    proxy = hop(scripted(*lines))
    ours = shared("-x", CHAIN_URIS[kind].format(proxy.port))
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("192.0.2.7", 443))
        assert client.read_all() == wire.socks5_failure(rep)
    with wire.Client(ours.address) as client:
        client.send(wire.http_connect("192.0.2.7", 443))
        assert wire.status_of(client.read_all())[0] == status
    with wire.Client(ours.address) as client:
        client.send(wire.socks4("192.0.2.7", 443))
        assert client.read_all() == wire.SOCKS4_REJECTED


def test_proxy_that_resets(shared, hop):
    proxy = hop(lambda _origin, connection: origins.reset(connection))
    for kind in ("socks5", "socks4a", "http"):
        ours = shared("-x", CHAIN_URIS[kind].format(proxy.port))
        with wire.greet(wire.Client(ours.address)) as client:
            client.send(wire.socks5("192.0.2.7", 443))
            assert client.read_all() == wire.socks5_failure(1)


def test_proxy_that_is_not_there(sluice):
    ours = sluice("-x", f"socks5://127.0.0.1:{process.free_port()}")
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("192.0.2.7", 443))
        assert client.read_all() == wire.socks5_failure(5)


def test_proxy_that_says_nothing_costs_the_timeout(sluice, origin):
    proxy = origin(origins.collect)
    ours = sluice("-t", "5", "-x", f"socks5://127.0.0.1:{proxy.port}")
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("192.0.2.7", 443))
        assert client.read_all() == wire.socks5_failure(6)


def test_client_that_ends_its_side_while_we_wait_for_a_proxy(sluice, origin):
    """An orderly end of the client's sending side is no reason to give up: it waits for its answer."""
    class Late:
        def __init__(self, connection):
            self.recv, self.connection = connection.recv, connection

        def sendall(self, data):
            time.sleep(0.8)
            self.connection.sendall(data)

    def serve(one, connection):
        line = (9, b"\0\x5a" + bytes(6))
        return scripted(line, then=lambda *_: origins.digest(one, connection))(one, Late(connection))

    proxy = origin(serve)
    ours = sluice("-x", f"socks4a://127.0.0.1:{proxy.port}")
    with wire.Client(ours.address) as client:
        client.send(wire.socks4("192.0.2.7", 443) + TEXT).shut()
        assert client.read(8) == wire.SOCKS4_GRANTED
        assert client.read_all().decode() == hashlib.sha256(TEXT).hexdigest()


REPLIES = {"socks5": b"\5\0\0\1" + bytes(6), "socks4a": b"\0\x5a" + bytes(6), "http": HTTP_OK}


@pytest.mark.parametrize("kind", REPLIES)
def test_octets_behind_a_proxys_reply_are_the_targets(shared, hop, kind):
    """A server that speaks first: its greeting comes in one segment with the proxy's answer."""
    greeting, reply = b"220 welcome\r\n" * 30, REPLIES[kind]
    lines = {"socks5": [(3, b"\5\0"), (10, reply + greeting)], "socks4a": [(9, reply + greeting)],
             "http": [("head", reply + greeting)]}[kind]
    proxy = hop(scripted(*lines, then=origins.echo))
    ours = shared("-x", CHAIN_URIS[kind].format(proxy.port))
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("192.0.2.7", 443))
        assert wire.read_socks5_reply(client)[0] == 0
        assert client.read(len(greeting)) == greeting
        round_trip(client)


@pytest.mark.parametrize("greeting", [0, 3000, 100_000])
@pytest.mark.parametrize("size", [4090, 4100, 20_000, 65_000])
def test_large_answer_of_a_proxy(shared, hop, size, greeting):
    """Cookies of a login page, for example. What follows in the same segments is the target's."""
    greeting = os.urandom(greeting)
    reply = b"HTTP/1.1 103 Soon\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: " + b"c" * size + b"\r\n\r\n"
    proxy = hop(scripted(("head", reply + greeting), then=origins.echo))
    ours = shared("-x", f"http://127.0.0.1:{proxy.port}")
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("192.0.2.7", 443))
        assert wire.read_socks5_reply(client)[0] == 0
        assert client.read(len(greeting)) == greeting
        round_trip(client)


@pytest.mark.parametrize("kind", ["socks5", "socks4a", "http"])
def test_proxy_that_answers_octet_by_octet(shared, hop, kind):
    lines = {"socks5": [(3, b"\5\0"), (10, b"\5\0\0\1" + bytes(6))], "socks4a": [(9, b"\0\x5a" + bytes(6))],
             "http": [("head", HTTP_OK)]}[kind]

    def slow(_origin, connection):
        class Dribble:
            def __getattr__(self, name):
                return getattr(connection, name)

            def sendall(self, data):
                for i in range(len(data)):
                    connection.sendall(data[i:i + 1])
                    time.sleep(0.002)

        return scripted(*lines, then=lambda _one, _two: origins.echo(_origin, connection))(_origin, Dribble())

    proxy = hop(slow)
    ours = shared("-x", CHAIN_URIS[kind].format(proxy.port))
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("192.0.2.7", 443))
        assert wire.read_socks5_reply(client)[0] == 0
        round_trip(client)


def test_only_the_first_proxys_name_is_resolved_here(sluice, origin, dns):
    server = dns()
    server.add("proxy.example", "127.0.0.1")
    request = wire.socks5("target.example", 443)
    proxy = origin(scripted((3, b"\5\0"), (len(request), b"\5\0\0\1" + bytes(6)), then=origins.echo))
    ours = sluice("--nameserver", server.text, "-x", f"socks5://proxy.example:{proxy.port}")
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(request)
        assert wire.read_socks5_reply(client)[0] == 0
    assert {name for name, _ in server.queries} == {"proxy.example"}


def test_the_policy_judges_the_first_proxy(sluice, origin):
    proxy = origin()
    ours = sluice("--block-outbound", "loopback", "-x", f"socks5://127.0.0.1:{proxy.port}")
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("192.0.2.7", 443))
        assert client.read_all() == wire.socks5_failure(2)
    assert not proxy.connections


def test_forward_through_a_chain(sluice, origin):
    target = origin()
    second = sluice()
    first = sluice("-f", f"127.0.0.1:{target.port}", "-x", f"http://{second.url}")
    with wire.Client(first.address) as client:
        round_trip(client)


# --- of our own, mixed ---

OURS = ["socks4a://{}", "socks5://{}", "socks5://user:pass@{}", "http://{}", "http://user:pass@{}"]


@pytest.mark.parametrize("first", OURS)
@pytest.mark.parametrize("second", OURS)
def test_two_of_ours(sluice, origin, first, second):
    target, a, b = origin(), sluice(), sluice()
    ours = sluice("-x", f"{first.format(a.url)},{second.format(b.url)}")
    for way in ("socks4", "socks5", "http"):
        with wire.WAYS[way](ours.address, "127.0.0.1", target.port) as client:
            round_trip(client)
            client.shut()
            assert client.read_all() == b""


def test_three_of_ours_carry_names_and_ipv6(sluice, origin):
    a, b, c = sluice(), sluice(listen="::1"), sluice()
    ours = sluice("-x", f"http://{a.url},socks5://u:p@{b.url},socks4a://{c.url}")
    for host, name in (("127.0.0.1", "localhost"), ("::1", "::1"), ("127.0.0.1", "127.0.0.1")):
        target = origin(host=host)
        for way in ("socks4a", "socks5", "http"):
            if ":" in name and way == "socks4a":
                continue
            with wire.WAYS[way](ours.address, name, target.port) as client:
                round_trip(client)


def test_the_reason_passes_a_chain(sluice):
    last = sluice()
    middle = sluice("-x", f"socks5://{last.url}")
    ours = sluice("-x", f"socks5://{middle.url}")
    for host, rep in (("127.0.0.1", 5), ("224.0.0.1", 2)):
        with wire.greet(wire.Client(ours.address)) as client:
            client.send(wire.socks5(host, process.free_port()))
            assert client.read_all() == wire.socks5_failure(rep)


# --- of Debian ---

@pytest.fixture
def microsocks(daemon):
    program = require("microsocks", "microsocks")

    def start(*words):
        port = process.free_port()
        daemon([program, "-i", "127.0.0.1", "-p", str(port), *words], port)
        return port

    return start


@pytest.fixture
def tinyproxy(daemon, tmp_path):
    program = require("tinyproxy", "tinyproxy-bin")

    def start(*lines):
        port = process.free_port()
        conf = tmp_path / f"tinyproxy-{port}.conf"
        conf.write_text("\n".join([f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "Allow 127.0.0.1", *lines]) + "\n")
        daemon([program, "-d", "-c", str(conf)], port)
        return port

    return start


@pytest.fixture
def dante(daemon, tmp_path):
    program = require("danted", "dante-server")
    # Only root can become the users that it would otherwise run as.
    users = "user.privileged: root\nuser.unprivileged: nobody\n" if os.geteuid() == 0 else (
        "user.privileged: {0}\nuser.unprivileged: {0}\n".format(getpass.getuser()))

    def start():
        port = process.free_port()
        conf = tmp_path / f"danted-{port}.conf"
        conf.write_text(
            f"logoutput: stderr\ninternal: 127.0.0.1 port = {port}\nexternal: 127.0.0.1\nexternal: lo\n"
            f"clientmethod: none\nsocksmethod: none\n{users}"
            "client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n")
        daemon([program, "-f", str(conf), "-N", "1", "-p", str(tmp_path / f"danted-{port}.pid")], port)
        return port

    return start


def through_each(ours, target):
    for way in wire.WAYS:
        with wire.WAYS[way](ours.address, "127.0.0.1", target.port) as client:
            round_trip(client)
            client.shut()
            assert client.read_all() == b"", way


def test_microsocks(sluice, origin, microsocks):
    target = origin()
    through_each(sluice("-x", f"socks5://127.0.0.1:{microsocks()}"), target)
    through_each(sluice("-x", f"socks5://me:secret@127.0.0.1:{microsocks('-u', 'me', '-P', 'secret')}"), target)


def test_microsocks_with_the_wrong_password(sluice, origin, microsocks):
    ours = sluice("-x", f"socks5://me:wrong@127.0.0.1:{microsocks('-u', 'me', '-P', 'secret')}")
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("127.0.0.1", origin().port))
        assert client.read_all() == wire.socks5_failure(2)


def test_microsocks_tells_why(sluice, microsocks):
    ours = sluice("-x", f"socks5://127.0.0.1:{microsocks()}")
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("127.0.0.1", process.free_port()))
        assert client.read_all() == wire.socks5_failure(5)


def test_dante(sluice, origin, dante):
    port, target = dante(), origin()
    through_each(sluice("-x", f"socks5://127.0.0.1:{port}"), target)
    through_each(sluice("-x", f"socks4a://127.0.0.1:{port}"), target)


def test_tinyproxy(sluice, origin, tinyproxy):
    target = origin()
    through_each(sluice("-x", f"http://127.0.0.1:{tinyproxy()}"), target)
    through_each(sluice("-x", f"http://me:secret@127.0.0.1:{tinyproxy('BasicAuth me secret')}"), target)


def test_tinyproxy_with_the_wrong_password(sluice, origin, tinyproxy):
    ours = sluice("-x", f"http://me:wrong@127.0.0.1:{tinyproxy('BasicAuth me secret')}")
    with wire.greet(wire.Client(ours.address)) as client:
        client.send(wire.socks5("127.0.0.1", origin().port))
        rep, _, _ = wire.read_socks5_reply(client)
        assert rep in (1, 2)  # tinyproxy answers 401 or 407, by its version


def test_all_of_them_in_one_chain(sluice, origin, dante, microsocks, tinyproxy):
    chain = (f"socks5://127.0.0.1:{dante()},http://127.0.0.1:{tinyproxy()},"
             f"socks5://me:secret@127.0.0.1:{microsocks('-u', 'me', '-P', 'secret')},http://{sluice().url}")
    through_each(sluice("-x", chain), origin())
