"""Every figure of /metrics and of /stats?format=json against loads that were counted by the test itself (counters.py).

Each step is one thing that a client, a peer or the API may do; behind it all samples are compared, those that it should not have moved
as well. The octets of a step differ from each other, so that no two counters can be exchanged unnoticed."""
import json
import re
import signal
import threading

import pytest

import counters
import origins
import process
import wire
from test_chains import CHAIN_ANSWERS, CHAIN_URIS, scripted
from test_groups import proxies
from test_proxy_protocol import LOCAL, WRONG, is_reset, v1, v2
from test_udp import Association, Target

UP, DOWN = 300, 7000  # octets of a conversation


def talker(_origin, connection):
    """Reads what a client says, answers with more than that, and waits for its end."""
    heard = b""
    while len(heard) < UP:
        heard += connection.recv(UP - len(heard))
    connection.sendall(bytes(DOWN))
    return connection.recv(1) == b""


def is_over(connection):
    """Waits for the end, or the reset, of a connection on which nothing comes."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def talk(client):
    client.send(bytes(UP))
    assert client.read(DOWN) == bytes(DOWN)
    client.shut()
    assert client.read_all() == b""
    client.close()


@pytest.fixture
def metered(sluice, tmp_path):
    """metered(*options): a sluice of one worker whose API is on a Unix socket, and its meter."""
    count = []

    def start(*options, **more):
        count.append(1)
        path = str(tmp_path / f"api{len(count)}")
        proxy = sluice("--workers", "1", "--api", f"unix:{path}", *options, **more)
        return counters.Meter(proxy, path)

    return start


def established(handshake_in, handshake_out, up=UP, down=DOWN, **more):
    return dict(accepted=1, requests=1, established=1, connected=1, peak=1, handshake_in=handshake_in, handshake_out=handshake_out, up=up,
                down=down, **more)


def refused(label, handshake_in, handshake_out, requests=1, **more):
    return {"accepted": 1, "requests": requests, "fail_" + label: 1, "peak": 1, "handshake_in": handshake_in, "handshake_out": handshake_out,
            **more}


def exchange(meter, *lines):
    """Says each line, reads so many octets behind it (None: all until the end); (octets said, octets heard)."""
    said = heard = 0
    with wire.Client(meter.proxy.address) as client:
        for line, size in lines:
            client.send(line)
            said += len(line)
            answer = client.read_all() if size is None else client.read(size)
            heard += len(answer)
            assert size in (None, len(answer)), answer
    return said, heard


def is_over_in(meter):
    """Waits until no session is left, and looks once more: nothing moves any more then."""
    assert process.wait_until(lambda: not meter.look() or meter.metrics["sluice_sessions{state=\"established\"}"] == 0)
    meter.look()


def read_json(meter):
    status, text, _ = meter.ask("GET", "/stats?format=json")
    assert status == 200
    return json.loads(text)


# --- connections that are made ---

def test_each_protocol(metered, origin, dns):
    """The octets of requests and replies are those of the RFCs: 9 and 8 for SOCKS4, and so on."""
    server = dns()
    server.add("name.example", "127.0.0.1")
    target, web = origin(talker), origin(origins.pages)
    forwarded = process.free_port()
    meter = metered("--relay", "copy", "--nameserver", server.text, "-l", f"127.0.0.1:{forwarded}", "-f", f"127.0.0.1:{target.port}")
    address, port = meter.proxy.address, target.port
    meter.check()
    talk(wire.through_socks4(address, "127.0.0.1", port))
    meter.check(**established(9, 8))
    talk(wire.through_socks5(address, "127.0.0.1", port))
    meter.check(**established(3 + 10, 2 + 10))
    talk(wire.through_socks5_auth(address, "127.0.0.1", port))
    meter.check(**established(3 + 13 + 10, 2 + 2 + 10))
    talk(wire.through_http(address, "127.0.0.1", port))
    meter.check(**established(len(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n"), len(wire.HTTP_ESTABLISHED)))
    talk(wire.Client(("127.0.0.1", forwarded)))
    meter.check(**established(0, 0))
    with wire.Client(address) as client:
        request = b"GET http://127.0.0.1:%d/page HTTP/1.1\r\nConnection: close\r\nX-Long: %s\r\n\r\n" % (web.port, b"x" * 100)
        answer = client.send(request).read_all()
    assert answer.startswith(b"HTTP/1.1 200")
    meter.check(**established(len(request), 0, len(web.result()), len(answer)), conns_opened=1)
    # Names: asked, from the cache, an address in the shape of a name, the list of hosts.
    talk(wire.through_socks4a(address, "name.example", port))
    meter.check(**established(9 + len("someone") + len("name.example") + 1, 8), names_asked=1, names_found=1)
    assert read_json(meter)["dns"]["cached"] == 1
    talk(wire.through_socks5(address, b"name.example", port))
    meter.check(**established(3 + 7 + len("name.example"), 2 + 10), names_cached=1, names_found=1)
    talk(wire.through_http(address, "localhost", port))
    meter.check(**established(len(f"CONNECT localhost:{port} HTTP/1.1\r\n\r\n"), len(wire.HTTP_ESTABLISHED)), names_local=1, names_found=1)
    server.forged.add("forged.example")
    server.add("forged.example", "127.0.0.1")
    talk(wire.through_socks5(address, b"forged.example", port))
    meter.check(**established(3 + 7 + len("forged.example"), 2 + 10), names_asked=1, names_found=1, names_mismatched=2)
    # What comes with the request, and several at a time.
    client = wire.Client(address).send(wire.socks4("127.0.0.1", port) + bytes(UP))
    assert client.read(8 + DOWN) == wire.SOCKS4_GRANTED + bytes(DOWN)
    client.close()
    meter.check(**established(9 + UP, 8))
    clients = [wire.through_socks5(address, "127.0.0.1", port) for _ in range(2)] + [wire.greet(wire.Client(address))]
    meter.tally.update(active=2, half_open=1)
    meter.check(accepted=3, requests=2, established=2, connected=2, peak=3, handshake_in=2 * 13 + 3, handshake_out=2 * 12 + 2)
    for client in clients[:2]:
        talk(client)
    clients[2].close()
    meter.tally.subtract(active=2, half_open=1)
    meter.check(up=2 * UP, down=2 * DOWN, fail_peer=1)


def test_splice(metered, origin):
    """With --relay splice all octets but those that came with the request go by that path."""
    target = origin(talker)
    meter = metered("--relay", "splice")
    talk(wire.through_socks5(meter.proxy.address, "127.0.0.1", target.port))
    meter.check(**established(13, 12), splice=UP + DOWN, to_splice=2)
    client = wire.Client(meter.proxy.address).send(wire.socks4("127.0.0.1", target.port) + bytes(100))
    assert client.read(8) == wire.SOCKS4_GRANTED
    client.send(bytes(UP - 100))
    assert client.read(DOWN) == bytes(DOWN)
    client.close()
    meter.check(**established(109, 8), splice=UP - 100 + DOWN, to_splice=2)


def test_bulk(metered, origin):
    """Which path an octet takes depends on the moment; all of them are counted, each once."""
    size = 30 << 20
    target = origin(origins.digest)
    meter = metered()
    with wire.through_socks5(meter.proxy.address, "127.0.0.1", target.port) as client:
        client.send(bytes(size)).shut()
        assert len(client.read_all()) == 64
    is_over_in(meter)
    spliced = meter.metrics['sluice_relay_bytes_total{worker="0",path="splice"}']
    turned = [meter.metrics[f'sluice_to_{path}_total{{worker="0"}}'] for path in ("splice", "copy")]
    assert size / 2 < spliced <= size and turned[0] - 1 <= turned[1] <= turned[0] and turned[0] > 0
    meter.check(**established(13, 12, size, 64), splice=spliced, to_splice=turned[0], to_copy=turned[1])


@pytest.mark.parametrize("way, framing", [("up", "length"), ("up", "one-chunk"), ("down", "length"), ("down", "one-chunk"),
                                          ("down", "end")])
def test_bulk_of_plain_http(metered, origin, way, framing):
    """Large bodies are spliced as a tunnel's octets are, between heads, chunk sizes and ends that are copied."""
    size = 30 << 20
    content = bytes(range(256)) * (size // 256)
    field = {"length": b"Content-Length: %d\r\n" % size, "one-chunk": b"Transfer-Encoding: chunked\r\n", "end": b""}[framing]
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, content) if framing == "one-chunk" else content
    # What is passed on is framed anew: the first chunk is what came with its size, the rest of it another one.
    heard = []

    def serve(_origin, connection):
        got = origins.read_http_head(connection)
        while way == "up" and not (got.endswith(b"\r\n0\r\n\r\n") if framing == "one-chunk" else got.endswith(content[-65536:])
                                   and len(got) > size):
            got += connection.recv(1 << 20)
        heard.append(got)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (field + b"\r\n" + body if way == "down" else b"Content-Length: 2\r\n\r\nok"))
        return b""

    target, meter = origin(serve), metered()
    request = b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n" % target.port
    request += field + b"\r\n" + body if way == "up" else b"\r\n"
    with wire.Client(meter.proxy.address) as client:
        answer = client.send(request).read_all()
    assert len(heard) == 1
    moved = {"up": heard[0], "down": answer}[way]
    if framing != "one-chunk":
        assert moved.endswith(b"\r\n\r\n" + content)
    is_over_in(meter)
    spliced = meter.metrics['sluice_relay_bytes_total{worker="0",path="splice"}']
    turned = [meter.metrics[f'sluice_to_{path}_total{{worker="0"}}'] for path in ("splice", "copy")]
    assert size / 2 < spliced <= size and turned[0] > 0
    early = meter.metrics['neosocksd_protocol_bytes_total{direction="rx",module="proxy_server"}']
    meter.check(**established(early, 0, len(heard[0]), len(answer)), splice=spliced, to_splice=turned[0], to_copy=turned[1], conns_opened=1)


def test_requests_on_one_connection(metered, origin):
    """Each counts as a request of its own, however it came; the client was accepted once, and is one session all the time."""
    def serve(_origin, connection):
        heard = origins.read_http_head(connection)
        while heard.startswith(b"POST ") and not heard.endswith(b"12345"):
            heard += connection.recv(100)
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\npage")
        return heard

    web, meter = origin(serve), metered("--relay", "copy")
    one = b"GET http://127.0.0.1:%d/page HTTP/1.1\r\nX: %s\r\n\r\n" % (web.port, b"x" * 50)
    posted = b"POST http://127.0.0.1:%d/page HTTP/1.1\r\nContent-Length: 5\r\n\r\n" % web.port
    with wire.Client(meter.proxy.address) as client:
        answer = client.send(one).read_head() + client.read(4)
        meter.tally.update(active=1)
        up, down = len(web.result()), len(answer)
        meter.check(**established(len(one), 0, up, down), conns_opened=1)
        client.send(one + one)  # the second of these is received with the first
        assert client.read(2 * down) == 2 * answer
        meter.check(requests=2, established=2, connected=2, handshake_in=2 * len(one), up=2 * up, down=2 * down,
                    conns_opened=2)
        # What comes behind a body is the next request, and counted as such, though it is received with the body.
        client.send(posted + b"12345" + one)
        assert client.read(2 * down) == 2 * answer
        heard = next(len(each) for each in web.wait("results", 5) if each.startswith(b"POST "))
        meter.check(requests=2, established=2, connected=2, handshake_in=len(posted) + 5 + len(one), up=heard + up, down=2 * down,
                    conns_opened=2)
        # The same where the body comes by itself.
        client.send(posted)
        meter.check(requests=1, established=1, connected=1, handshake_in=len(posted), up=heard - 5, conns_opened=1)
        client.send(b"12345" + one)
        assert client.read(2 * down) == 2 * answer
        meter.check(requests=1, established=1, connected=1, handshake_in=len(one), up=5 + up, down=2 * down, conns_opened=1)
    meter.tally.subtract(active=1)
    meter.check()


def test_connections_that_are_used_again(metered, origin):
    """Opened, taken again, found to have ended; those that wait are a gauge, and one too many is given up."""
    most = 32  # wait for the same target
    ends, held = threading.Event(), threading.Barrier(most + 1)

    def serve(one, connection):
        number, heard = one.connections.index(connection), 0
        while head := origins.read_http_head(connection):
            heard += len(head)
            if b"/held" in head:
                held.wait(30)
            if b"/end" in head and number == 0 and not ends.is_set():
                ends.set()
                return heard
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
        return heard

    def said(path):
        return b"GET http://127.0.0.1:%d%s HTTP/1.1\r\n\r\n" % (web.port, path)

    def passed(path, count=1):
        return dict(requests=count, established=count, handshake_in=count * len(said(path)), down=count * down,
                    up=count * len(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nVia: 1.1 neosocksd\r\n\r\n" % (path, web.port)))

    web, meter = origin(serve), metered("--relay", "copy")
    with wire.Client(meter.proxy.address) as client:
        down = len(client.send(said(b"/1")).read_head() + client.read(4))
        meter.tally.update(active=1, conns_idle=1)
        meter.check(accepted=1, connected=1, peak=1, conns_opened=1, **passed(b"/1"))
        client.send(said(b"/2") + said(b"/2")).read(2 * down)
        meter.check(conns_reused=2, **passed(b"/2", 2))
        once = passed(b"/end")
        client.send(said(b"/end")).read(down)
        meter.check(conns_reused=1, conns_stale=1, conns_opened=1, connected=1, **{**once, "up": 2 * once["up"]})
    meter.tally.subtract(active=1)
    meter.check()
    clients = [wire.Client(meter.proxy.address).send(said(b"/held")) for _ in range(most + 1)]
    for client in clients:
        client.read(down)
        client.close()
    meter.tally.update(conns_idle=most - 1)
    meter.check(accepted=most + 1, connected=most, peak=most + 1, conns_opened=most, conns_reused=1, conns_evicted=1,
                **passed(b"/held", most + 1))
    web.close()
    meter.tally.subtract(conns_idle=most)
    meter.check()


def test_bind(metered):
    meter = metered("--relay", "copy", "--enable-socks5-bind")
    client = wire.greet(wire.Client(meter.proxy.address)).send(wire.socks5("127.0.0.1", 0, 2))
    code, host, port = wire.read_socks5_reply(client)
    assert code == 0
    meter.tally.update(half_open=1)
    meter.check(accepted=1, requests=1, peak=1, handshake_in=13, handshake_out=2 + 10)
    peer = wire.Client((host, port))
    assert wire.read_socks5_reply(client)[0] == 0
    client.send(bytes(20))
    assert peer.read(20) == bytes(20)
    peer.send(bytes(3000))
    assert client.read(3000) == bytes(3000)
    meter.tally.subtract(half_open=1)
    meter.tally.update(active=1)
    meter.check(established=1, handshake_out=10, up=20, down=3000)
    client.close()
    peer.close()
    meter.tally.subtract(active=1)
    meter.check()


def test_udp(metered):
    """Datagrams and their payload, without the header of SOCKS; what is no datagram of anybody's is dropped."""
    target = Target()
    meter = metered("--enable-socks5-udp")
    with Association(meter.proxy) as client:
        meter.tally.update(active=1)
        meter.check(accepted=1, requests=1, established=1, peak=1, handshake_in=13, handshake_out=12)
        for size in [5, 60, 700]:
            client.send(bytes(size), target.host, target.port)
            assert client.receive()[0] == bytes(size)
        meter.check(up=765, down=765, datagrams_up=3, datagrams_down=3)
        target.answers = False
        client.send(bytes(1000), target.host, target.port)
        meter.check(up=1000, datagrams_up=1)
        for _ in range(2):
            target.socket.sendto(bytes(40), target.seen[0][1])
            assert client.receive()[0] == bytes(40)
        meter.check(down=80, datagrams_down=2)
        client.send(b"piece", target.host, target.port, fragment=1)
        client.raw(b"\0\0")
        client.send(b"nobody", "224.0.0.1", 9)
        meter.check(datagrams_dropped=3)
    meter.tally.subtract(active=1)
    meter.check()
    target.close()


# --- connections that are not made ---

def bad_requests(own_port):
    """(label, whether the request was understood, octets said and heard in turn)."""
    hello = (b"\5\1\0", 2)
    return [
        ("version", 0, [(b"\x16\3\1\0", None)]),
        ("syntax", 0, [(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None)]),
        ("too_large", 0, [(b"POST http://127.0.0.1:9/ HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n\r\n", None)]),
        ("line_too_long", 0, [(b"CONNECT " + b"p" * 40_000, None)]),
        ("head_too_large", 0, [(b"GET http://127.0.0.1:9/ HTTP/1.1\r\n" + b"a: b\r\n" * 257 + b"\r\n", None)]),
        ("auth_method", 0, [(b"\5\1\1", None)]),
        ("auth", 0, [(b"\5\1\2", 2), (b"\1\0\0", None)]),
        ("command", 0, [hello, (wire.socks5("127.0.0.1", 9, 9), None)]),
        ("command", 0, [hello, (wire.socks5("127.0.0.1", 9, 2), None)]),
        ("address_type", 0, [hello, (b"\5\1\0\2\x7f\0\0\1\0\x50", None)]),
        ("blocked", 1, [(wire.socks4("224.0.0.1", 9), None)]),
        ("target_denied", 1, [hello, (wire.socks5("192.0.2.99", 9), None)]),
        ("self", 1, [hello, (wire.socks5("127.0.0.1", own_port), None)]),
        ("resolve", 1, [hello, (wire.socks5(b"a b", 9), None)]),
        ("peer", 0, [(b"\5\1\0", 2)]),
    ]


def test_requests_that_are_refused(metered, dns, tmp_path):
    meter = metered("--nameserver", dns().text, "-l", f"unix:{tmp_path}/forward", "-f", f"unix:{tmp_path}/nobody",
                    "--deny-target", "192.0.2.99", "--deny-client", "127.9.9.9")
    with pytest.raises(ConnectionResetError):
        with wire.Client(meter.proxy.address, source=("127.9.9.9", 0)) as client:
            client.socket.recv(1)
    meter.check(fail_client_denied=1)
    for label, requests, lines in bad_requests(meter.proxy.port):
        said, heard = exchange(meter, *lines)
        meter.check(**refused(label, said, heard, requests))
    said, heard = exchange(meter, (wire.http_connect("127.0.0.1", process.free_port()), None))
    meter.check(**refused("refused", said, heard))
    with wire.Client(f"{tmp_path}/forward") as client:
        assert client.ends_with() in ("end", "reset")
    meter.check(**refused("connect", 0, 0))
    said, heard = exchange(meter, (wire.socks4a("nowhere.example", 9), None))
    meter.check(**refused("resolve", said, heard), names_asked=1, names_failed=1)
    said, heard = exchange(meter, (wire.socks4a("nowhere.example", 9), None))
    meter.check(**refused("resolve", said, heard), names_cached=1, names_failed=1)


def test_passwords_that_wait(metered, tmp_path):
    """One source at once has a bounded line of them; how many of it had been hashed before the last one came is the machine's."""
    from test_users import SLOW, hashed
    (tmp_path / "users").write_text(f"alice:{hashed(b'right', SLOW)}\n")
    meter, count = metered("--users", tmp_path / "users"), 200
    clients = [wire.Client(meter.proxy.address) for _ in range(count)]
    assert all(client.send(b"\5\1\2").read(2) == b"\5\2" for client in clients)
    said = wire.socks5_auth(b"alice", b"wrong")
    for client in clients:
        client.send(said)
    assert all(client.read_all() == b"\1\1" for client in clients)
    for client in clients:
        client.close()
    busy = read_json(meter)["failures"]["auth_busy"]
    assert 0 < busy <= count - 64
    meter.check(accepted=count, peak=count, fail_auth=count - busy, fail_auth_busy=busy, handshake_in=count * (3 + len(said)),
                handshake_out=count * 4, passwords_wrong=count - busy, passwords_busy=busy)


def test_passwords(metered, tmp_path):
    """A hash is made for a pair that nobody has verified; what is remembered outlives a change of what is not the password."""
    from test_users import hashed
    (tmp_path / "users").write_text(f"alice:{hashed(b'right')}\nbob:*\n")
    meter = metered("--users", tmp_path / "users")
    for user, password, outcome in [(b"alice", b"right", "right"), (b"alice", b"right", "remembered"), (b"alice", b"wrong", "wrong"),
                                    (b"alice", b"wrong", "wrong"), (b"bob", b"right", "unknown"), (b"carol", b"right", "unknown")]:
        good = outcome in ("right", "remembered")
        said, heard = exchange(meter, (b"\5\1\2", 2), (wire.socks5_auth(user, password), 2 if good else None))
        meter.check(**refused("peer" if good else "auth", said, heard, 0), **{"passwords_" + outcome: 1})
    (tmp_path / "users").write_text(f"alice:{hashed(b'right')}:staff\n")  # the worker's memory is of another era now, that of the store is not
    before = meter.proxy.log().count("1 users of")
    meter.proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: meter.proxy.log().count("1 users of") > before)
    for _ in range(2):
        said, heard = exchange(meter, (b"\5\1\2", 2), (wire.socks5_auth(b"alice", b"right"), 2))
        meter.check(**refused("peer", said, heard, 0), passwords_remembered=1)


def test_a_chain_that_leads_back(metered, dns):
    server, port = dns(), process.free_port()
    server.add("round.example", "127.0.0.1")
    meter = metered("--nameserver", server.text, "-l", f"127.0.0.1:{port}", "-x", f"socks5://round.example:{port}", listen=None)
    meter.proxy.address = ("127.0.0.1", port)
    said, heard = exchange(meter, (b"\5\1\0", 2), (wire.socks5("192.0.2.1", 80), None))
    meter.check(**refused("loop", said, heard), names_asked=1, names_found=1)


def test_routes_that_are_not_there(metered, namespace):
    net = namespace()
    net.ip("addr", "add", "10.7.0.1/24", "dev", "lo")
    net.ip("route", "add", "unreachable", "10.7.1.0/24")
    net.ip("route", "add", "prohibit", "10.7.2.0/24")
    meter = metered(prefix=net.prefix)
    for label, host in [("network_unreachable", "203.0.113.1"), ("host_unreachable", "10.7.1.1"), ("denied", "10.7.2.1")]:
        with net.call(wire.Client, meter.proxy.address) as client:
            assert client.send(wire.socks4(host, 80)).read_all() == wire.SOCKS4_REJECTED
        meter.check(**refused(label, 9, 8))


def test_time(metered, dns, blackhole, origin):
    """All that waits for the same five seconds, side by side; two ask for one name."""
    server, nowhere = dns(), blackhole()
    server.silent.add("silent.example")
    mute = origin(lambda _, connection: origins.read_http_head(connection) + (b"" if is_over(connection) else b"?"))
    meter = metered("-t", "5", "--nameserver", server.text)
    requests = [(b"\4\1", "handshake_timeout", 0), (wire.socks4(nowhere.host, nowhere.port), "connect_timeout", 1),
                (wire.socks4a("silent.example", 9), "resolve_timeout", 1), (wire.socks4a("silent.example", 9), "resolve_timeout", 1),
                (b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n\r\n" % mute.port, "response_timeout", 1)]
    clients = [wire.Client(meter.proxy.address).send(said) for said, _, _ in requests]
    heard = [client.read_all() for client in clients]
    for client in clients:
        client.close()
    for (said, label, understood), octets in zip(requests, heard):
        meter.tally.update(refused(label, len(said), len(octets), understood, peak=0))
    meter.check(peak=5, names_asked=1, names_joined=1, names_failed=2, names_timed_out=2, established=1, connected=1, up=len(mute.result()),
                conns_opened=1)


def test_answers_of_web_servers(metered, origin):
    """The request was delivered, and a refusal of ours takes the place of the answer."""
    answers = {"upstream_response": b"HTTP/1.1 2 what\r\n\r\n", "response_too_large": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
               "response_incomplete": b"HTTP/1.1 200 OK\r\nCont"}
    meter = metered()
    for label, answer in answers.items():
        def serve(_origin, connection, answer=answer):
            head = origins.read_http_head(connection)
            try:
                connection.sendall(answer)
            except OSError:
                pass  # it has read enough
            return head

        web = origin(serve)
        request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\n\r\n" % web.port
        with wire.Client(meter.proxy.address) as client:
            heard = client.send(request).read_all()
        assert b" 502 " in heard[:20]
        meter.check(**established(len(request), len(heard), len(web.result()), 0), **{"fail_" + label: 1}, conns_opened=1)


def test_limits(metered, origin):
    """Connections that are reset at once, for each reason; none of them is one that was served."""
    target = origin(talker)
    meter = metered("-m", "3", "--max-startups", "2:100:3")
    clients = [wire.greet(wire.Client(meter.proxy.address)) for _ in range(2)]
    meter.tally.update(half_open=2)
    assert is_reset(meter.proxy.address, b"")
    meter.check(accepted=2, peak=2, handshake_in=6, handshake_out=4, refused_startups=1)
    for client in clients:
        client.send(wire.socks5("127.0.0.1", target.port))
        assert wire.read_socks5_reply(client)[0] == 0
    clients.append(wire.through_socks5(meter.proxy.address, "127.0.0.1", target.port))
    meter.tally.update(half_open=-2, active=3)
    assert is_reset(meter.proxy.address, b"") and is_reset(meter.proxy.address, b"")
    meter.check(accepted=1, requests=3, established=3, connected=3, peak=3, handshake_in=33, handshake_out=32, refused_sessions=2)
    for client in clients:
        talk(client)
    meter.tally.update(active=-3)
    meter.check(up=3 * UP, down=3 * DOWN)


def test_sessions_that_are_cut_off(metered, origin):
    """They were served first, and what has ended them before their time is counted besides."""
    def obey(_origin, connection):
        if connection.recv(1) == b"r":
            origins.reset(connection)
        return origins.KEEP

    target = origin(obey)
    meter = metered("--idle-timeout", "2", "--half-close-timeout", "1", "--enable-socks5-udp")
    address, port = meter.proxy.address, target.port

    def cut(label, end, up=0):
        client = wire.through_socks5(address, "127.0.0.1", port)
        end(client)
        meter.check(**established(13, 12, up, 0), **{"fail_" + label: 1})
        client.close()

    def delete(client):
        session, = json.loads(meter.ask("GET", "/sessions")[1])["sessions"]
        assert meter.ask("DELETE", f"/sessions/{session['id']}")[0] == 204
        assert client.ends_with() == "reset"

    cut("client_reset", lambda client: client.reset())
    cut("target_reset", lambda client: client.send(b"r").ends_with(), up=1)
    cut("killed", delete)
    cut("idle_timeout", lambda client: client.ends_with())
    cut("half_close_timeout", lambda client: client.shut().ends_with())
    association = Association(meter.proxy)
    association.control.reset()
    meter.check(**{**established(13, 12, 0, 0), "connected": 0}, fail_client_reset=1)


def enters(meter, source, clients, header=b""):
    """Whether a client gets an answer to its greeting, behind a PROXY header or without one; it is kept."""
    try:
        client = wire.Client(meter.proxy.address, source=(source, 0)).send(header + b"\5\1\0")
        if client.read(2) == b"\5\0":
            clients.append(client)
            return True
    except (ConnectionResetError, BrokenPipeError):
        pass
    return False


def close_all(clients):
    for client in clients:
        client.close()


def test_share_of_a_source(metered):
    meter, clients = metered("-m", "300"), []
    while enters(meter, "127.0.0.1", clients):
        pass
    count = len(clients)
    assert 100 <= count <= 200
    meter.tally.update(half_open=count)
    meter.check(accepted=count, peak=count, handshake_in=3 * count, handshake_out=2 * count, refused_share=1)
    close_all(clients)
    meter.tally.update(half_open=-count)
    meter.check(fail_peer=count)


def test_sessions_that_fill_the_pool(metered, origin):
    target, clients = origin(talker), []
    meter = metered("--relay", "copy", files=128)
    while enters(meter, f"127.0.0.{len(clients) + 1}", clients):
        clients[-1].send(wire.socks5("127.0.0.1", target.port))
        assert wire.read_socks5_reply(clients[-1])[0] == 0
    count = len(clients)
    assert 10 <= count < 64
    meter.tally.update(active=count)
    meter.check(accepted=count, requests=count, established=count, connected=count, peak=count, handshake_in=13 * count,
                handshake_out=12 * count, refused_pool=1)
    for client in clients:
        talk(client)
    meter.tally.update(active=-count)
    meter.check(up=count * UP, down=count * DOWN)


def test_no_descriptor(metered, origin):
    """The process has inherited so many that its pools do not know how few are left."""
    target, clients = origin(talker), []
    meter = metered("--relay", "copy", files=200, inherit=150)
    while enters(meter, "127.0.0.1", clients):
        pass
    count = len(clients)
    said, heard = len(wire.socks5("127.0.0.1", target.port)), 10
    clients[-1].send(wire.socks5("127.0.0.1", target.port))
    assert clients[-1].read_all() == wire.socks5_failure(1)
    close_all(clients)
    meter.check(accepted=count, requests=1, peak=count, handshake_in=3 * count + said, handshake_out=2 * count + heard, fail_peer=count - 1,
                fail_resource=1, refused_resource=1)


# --- behind a PROXY header ---

def test_headers_that_are_refused(metered):
    """Who is no proxy is reset at accept. A proxy was accepted, whatever it says, and what it has said is part of the handshake."""
    meter = metered("--proxy-protocol", "127.0.0.1", "--deny-client", "192.0.2.99")
    assert is_reset(meter.proxy.address, v2(), source=("127.0.0.2", 0))
    meter.check(fail_no_proxy=1)
    for label, header in [*(("proxy_header", header) for header in WRONG.values()), ("client_denied", v1(("192.0.2.99", 1)))]:
        assert is_reset(meter.proxy.address, header)
        meter.check(**refused(label, len(header), 0, requests=0))
    for header in (v1(), v2(), LOCAL):
        said, heard = exchange(meter, (header + b"\5\1\0", 2))
        meter.check(**refused("peer", said, heard, requests=0))


def test_half_open_behind_a_header(metered):
    """The client of the header is counted, and not the proxy; what is refused is a failure, because it was accepted."""
    meter, clients = metered("--proxy-protocol", "127.0.0.1", "--limit", "source: half-open=2"), []
    said = len(v2()) + 3
    assert all(enters(meter, "127.0.0.1", clients, header) for header in (v2(), v2(), v2(("192.0.2.8", 1))))
    meter.tally.update(half_open=3)
    meter.check(accepted=3, peak=3, handshake_in=3 * said, handshake_out=3 * 2)
    assert not enters(meter, "127.0.0.1", clients, v2())
    meter.check(**{**refused("half_open", said, 0, requests=0), "peak": 4})
    close_all(clients)
    meter.tally.update(half_open=-3)
    meter.check(fail_peer=3)


def test_share_behind_a_header(metered):
    """One client, and its proxy goes on bringing others."""
    meter, clients = metered("--proxy-protocol", "127.0.0.1", files=600), []
    while enters(meter, "127.0.0.1", clients, v2()):
        pass
    count, said = len(clients), len(v2()) + 3
    assert 64 <= count < 300
    meter.tally.update(half_open=count)
    meter.check(**{**refused("share", (count + 1) * said, count * 2, requests=0), "accepted": count + 1, "peak": count + 1})
    assert enters(meter, "127.0.0.1", clients, v2(("192.0.2.8", 1)))
    close_all(clients)
    meter.tally.update(half_open=-count)
    meter.check(accepted=1, handshake_in=said, handshake_out=2, fail_peer=count + 1)


# --- ways out ---

def test_ways_that_are_not_to_be_had(metered, tmp_path):
    """An address that is not this machine's is left alone for a while, an interface is asked for each time; without an address of the
    target's family nothing is at fault."""
    paths = {name: f"{tmp_path}/{name}" for name in ("one", "gone", "device")}
    meter = metered("-l", f"unix:{paths['one']},source=127.0.0.3", "-l", f"unix:{paths['gone']},source=192.0.2.77",
                    "-l", f"unix:{paths['device']},interface=nowhere0")
    for name, label, host, code, moved in [
            ("one", "egress_family", "::1", 3, {}), ("gone", "egress", "127.0.0.1", 1, {"egress_faults": 1, "egress_rests": 1}),
            ("device", "egress", "127.0.0.1", 1, {"egress_faults": 1}), ("device", "egress", "127.0.0.1", 1, {"egress_faults": 1})]:
        request = wire.socks5(host, 9)
        with wire.greet(wire.Client(paths[name])) as client:
            assert client.send(request).read_all() == wire.socks5_failure(code)
        meter.check(**refused(label, 3 + len(request), 12), **moved)


def test_members_of_a_group(metered, origin):
    """Who is chosen, and that nobody is left when the operator has ordered them down."""
    members = [origin(scripted((3, b"\5\0"), (10, b"\5\0\0\1" + bytes(6)), then=talker)) for _ in range(2)]
    names = [f"127.0.0.1:{member.port}" for member in members]
    meter = metered("--relay", "copy", "--upstream", proxies(*(member.port for member in members)), "-x", "group:pool")

    def put(at, order, state):
        assert meter.ask("PUT", f"/upstreams/pool/{names[at]}", json.dumps({"state": order}).encode())[0] == 200
        meter.expect_member("pool", names[at], at, state)

    for at, name in enumerate(names):
        meter.expect_member("pool", name, at, "up")
    meter.check()
    put(1, "down", "ordered_down")
    client = wire.through_socks5(meter.proxy.address, "192.0.2.7", 80)
    meter.tally.update(active=1, sessions_of_0=1)
    meter.check(**{**established(13, 12, 0, 0), "hop_out": 13, "hop_in": 12, "chosen_of_0": 1, "connected_of_0": 1})
    talk(client)
    meter.tally.subtract(active=1, sessions_of_0=1)
    meter.check(up=UP, down=DOWN)
    put(0, "down", "ordered_down")
    said, heard = exchange(meter, (b"\5\1\0", 2), (wire.socks5("192.0.2.7", 80), None))
    meter.check(**refused("no_upstream", said, heard))
    put(1, "up", "up")
    talk(wire.through_socks5(meter.proxy.address, "192.0.2.7", 80))
    meter.check(**established(13, 12), hop_out=13, hop_in=12, chosen_of_1=1, connected_of_1=1)


def test_commands_that_a_proxy_does_not_know(metered, origin):
    """BIND and UDP ASSOCIATE of ours are its to carry out."""
    lines = [(3, b"\5\0"), (10, b"\5\7\0\1" + bytes(6))]
    far = origin(scripted(*lines))
    meter = metered("--enable-socks5-bind", "--enable-socks5-udp", "-x", f"socks5://127.0.0.1:{far.port}")
    for request in (wire.socks5("127.0.0.8", 21, 2), wire.socks5("0.0.0.0", 0, 3)):
        said, heard = exchange(meter, (b"\5\1\0", 2), (request, None))
        meter.check(**refused("proxy_command", said, heard), hop_out=13, hop_in=12)


# --- with a ruleset ---

RULES = """
local function route(address)
    local kind, port = address:match("^(%w+)%.chain:(%d+)$")
    if kind then return "192.0.2.7:443", _G.chains[kind]:format(port) end
    port = address:match("^kept%.example:(%d+)$")
    if port then
        sluice.cache(600)
        return "127.0.0.1:" .. port
    end
    port = address:match("^tried%.example:(%d+)$")
    if port then return await.forward("127.0.0.1:" .. port) and address or nil end
    return address:find("^127%.0%.0%.1:") and address or nil
end
_G.chains = { socks5 = "socks5://127.0.0.1:%d", socks5user = "socks5://u:pwd@127.0.0.1:%d", socks4a = "socks4a://127.0.0.1:%d",
              http = "http://127.0.0.1:%d" }
return { resolve = route, route = route, route6 = route, metrics = function() return _G.lines or "" end }
"""
ASKED = dict(decisions=1, decided=1)


@pytest.fixture
def ruled_meter(metered, tmp_path):
    def start(*options, script=RULES, **more):
        (tmp_path / "rules.lua").write_text(script)
        meter = metered("-r", tmp_path / "rules.lua", *options, **more)
        meter.tally.update(revision=1)
        return meter

    return start


def test_decisions(ruled_meter, origin):
    target, meter = origin(talker), ruled_meter("--relay", "copy")
    address, port = meter.proxy.address, target.port
    meter.check()
    talk(wire.through_socks5(address, "127.0.0.1", port))
    meter.check(**established(13, 12), **ASKED)
    said, heard = exchange(meter, (wire.socks4("127.0.0.2", 9), None))
    meter.check(**refused("rejected", said, heard), **ASKED)
    for asked in [ASKED, dict(remembered=1), dict(remembered=1)]:
        talk(wire.through_socks5(address, b"kept.example", port))
        meter.check(**established(3 + 7 + len("kept.example"), 12), **asked)
    assert meter.ask("POST", "/ruleset/update", RULES.encode())[0] == 200
    meter.check(revision=1)


def test_decisions_about_who_signs_in(ruled_meter, origin):
    """Two questions for each client: who it is, and where it goes."""
    target = origin(talker)
    meter = ruled_meter("--relay", "copy", script="local function f(a) return a end return { auth = 'required', route = f, "
                        "login = function(user, password) return password == 'secret' end }")
    talk(wire.through_socks5_auth(meter.proxy.address, "127.0.0.1", target.port))
    meter.check(**established(3 + 13 + 10, 2 + 2 + 10), decisions=2, decided=2)
    said, heard = exchange(meter, (b"\5\1\2", 2), (wire.socks5_auth(b"user", b"wrong"), None))
    meter.check(**refused("auth", said, heard, requests=0), **ASKED)


CHAIN_LABELS = {
    "socks5-01": "proxy_protocol", "socks5-02": "proxy_rejected", "socks5-03": "proxy_network", "socks5-04": "proxy_host",
    "socks5-05": "proxy_refused", "socks5-06": "proxy_ttl", "socks5-99": "proxy_protocol", "socks5-no-method": "proxy_auth",
    "socks5-method-not-offered": "proxy_protocol", "socks5-not-5": "proxy_protocol", "socks5-reply-not-5": "proxy_protocol",
    "socks5-reply-of-type-9": "proxy_protocol", "socks5-password": "proxy_auth", "http-407": "proxy_auth", "http-403": "proxy_rejected",
    "http-garbage": "proxy_protocol", "closes-after-method": "proxy_closed"}


def test_chains(ruled_meter, origin):
    """What a hop has heard is what was sent to it, what it has said is what was received; neither is traffic."""
    meter = ruled_meter("--relay", "copy")
    for kind, lines in [("socks5", [(3, b"\5\0"), (10, b"\5\0\0\4" + bytes(18))]),
                        ("socks5user", [(4, b"\5\2"), (7, b"\1\0"), (10, b"\5\0\0\1" + bytes(6))]),
                        ("socks4a", [(9, b"\0\x5a" + bytes(6))]), ("http", [("head", b"HTTP/1.1 200 OK\r\nX-More: of it\r\n\r\n")])]:
        proxy = origin(scripted(*lines, then=talker))
        name = f"{kind}.chain".encode()
        talk(wire.through_socks5(meter.proxy.address, name, proxy.port))
        meter.check(**established(3 + 7 + len(name), 12), **ASKED, hop_out=len(proxy.result()), hop_in=sum(len(said) for _, said in lines))
    for case, label in CHAIN_LABELS.items():
        kind, lines, _, _ = CHAIN_ANSWERS[case]
        proxy = origin(scripted(*lines))
        said, heard = exchange(meter, (wire.socks4a(f"{kind}.chain", proxy.port), None))
        meter.check(**refused(label, said, heard), **ASKED, hop_out=len(proxy.result()) + (10 if "after-method" in case else 0),
                    hop_in=sum(len(said) for _, said in lines))


def test_a_try_that_fails(ruled_meter):
    """The client learns what went wrong; for the contract the ruleset has rejected it. It was asked a second time then."""
    meter = ruled_meter()
    said, heard = exchange(meter, (wire.socks4a("tried.example", process.free_port()), None))
    meter.check(**refused("refused", said, heard), gave_up=1, decisions=2, decided=2)


def test_a_try_that_succeeds(ruled_meter, origin):
    target, meter = origin(talker), ruled_meter()
    talk(wire.through_socks4a(meter.proxy.address, "tried.example", target.port))
    meter.check(**established(9 + len("someone") + len("tried.example") + 1, 8), **ASKED)


def test_names_and_calls_of_scripts(ruled_meter, origin, dns):
    """Calls to peers are made by way of a worker, and are no connections of clients."""
    server = dns()
    server.add("there.example", "127.0.0.1")
    meter = ruled_meter("--nameserver", server.text, script="_G.libruleset = require('libruleset')\n" + RULES)
    answer = (b"HTTP/1.1 200 OK\r\nContent-Type: application/x-neosocksd-rpc; version=1\r\nContent-Length: 11\r\n"
              b"Connection: close\r\n\r\nreturn true")

    def serve(_origin, connection):
        heard = origins.read_http_head(connection)
        size = int(re.search(rb"Content-Length: (\d+)", heard).group(1))
        while size > 0:
            heard += (piece := connection.recv(size))
            size -= len(piece)
        connection.sendall(answer)
        return heard

    peer = origin(serve)

    def call(code):
        status, content, _ = meter.ask("POST", "/ruleset/rpcall", code.encode(), b"Content-Type: application/x-neosocksd-rpc; version=1\r\n")
        assert status == 200
        return content

    assert b"127.0.0.1" in call("return await.resolve('there.example')")
    meter.check(names_asked=1, names_found=1)
    assert call("return await.resolve('nowhere.example')").startswith(b"return true")
    meter.check(names_asked=1, names_failed=1)
    assert call(f"return await.rpcall({{ '127.0.0.1:{peer.port}' }}, 'add', ('x'):rep(40))") == b"return true,true"
    meter.check(calls_answered=1, call_out=len(peer.result()), call_in=len(answer))
    assert b"false" in call(f"return await.rpcall({{ '127.0.0.1:{process.free_port()}' }}, 'add')")
    meter.check(calls_failed=1)
    assert meter.ask("POST", "/ruleset/invoke", b"neosocksd.async(print, await.sleep, 600)")[0] == 200
    meter.tally.update(coroutines=1)
    meter.check()


def test_more_names_than_there_is_room_for(ruled_meter, dns):
    """A script has asked for all that may be open; a client's name is refused, and nobody is asked for it."""
    server, most = dns(), 4096
    server.silent.add("*")
    meter = ruled_meter("-t", "10", "--nameserver", server.text, script="return { resolve = function(a) return a end }")
    code = f"for i = 1, {most} do neosocksd.async(function() end, await.resolve, ('n%d.example'):format(i)) end"
    assert meter.ask("POST", "/ruleset/invoke", code.encode())[0] == 200
    assert process.wait_until(lambda: read_json(meter)["dns"]["queries"] == most)
    said, heard = exchange(meter, (wire.socks4a("one-more.example", 9), None))
    assert process.wait_until(lambda: read_json(meter)["dns"]["timeouts"] == most, 20)
    meter.check(**refused("resolve_share", said, heard), **ASKED, names_asked=most, names_timed_out=most, names_failed=most + 1, names_refused=1)


def test_what_a_source_may_have_under_way(metered, dns):
    """A second name while one is asked for, and a second handshake beside one: each refused by the limit of its source."""
    server = dns()
    server.silent.add("*")
    meter = metered("-t", "60", "--nameserver", server.text, "--limit", "source: resolving=1 half-open=2")
    line = wire.socks4a("first.example", 9)
    first = wire.Client(meter.proxy.address).send(line)
    meter.tally.update(half_open=1)
    meter.check(accepted=1, requests=1, peak=1, handshake_in=len(line), names_asked=1)
    said, heard = exchange(meter, (wire.socks4a("second.example", 9), None))
    meter.check(**{**refused("limit_resolving", said, heard), "peak": 2})
    clients = []
    assert enters(meter, "127.0.0.1", clients) and not enters(meter, "127.0.0.1", clients)
    meter.tally.update(half_open=1)
    meter.check(accepted=1, handshake_in=3, handshake_out=2, refused_half_open=1)
    close_all([first, *clients])


def test_limits_by_key(metered, origin):
    """What is refused, what is cut in the middle, and a table of keys that is full of those who have used their quota."""
    target = origin(talker)
    meter = metered("--limit-keys", "16", "--limit", "user: quota=1GB", "--limit", "user:a: connections=0", "--limit", "user:b: rate=1/h",
                    "--limit", "user:c: quota=8000B")

    def ask(user):
        return wire.Client(meter.proxy.address).send(wire.socks4("127.0.0.1", target.port, user))

    def refuse(user, label):
        with ask(user) as client:
            assert client.read_all() == wire.SOCKS4_REJECTED
        meter.check(**refused(label, 9 + len(user), 8))

    def serve(user):
        client = ask(user)
        assert client.read(8) == wire.SOCKS4_GRANTED
        talk(client)
        meter.check(**established(9 + len(user), 8))

    refuse(b"a", "limit_connections")
    serve(b"b")
    refuse(b"b", "limit_rate")
    serve(b"c")
    client = wire.Client(meter.proxy.address).send(wire.socks4("127.0.0.1", target.port, b"c") + bytes(UP))  # comes with the request
    assert client.read(8 + 400) == wire.SOCKS4_GRANTED + bytes(400)
    assert client.ends_with() == "reset"
    meter.check(**established(9 + 1 + UP, 8, down=400), fail_quota=1)
    refuse(b"c", "quota")
    for i in range(12):  # three quarters, which is what those may have whom nobody knows
        serve(b"user%02d" % i)
    refuse(b"user12", "limit_keys")


def test_lines_of_the_ruleset(ruled_meter):
    """Those that are whole are samples of their own, those that are not are counted at each scrape."""
    meter = ruled_meter()
    assert meter.ask("POST", "/ruleset/invoke", b"_G.lines = 'wrong line here\\n'")[0] == 200
    before = meter.look()
    assert before == ["sluice_ruleset_metrics_dropped_total is 1, not 0"]
    meter.tally.update(lines_dropped=2)
    assert not meter.look()


def test_answers_of_the_api(metered):
    """Octets of heads and bodies in both directions, packed or not; what fails is an error, whoever was at fault."""
    meter = metered()
    for method, path, body, fields, status in [
            ("GET", "/healthy", b"", b"", 200), ("HEAD", "/stats", b"", b"", 200), ("GET", "/nothing", b"", b"", 404),
            ("PUT", "/stats", b"abc", b"", 405), ("GET", "/stats", b"", b"Accept-Encoding: gzip\r\n", 200),
            ("GET", "/metrics", b"", b"Accept-Encoding: deflate\r\n", 200), ("GET", "/", b"", b"", 200), ("GET", "/sessions?limit=1", b"", b"", 200),
            ("POST", "/ruleset/update", bytes(100_000), b"", 500), ("GET", "/healthy", b"", b"Origin: http://example\r\n", 403),
            ("GET", "/ready", b"", b"", 200), ("GET", "/history", b"", b"", 200), ("POST", "/stats", b"", b"Content-Length: 0\r\n", 200)]:
        assert meter.ask(method, path, body, fields)[0] == status, path
        meter.check()
    connection = wire.Client(meter.address)  # two on one connection, which stays
    for turn in range(2):
        request = b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"
        head = connection.send(request).read_head()
        size = int(re.search(rb"Content-Length: (\d+)", head).group(1))
        assert len(connection.read(size)) == size
        meter.check(api_ok=1, api_in=len(request), api_out=len(head) + size, api_connections=int(turn == 0))
    connection.close()
    with wire.Client(meter.address) as client:  # no request
        assert client.send(b"nonsense\r\n\r\n").read_all() == b""
    meter.check(api_connections=1)


def test_no_label_is_left_out():
    """Every failure is brought about by one of the tests above."""
    with open(__file__, encoding="utf-8") as text:
        said = text.read().split("def test_no_label")[0]
    said += '"drain"'  # behind which nobody can be asked: tests/test_outcomes.c
    missing = {label for label in counters.FAILURES if f'"{label}"' not in said and f"fail_{label}" not in said}
    assert not missing
