"""Every failure in every protocol, octet by octet (contract 2.3 to 2.5; RFC 1928 section 6; RFC 9110 section 15)."""
import os
import random
import signal
import socket
import threading
import time

import pytest

import origins
import process
import wire

SOCKS5_HELLO = b"\5\1\0"


def ask_socks4(client, host, port):
    try:
        socket.inet_aton(host)
        client.send(wire.socks4(host, port))
    except OSError:
        client.send(wire.socks4a(host, port))


def ask_socks5(client, host, port):
    client.send(SOCKS5_HELLO)
    assert client.read(2) == b"\5\0"
    client.send(wire.socks5(host, port))


def ask_http(client, host, port):
    client.send(wire.http_connect(host, port))


def assert_refused(address, host, port, socks4, socks5, http):
    """Asks in all three protocols. None: nothing but an end."""
    with wire.Client(address) as client:
        ask_socks4(client, host, port)
        assert client.read_all() == (wire.SOCKS4_REJECTED if socks4 else b"")
    with wire.Client(address) as client:
        ask_socks5(client, host, port)
        assert client.read_all() == wire.socks5_failure(socks5)
    with wire.Client(address) as client:
        ask_http(client, host, port)
        assert wire.status_of(client.read_all())[0] == http


def test_refused(shared):
    assert_refused(shared().address, "127.0.0.1", process.free_port(), True, 5, 502)


def test_refused_ipv6(shared):
    proxy, port = shared(), process.free_port("::1")
    with wire.Client(proxy.address) as client:
        ask_socks5(client, "::1", port)
        assert client.read_all() == wire.socks5_failure(5)
    with wire.Client(proxy.address) as client:
        ask_http(client, "::1", port)
        assert wire.status_of(client.read_all()) == (502, "Bad Gateway")


def test_no_such_name(sluice, dns):
    assert_refused(sluice("--nameserver", dns().text).address, "nowhere.example", 80, True, 4, 502)


@pytest.mark.parametrize("name", ["n" * 255, ".".join(["n" * 63] * 4), "a..b", ".", "a b", "a\0b", "\xff\xfe", "-"])
def test_name_that_cannot_be_one(sluice, dns, name):
    """Hosts of the greatest length, and octets that no name has: well formed requests for what does not exist."""
    proxy = sluice("--nameserver", dns().text)
    with wire.Client(proxy.address) as client:
        ask_socks5(client, name.encode("latin-1"), 80)
        assert client.read_all() == wire.socks5_failure(4)
    if "\0" not in name:
        with wire.Client(proxy.address) as client:
            client.send(wire.socks4a(name.encode("latin-1"), 80))
            assert client.read_all() == wire.SOCKS4_REJECTED


def test_name_without_addresses(sluice, dns):
    server = dns()
    server.add("empty.example")
    assert_refused(sluice("--nameserver", server.text).address, "empty.example", 80, True, 4, 502)


def test_name_server_fails(sluice, dns):
    server = dns()
    server.broken.add("broken.example")
    assert_refused(sluice("--nameserver", server.text).address, "broken.example", 80, True, 4, 502)


@pytest.mark.parametrize("blocked, host", [
    (None, "224.0.0.1"), (None, "0.0.0.0"), ("loopback", "127.0.0.1"), ("loopback", "127.255.255.255"),
    ("local", "10.1.2.3"), ("local", "100.64.0.1"), ("local", "240.0.0.1"), ("local", "192.0.2.1"),
    ("global", "8.8.8.8"), ("loopback,multicast,local", "169.254.169.254")])
def test_blocked_address(sluice, blocked, host):
    options = ["--block-outbound", blocked] if blocked else []
    assert_refused(sluice(*options).address, host, 80, True, 2, 403)


@pytest.mark.parametrize("blocked, host", [
    (None, "ff02::1"), (None, "::"), (None, "::ffff:0.0.0.0"), ("loopback", "::1"), ("loopback", "::ffff:127.0.0.1"),
    ("loopback", "64:ff9b::7f00:1"), ("local", "fe80::1"), ("local", "2002:a00:1::"), ("local", "fd00::1")])
def test_blocked_ipv6_address(sluice, blocked, host):
    proxy = sluice(*(["--block-outbound", blocked] if blocked else []))
    with wire.Client(proxy.address) as client:
        ask_socks5(client, host, 80)
        assert client.read_all() == wire.socks5_failure(2)
    with wire.Client(proxy.address) as client:
        ask_http(client, host, 80)
        assert wire.status_of(client.read_all()) == (403, "Forbidden")


def test_names_are_judged_by_the_address_they_mean(sluice, origin, dns):
    server, target = dns(), origin()
    server.add("rebound.example", "127.0.0.1")
    proxy = sluice("--nameserver", server.text, "--block-outbound", "loopback")
    assert_refused(proxy.address, "rebound.example", target.port, True, 2, 403)
    assert_refused(proxy.address, "localhost", target.port, True, 2, 403)
    assert target.connections == []


@pytest.mark.parametrize("blocked, forbidden, allowed", [("loopback", "127.0.0.1", "10.7.0.1"), ("local", "10.7.0.1", "127.0.0.1")])
def test_every_address_of_a_name_is_judged(sluice, namespace, dns, blocked, forbidden, allowed):
    """Where nobody listens at the one that is allowed, the other is not dialled, whichever comes first; where somebody does, it serves."""
    net = namespace()
    net.ip("addr", "add", "10.7.0.1/32", "dev", "lo")
    server = net.call(dns)
    server.add("both.example", allowed, forbidden)
    proxy = sluice("--nameserver", server.text, "--block-outbound", blocked, prefix=net.prefix)
    target = net.call(origins.Origin, origins.echo, host=forbidden, port=9)
    for _ in range(3):
        with net.call(wire.Client, proxy.address) as client:
            ask_socks5(client, b"both.example", target.port)
            assert client.read_all() in (wire.socks5_failure(5), wire.socks5_failure(2))
    other = net.call(origins.Origin, origins.echo, host=allowed, port=9)
    with net.call(wire.Client, proxy.address) as client:
        ask_socks5(client, b"both.example", target.port)
        assert wire.read_socks5_reply(client)[0] == 0
        client.send(b"x")
        assert client.read(1) == b"x"
    assert not target.connections and len(other.connections) == 1
    target.close()
    other.close()


def test_an_empty_list_blocks_nothing(shared, origin):
    target = origin()
    proxy = shared("--block-outbound", "")
    with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
        client.send(b"x")
        assert client.read(1) == b"x"


def test_what_routes_say(sluice, namespace, tmp_path):
    """In a namespace of its own every answer of the routing table can be had."""
    inside, path = namespace(), str(tmp_path / "proxy")
    inside.ip("addr", "add", "10.7.0.1/24", "dev", "lo")
    inside.ip("route", "add", "unreachable", "10.7.1.0/24")
    inside.ip("route", "add", "prohibit", "10.7.2.0/24")
    sluice("-l", f"unix:{path}", listen=None, prefix=inside.prefix)
    assert_refused(path, "203.0.113.1", 80, True, 3, 502)
    assert_refused(path, "10.7.1.1", 80, True, 4, 502)
    assert_refused(path, "10.7.2.1", 80, True, 2, 403)
    with wire.Client(path) as client:
        ask_socks5(client, "2001:db8::1", 80)
        assert client.read_all() == wire.socks5_failure(3)


def test_a_unix_target_that_may_not_be_opened(sluice, origin, tmp_path):
    """Neither the operator's policy nor the target itself has said no."""
    path = str(tmp_path / "origin")
    target = origin(path=path)
    os.chmod(path, 0)
    proxy = sluice("-f", f"unix:{path}", "--loglevel", "5", *([] if os.geteuid() else ["-u", "nobody:"]))
    with wire.Client(proxy.address) as client:
        assert client.ends_with() in ("end", "reset")
    assert process.wait_until(lambda: f"`unix:{path}': permission denied by the system" in proxy.log()), proxy.log()
    assert target.connections == []



# --- SOCKS4 ---

@pytest.mark.parametrize("request_bytes", [
    pytest.param(wire.socks4("127.0.0.1", 80, command=2), id="bind"),
    pytest.param(wire.socks4("127.0.0.1", 80, command=0), id="command-0"),
    pytest.param(wire.socks4a("localhost", 80, command=255), id="command-255"),
    pytest.param(wire.socks4("127.0.0.1", 80, b"u" * 256), id="user-too-long"),
    pytest.param(wire.socks4a("n" * 256, 80), id="name-too-long"),
    pytest.param(wire.socks4a("", 80), id="empty-name"),
    pytest.param(b"\4\1\0\x50\0\0\0\0user\0name.example\0", id="zero-address-is-no-4a"),
    pytest.param(b"\4\1\0\0\x7f\0\0\1\0", id="port-0"),
])
def test_socks4_request_that_is_refused(shared, request_bytes):
    with wire.Client(shared().address) as client:
        client.send(request_bytes)
        assert client.read_all() == wire.SOCKS4_REJECTED


# --- SOCKS5 ---

@pytest.mark.parametrize("request_bytes, code", [
    pytest.param(wire.socks5("127.0.0.1", 80, 0), 7, id="command-0"),
    pytest.param(wire.socks5("127.0.0.1", 80, 2), 7, id="bind-is-off"),
    pytest.param(wire.socks5("127.0.0.1", 80, 3), 7, id="udp-is-off"),
    pytest.param(wire.socks5("::1", 80, 4), 7, id="command-4"),
    pytest.param(wire.socks5("localhost", 80, 255), 7, id="command-255"),
    pytest.param(b"\5\1\0\2\x7f\0\0\1\0\x50", 8, id="address-type-2"),
    pytest.param(b"\5\1\0\0\x7f\0\0\1\0\x50", 8, id="address-type-0"),
    pytest.param(b"\5\1\0\xff", 8, id="address-type-255-at-once"),
    pytest.param(b"\5\1\0\3\0\0\x50", 4, id="empty-name"),
])
def test_socks5_request_that_is_refused(shared, request_bytes, code):
    with wire.greet(wire.Client(shared().address)) as client:
        client.send(request_bytes)
        assert client.read_all() == wire.socks5_failure(code)


def test_socks5_request_of_another_version(shared):
    with wire.greet(wire.Client(shared().address)) as client:
        client.send(b"\4" + wire.socks5("127.0.0.1", 80)[1:])
        assert client.ends_with() in ("end", "reset")  # and not a single octet


def test_socks5_password_of_another_version(shared):
    with wire.Client(shared().address) as client:
        client.send(b"\5\1\2")
        assert client.read(2) == b"\5\2"
        client.send(b"\5\1u\1p")
        assert client.ends_with() in ("end", "reset")


@pytest.mark.parametrize("first", [0, 1, 3, 6, 0x16, 0x7F, 0x80, 0xFF])
def test_first_octet_of_no_protocol(shared, first):
    with wire.Client(shared().address) as client:
        client.send(bytes([first]) * 20)
        assert client.ends_with() in ("end", "reset")


# --- HTTP ---

BAD_HEADS = {
    "no-port": b"CONNECT 127.0.0.1 HTTP/1.1\r\n\r\n",
    "empty-port": b"CONNECT 127.0.0.1: HTTP/1.1\r\n\r\n",
    "port-0": b"CONNECT 127.0.0.1:0 HTTP/1.1\r\n\r\n",
    "port-65536": b"CONNECT 127.0.0.1:65536 HTTP/1.1\r\n\r\n",
    "port-word": b"CONNECT 127.0.0.1:http HTTP/1.1\r\n\r\n",
    "no-host": b"CONNECT :80 HTTP/1.1\r\n\r\n",
    "bare-ipv6": b"CONNECT ::1:80 HTTP/1.1\r\n\r\n",
    "no-target": b"CONNECT HTTP/1.1\r\n\r\n",
    "absolute-form": b"CONNECT http://127.0.0.1:80/ HTTP/1.1\r\n\r\n",
    "version-2": b"CONNECT 127.0.0.1:80 HTTP/2.0\r\n\r\n",
    "version-lower-case": b"CONNECT 127.0.0.1:80 http/1.1\r\n\r\n",
    "two-spaces": b"CONNECT  127.0.0.1:80 HTTP/1.1\r\n\r\n",
    "no-colon": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost\r\n\r\n",
    "space-before-colon": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost : x\r\n\r\n",
    "fold": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
    "nul": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nX: a\0b\r\n\r\n",
    "bare-cr": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nX: a\rb\r\n\r\n",
    "authorization-without-space": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nProxy-Authorization: Basic\r\n\r\n",
    "origin-form": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "https": b"GET https://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ftp": b"GET ftp://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "garbage": b"G\x01T http://localhost/ HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_http_400(shared, name):
    with wire.Client(shared().address) as client:
        client.send(BAD_HEADS[name])
        assert wire.status_of(client.read_all()) == (400, "Bad Request")


def test_http_head_of_256_fields_and_32767_octets(shared, origin):
    """The largest; what is larger is in test_http_heads.py."""
    target = origin()
    head = wire.http_connect("127.0.0.1", target.port, b"A: b\r\n" * 255 + b"X: \r\n")
    head = head.replace(b"X: ", b"X: " + b"x" * (32767 - len(head)))
    assert len(head) == 32767
    with wire.Client(shared().address) as client:
        client.send(head + b"payload")
        assert client.read_head() == wire.HTTP_ESTABLISHED
        assert client.read(7) == b"payload"


# --- time ---

def test_timeouts(shared, blackhole):
    """All kinds at once, because each of them costs the same five seconds."""
    proxy, nowhere = shared("-t", "5"), blackhole()
    dead = (nowhere.host, nowhere.port)
    cases = {
        "nothing said": (b"", b""),
        "SOCKS4, half a request": (b"\4\1\0", b""),
        "SOCKS5, half a greeting": (b"\5\2", b""),
        "SOCKS5, no request": (b"\5\1\0", b"\5\0"),
        "SOCKS5, half a request": (b"\5\1\0\5\1\0", b"\5\0"),
        "SOCKS5, half a password": (b"\5\1\2\1\5user", b"\5\2"),
        "SOCKS4, connecting": (wire.socks4(*dead), b""),
        "SOCKS5, connecting": (b"\5\1\0" + wire.socks5(*dead), b"\5\0" + wire.socks5_failure(6)),
        "HTTP, half a head": (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost", 408),
        "HTTP, connecting": (wire.http_connect(*dead), 504),
    }
    start = time.monotonic()
    clients = {name: wire.Client(proxy.address).send(said) for name, (said, _) in cases.items()}
    reason = {408: "Request Timeout", 504: "Gateway Timeout"}
    for name, (_, expected) in cases.items():
        heard = clients[name].read_all()
        if isinstance(expected, int):
            assert wire.status_of(heard) == (expected, reason[expected]), name
        else:
            assert heard == expected, name
        assert 4.5 < time.monotonic() - start < 30, name
        clients[name].close()


def test_slow_client_has_no_more_time_than_others(shared):
    """The limit counts from accept: an octet now and then does not extend it."""
    proxy = shared("-t", "5")
    with wire.Client(proxy.address) as client:
        request = wire.http_connect("127.0.0.1", 80, b"X: " + b"x" * 1000 + b"\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for i in range(400):  # 40 seconds at least
                client.send(request[i:i + 1])
                time.sleep(0.1)


# --- the answer arrives ---

REFUSALS = {
    "socks4": (wire.socks4("224.0.0.1", 80), wire.SOCKS4_REJECTED),
    "socks5": (SOCKS5_HELLO + wire.socks5("224.0.0.1", 80), b"\5\0" + wire.socks5_failure(2)),
    "socks5-method": (b"\5\1\1", b"\5\xff"),
    "socks5-password": (b"\5\1\2\1\0\0", b"\5\2\1\1"),
    "http": (wire.http_connect("224.0.0.1", 80), None),
    "http-400": (b"CONNECT x HTTP/1.1\r\n\r\n", None),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_is_readable_although_more_was_sent(shared, name):
    """A close with unread octets would reset the connection, and the answer with it."""
    request, expected = REFUSALS[name]
    with wire.Client(shared().address) as client:
        client.send(request + b"z" * 100000)
        time.sleep(0.1)  # a reset would have arrived by now
        heard = client.read_all()
        assert heard == expected if expected is not None else wire.status_of(heard)[0] in (400, 403)


def test_refused_client_that_never_closes_is_forgotten(shared):
    proxy = shared()
    with wire.Client(proxy.address) as client:
        client.send(wire.socks4("224.0.0.1", 80))
        assert client.read_all() == wire.SOCKS4_REJECTED
        assert proxy.flat()


def test_refused_client_that_sends_for_ever_is_forgotten(shared):
    proxy = shared()
    with wire.Client(proxy.address) as client:
        client.send(wire.socks4("224.0.0.1", 80))
        end = time.monotonic() + 30
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() < end:
                client.send(b"z" * 10000)
                time.sleep(0.01)
        assert proxy.flat()


# --- clients and upstreams that reset, at each stage ---

def messages(way, port):
    """What a client says, message by message, with the length of each answer."""
    if way == "socks4":
        return [(wire.socks4("127.0.0.1", port), 8)]
    if way == "http":
        return [(wire.http_connect("127.0.0.1", port), len(wire.HTTP_ESTABLISHED))]
    return [(b"\5\1\2", 2), (wire.socks5_auth(b"user", b"secret"), 2), (wire.socks5("127.0.0.1", port), 10)]


@pytest.mark.parametrize("way", ["socks4", "socks5", "http"])
@pytest.mark.parametrize("ending", ["close", "reset", "shut"])
def test_client_that_leaves_at_each_stage(shared, origin, way, ending):
    proxy, target = shared(), origin()
    for stage in range(len(messages(way, target.port)) + 1):
        for half in (False, True):
            client = wire.Client(proxy.address)
            for said, heard in messages(way, target.port)[:stage]:
                client.send(said)
                assert len(client.read(heard)) == heard
            rest = messages(way, target.port)[stage:]
            if half and rest:
                client.send(rest[0][0][:len(rest[0][0]) // 2])
            if ending == "shut":
                client.shut()
                assert client.read_all() == b""
                client.close()
            else:
                getattr(client, ending)()
    assert proxy.flat()
    with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
        client.send(b"x")
        assert client.read(1) == b"x"


def test_client_that_resets_while_we_connect(sluice, blackhole):
    proxy, nowhere = sluice("-t", "60"), blackhole()
    clients = [wire.Client(proxy.address).send(wire.socks4(nowhere.host, nowhere.port)) for _ in range(20)]
    assert process.wait_until(lambda: proxy.sockets() >= proxy.sockets_at_start + 40)  # both sides of each
    for client in clients:
        client.reset()
    assert proxy.flat()


def test_upstream_that_resets_at_once(shared, origin):
    """As soon as the client knows of it: a reset that comes before the worker has seen the connection is a refusal."""
    proxy, granted = shared(), threading.Semaphore(0)
    target = origin(lambda _origin, connection: granted.acquire(timeout=60) and origins.reset(connection))
    for way, tunnel in wire.WAYS.items():
        with tunnel(proxy.address, "127.0.0.1", target.port) as client:
            granted.release()
            assert client.ends_with() == "reset", way


def test_upstream_that_closes_at_once(shared, origin):
    proxy = shared()
    target = origin(lambda _origin, connection: None)
    for way, tunnel in wire.WAYS.items():
        with tunnel(proxy.address, "127.0.0.1", target.port) as client:
            assert client.ends_with() == "end", way


def test_client_that_resets_at_once_is_named_in_the_log(sluice):
    """A socket that was reset has no getpeername() any more; a program that locks sources out needs the name."""
    proxy = sluice("--loglevel", "5")
    proxy.stop()  # so that the reset is there when the octets are read
    client = wire.Client(proxy.address).send(b"\7")
    name = "{}:{}".format(*client.socket.getsockname())
    client.reset()
    proxy.signal(signal.SIGCONT)
    assert process.wait_until(lambda: "unknown protocol or version" in proxy.log()), proxy.log()
    assert f"{name}: unknown protocol or version" in proxy.log()


def name_answer(first, answer):
    """The kind of a refusal, its form asserted: nobody is told anything else, or in another protocol than its own."""
    if not answer:
        return "nothing"
    if first[:1] == b"\4":
        assert answer == wire.SOCKS4_REJECTED
        return "socks4"
    if first[:3] == b"\5\1\0":
        assert answer[:2] == b"\5\0" and (len(answer) == 2 or answer[2:4] in [bytes([5, code]) for code in range(1, 9)] and len(answer) == 12)
        return "socks5"
    if first[:1] == b"\5":
        assert answer[:2] == b"\5\2" and len(answer) <= 14
        return "password"
    if first:
        status = wire.status_of(answer)[0]
        assert status in (400, 403, 413, 414, 431, 501)
        return str(status)
    assert len(answer) < 2000 and not answer.startswith(b"HTTP/1.1 2")
    return "any"


def test_garbage_of_any_kind_harms_nobody(ruled, origin):
    """Random octets, short and long; a fixed seed makes a failure repeatable. Some of it names addresses: those of others
    are not dialled."""
    generator, target = random.Random(60), origin()
    proxy, _ = ruled("local function ours(a) return a:find('^127%.0%.0%.1:') and a end "
                     "return { resolve = ours, route = ours, route6 = ours }", "-t", "5")
    proxy.check_descriptors = False  # some of them are valid beginnings, and wait for more
    heard = set()
    for _ in range(300):
        first = generator.choice([b"", b"\4\1", b"\5\1\0\5\1\0", b"\5\1\2\1", b"GET ", b"CONNECT "])
        with wire.Client(proxy.address) as client:
            try:
                client.send(first + generator.randbytes(generator.randrange(1, 3000))).shut()
                heard.add(name_answer(first, client.read_all()))
            except (ConnectionResetError, BrokenPipeError):
                pass
    assert {"nothing", "socks5", "400"} <= heard
    with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
        client.send(b"x")
        assert client.read(1) == b"x"
