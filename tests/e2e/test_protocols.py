"""Every way in, octet by octet: replies, splits, early data, longest fields, listeners of each kind."""
import hashlib
import os
import socket

import pytest

import namespaces
import origins
import process
import wire

MESSAGE = b"a message that must come back"


def round_trip(client, message=MESSAGE):
    client.send(message)
    assert client.read(len(message)) == message


@pytest.mark.parametrize("way", wire.WAYS)
def test_tunnel(shared, origin, way):
    proxy, target = shared(), origin()
    with wire.WAYS[way](proxy.address, "127.0.0.1", target.port) as client:
        round_trip(client)
        client.shut()
        assert client.read_all() == b""
    assert target.result() == len(MESSAGE)


@pytest.mark.parametrize("way", ["socks4a", "socks5", "socks5-auth", "http"])
def test_name(shared, origin, way):
    proxy, target = shared(), origin()
    with wire.WAYS[way](proxy.address, "localhost", target.port) as client:
        round_trip(client)


@pytest.mark.parametrize("way", ["socks4a", "socks5", "http"])
def test_ipv6_target(shared, origin, way):
    proxy, target = shared(), origin(host="::1")
    with wire.WAYS[way](proxy.address, "::1", target.port) as client:
        round_trip(client)


@pytest.mark.parametrize("way", wire.WAYS)
def test_ipv6_listener(shared, origin, way):
    proxy, target = shared(listen="::1"), origin()
    with wire.WAYS[way](proxy.address, "127.0.0.1", target.port) as client:
        round_trip(client)


def test_wildcard_listener_takes_both_families(sluice, origin):
    port = process.free_port("::")
    sluice("-l", f"[::]:{port}", listen=None)
    target = origin()
    for host in ("::1", "127.0.0.1"):
        with wire.through_socks5((host, port), "127.0.0.1", target.port) as client:
            round_trip(client)


def test_socks5_reply_carries_the_address_of_the_outgoing_socket(shared, origin):
    proxy = shared()
    for host in ("127.0.0.1", "::1"):
        target = origin(host=host)
        client = wire.greet(wire.Client(proxy.address)).send(wire.socks5(host, target.port))
        reply = wire.read_socks5_reply(client)
        peer = target.wait("peers")[0]
        assert reply == (0, peer[0], peer[1])


@pytest.mark.parametrize("methods, answer", [
    (b"\0", 0), (b"\2", 2), (b"\0\2", 0), (b"\2\0", 2), (b"\1\0", 0), (b"\x80\1\2", 2), (bytes(range(255)), 0),
    (b"\1", 0xFF), (b"", 0xFF), (b"\xff", 0xFF)])
def test_socks5_method(shared, methods, answer):
    with wire.Client(shared().address) as client:
        client.send(bytes([5, len(methods)]) + methods)
        assert client.read(2) == bytes([5, answer])
        if answer == 0xFF:
            assert client.ends_with() == "end"


@pytest.mark.parametrize("user, password, answer", [
    (b"u", b"p", b"\1\0"), (b"u" * 255, b"p" * 255, b"\1\0"), (bytes(range(1, 256)), b"\xff", b"\1\0"),
    (b"", b"p", b"\1\1"), (b"u", b"", b"\1\1"), (b"", b"", b"\1\1")])
def test_socks5_password(shared, origin, user, password, answer):
    target = origin()
    with wire.Client(shared().address) as client:
        client.send(b"\5\1\2")
        assert client.read(2) == b"\5\2"
        client.send(wire.socks5_auth(user, password))
        assert client.read(2) == answer
        if answer[1]:
            assert client.ends_with() == "end"
        else:
            client.send(wire.socks5("127.0.0.1", target.port))
            assert wire.read_socks5_reply(client)[0] == 0
            round_trip(client)


def test_socks4_with_the_longest_user(shared, origin):
    target = origin()
    with wire.Client(shared().address) as client:
        client.send(wire.socks4("127.0.0.1", target.port, b"u" * 255))
        assert client.read(8) == wire.SOCKS4_GRANTED
        round_trip(client)


LONGEST_NAME = ".".join(["n" * 63] * 3 + ["n" * 61])  # 253 octets, the most that DNS knows


@pytest.mark.parametrize("way", ["socks4a", "socks5", "http"])
def test_longest_name(sluice, origin, way, dns):
    server = dns()
    server.add(LONGEST_NAME, "127.0.0.1")
    proxy, target = sluice("--nameserver", server.text), origin()
    with wire.WAYS[way](proxy.address, LONGEST_NAME, target.port) as client:
        round_trip(client)


@pytest.mark.parametrize("way", wire.WAYS)
def test_one_octet_at_a_time(shared, origin, way):
    proxy, target = shared(), origin()
    with wire.Client(proxy.address) as client:
        slow = SlowClient(client)
        slow.run(way, target.port)
        round_trip(client)


class SlowClient:
    """Says each message of a handshake octet by octet."""

    def __init__(self, client):
        self.client = client

    def run(self, way, port):
        say, hear = self.client.send_slowly, self.client.read
        if way == "socks4":
            say(wire.socks4("127.0.0.1", port, b"me"))
            assert hear(8) == wire.SOCKS4_GRANTED
        elif way == "socks4a":
            say(wire.socks4a("localhost", port, b"me"))
            assert hear(8) == wire.SOCKS4_GRANTED
        elif way == "http":
            say(wire.http_connect("127.0.0.1", port, b"Host: x\r\nUser-Agent: slow\r\n"))
            assert hear(len(wire.HTTP_ESTABLISHED)) == wire.HTTP_ESTABLISHED
        else:
            password = way == "socks5-auth"
            say(b"\5\1\2" if password else b"\5\1\0")
            assert hear(2) == (b"\5\2" if password else b"\5\0")
            if password:
                say(wire.socks5_auth(b"user", b"secret"))
                assert hear(2) == b"\1\0"
            say(wire.socks5("localhost", port))
            assert wire.read_socks5_reply(self.client)[0] == 0


def whole(way, port):
    """All that a client can say at once, and what it must hear; None stands for a SOCKS5 reply."""
    target = ("127.0.0.1", port)
    if way == "socks4":
        return wire.socks4(*target), [wire.SOCKS4_GRANTED]
    if way == "socks4a":
        return wire.socks4a(*target), [wire.SOCKS4_GRANTED]
    if way == "http":
        return wire.http_connect(*target), [wire.HTTP_ESTABLISHED]
    if way == "socks5":
        return b"\5\1\0" + wire.socks5(*target), [b"\5\0", None]
    return b"\5\1\2" + wire.socks5_auth(b"user", b"secret") + wire.socks5(*target), [b"\5\2", b"\1\0", None]


@pytest.mark.parametrize("early", [1, 1000, 200000])
@pytest.mark.parametrize("way", wire.WAYS)
def test_early_data(shared, origin, way, early):
    """Handshake and payload in one go: the payload reaches the upstream, first and complete."""
    proxy, target = shared(), origin(origins.digest)
    payload = os.urandom(early)
    request, replies = whole(way, target.port)
    with wire.Client(proxy.address) as client:
        client.send(request + payload)
        for reply in replies:
            if reply is None:
                assert wire.read_socks5_reply(client)[0] == 0
            else:
                assert client.read(len(reply)) == reply
        client.shut()
        assert client.read_all().decode() == hashlib.sha256(payload).hexdigest()


@pytest.mark.parametrize("way", wire.WAYS)
def test_early_end(shared, origin, way):
    """A client that says everything and shuts its side at once still gets its answer."""
    proxy, target = shared(), origin(origins.digest)
    request, replies = whole(way, target.port)
    with wire.Client(proxy.address) as client:
        client.send(request + b"payload").shut()
        for reply in replies:
            if reply is None:
                assert wire.read_socks5_reply(client)[0] == 0
            else:
                assert client.read(len(reply)) == reply
        assert client.read_all().decode() == hashlib.sha256(b"payload").hexdigest()


def test_server_speaks_first(shared, origin):
    def banner(_origin, connection):
        connection.sendall(b"220 welcome\r\n")
        return origins.collect(_origin, connection)

    target = origin(banner)
    proxy = shared()
    for way, tunnel in wire.WAYS.items():
        with tunnel(proxy.address, "127.0.0.1", target.port) as client:
            assert client.read(13) == b"220 welcome\r\n", way


def test_http_connect_takes_any_fields(shared, origin):
    target = origin()
    fields = b"Host: elsewhere:1\r\nProxy-Connection: keep-alive\r\n" + wire.basic(b"user", b"pass:word") + b"X: y\r\n"
    with wire.Client(shared().address) as client:
        client.send(wire.http_connect("127.0.0.1", target.port, fields))
        assert client.read_head() == wire.HTTP_ESTABLISHED
        round_trip(client)


def test_http_connect_of_version_1_0(shared, origin):
    target = origin()
    with wire.Client(shared().address) as client:
        client.send(b"CONNECT 127.0.0.1:%d HTTP/1.0\r\n\r\n" % target.port)
        assert client.read_head() == wire.HTTP_ESTABLISHED
        round_trip(client)


def test_unix_listener_and_forward(sluice, origin, tmp_path):
    inside, outside = str(tmp_path / "origin"), str(tmp_path / "proxy")
    target = origin(path=inside)
    proxy = sluice("-l", f"unix:{outside}", "-f", f"unix:{inside}", listen=None)
    with wire.Client(outside) as client:
        round_trip(client)
        client.shut()
        assert client.read_all() == b""
    assert target.result() == len(MESSAGE)
    proxy.signal(15)
    assert proxy.wait() == 0
    assert not os.path.exists(outside)


def test_unix_listener_speaks_all_protocols(sluice, origin, tmp_path):
    path = str(tmp_path / "proxy")
    target = origin()
    sluice("-l", f"unix:{path}", listen=None)
    for tunnel in wire.WAYS.values():
        with tunnel(path, "127.0.0.1", target.port) as client:
            round_trip(client)


def test_unix_listener_replaces_what_a_crash_left(sluice, origin, tmp_path):
    path = str(tmp_path / "proxy")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    target = origin()
    sluice("-l", f"unix:{path}", listen=None)
    with wire.through_socks5(path, "127.0.0.1", target.port) as client:
        round_trip(client)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_forward(sluice, origin, host):
    target = origin(host="127.0.0.1" if host == "localhost" else host)
    proxy = sluice("-f", f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}")
    with wire.Client(proxy.address) as client:
        round_trip(client)


def test_forward_hands_on_the_first_octets_whatever_they_are(sluice, origin):
    target = origin()
    proxy = sluice("-f", f"127.0.0.1:{target.port}")
    with wire.Client(proxy.address) as client:
        round_trip(client, b"\5\1\0" + b"\4\1" + b"GET / HTTP/1.1\r\n\r\n")


def test_several_listeners(sluice, origin):
    """SOCKS and HTTP on one port, HTTP alone on another, a forward on the third."""
    target = origin()
    http, forward = process.free_port(), process.free_port()
    proxy = sluice("--http", f"127.0.0.1:{http}", "-l", f"127.0.0.1:{forward}", "-f", f"127.0.0.1:{target.port}")
    with wire.through_socks4(proxy.address, "127.0.0.1", target.port) as client:
        round_trip(client)
    with wire.through_http(("127.0.0.1", http), "127.0.0.1", target.port) as client:
        round_trip(client)
    with wire.Client(("127.0.0.1", forward)) as client:
        round_trip(client)
    with wire.Client(("127.0.0.1", http)) as client:  # no SOCKS there
        client.send(b"\5\1\0")
        assert client.ends_with() in ("end", "reset")


def test_bare_http_turns_the_listener_into_one_for_http(shared, origin):
    target = origin()
    proxy = shared("--http")
    with wire.through_http(proxy.address, "127.0.0.1", target.port) as client:
        round_trip(client)
    with wire.Client(proxy.address) as client:
        client.send(wire.socks4("127.0.0.1", target.port))
        assert client.ends_with() in ("end", "reset")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers(sluice, origin, workers):
    proxy, target = sluice("--workers", workers), origin()
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(40)]
    for client in clients:
        round_trip(client)
    assert sum(name.startswith("worker-") for name in proxy.threads("comm")) == workers
    for client in clients:
        client.close()


def test_netdev(shared, origin):
    target = origin()
    proxy = shared("-i", "lo")
    with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
        round_trip(client)


def test_netdev_chooses_the_way(sluice, origin, namespace, tmp_path):
    """Two cables to two servers of the same address: the interface decides which of them is meant."""
    here = namespace("h")
    for number in (1, 2):
        there = namespace("t")
        namespaces.connect(here, f"out{number}", there, "in")
        here.ip("addr", "add", f"10.92.0.{number}/24", "dev", f"out{number}")
        there.ip("addr", "add", "10.92.0.9/24", "dev", "in")
        there.call(origin, lambda _origin, connection, name=b"%d" % number: connection.sendall(name), host="10.92.0.9",
                   port=1234)
    for number in (1, 2):
        path = str(tmp_path / f"proxy{number}")
        sluice("-l", f"unix:{path}", "-i", f"out{number}", listen=None, prefix=here.prefix)
        with wire.through_socks5(path, "10.92.0.9", 1234) as client:
            assert client.read_all() == b"%d" % number


def test_netdev_that_is_not_there_is_not_left_out(sluice, origin):
    """Nothing leaves by another interface."""
    target = origin()
    proxy = sluice("-i", "nosuch0")
    with wire.greet(wire.Client(proxy.address)).send(wire.socks5("127.0.0.1", target.port)) as client:
        assert wire.read_socks5_reply(client)[0] == 1
    assert not target.peers
    assert proxy.says("nosuch0") and "\nW " in "\n" + proxy.log()


def test_fast_open(sluice, origin):
    """Data in the SYN, towards the client and towards the upstream, where the kernel allows it."""
    target = origin()
    second = sluice()
    proxy = sluice("--fastopen-connect", "-x", f"socks5://{second.url}")
    for _ in range(5):
        client = wire.Client.__new__(wire.Client)
        client.socket = socket.socket()
        client.socket.sendto(wire.socks4("127.0.0.1", target.port), socket.MSG_FASTOPEN, proxy.address)
        client.socket.settimeout(15)
        with client:
            assert client.read(8) == wire.SOCKS4_GRANTED
            round_trip(client)
