"""The PROXY protocol, in (--proxy-protocol) and out (--send-proxy): sluice behind and in front of HAProxy, nginx, curl and itself, and
headers octet by octet."""
import ipaddress
import json
import os
import socket
import struct
import subprocess
import time

import pytest

import origins
import process
import scripts
import wire
from conftest import require
from test_keys import failures

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT, REACHED = ("192.0.2.7", 40007), ("192.0.2.1", 443)
CLIENT_6, REACHED_6 = ("2001:db8::7", 40007), ("2001:db8::1", 443)


def packed(host):
    return ipaddress.ip_address(host).packed


def v1(client=CLIENT, reached=REACHED):
    family = 6 if ":" in client[0] else 4
    return f"PROXY TCP{family} {client[0]} {reached[0]} {client[1]} {reached[1]}\r\n".encode()


def block(command, family, body):
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


def tlv(kind, value):
    return bytes([kind]) + struct.pack("!H", len(value)) + value


def ends(client=CLIENT, reached=REACHED):
    return packed(client[0]) + packed(reached[0]) + struct.pack("!HH", client[1], reached[1])


def v2(client=CLIENT, reached=REACHED, tlvs=b""):
    return block(1, 0x21 if ":" in client[0] else 0x11, ends(client, reached) + tlvs)


def crc32c(data):
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def v2_with_sum(wrong=0):
    plain = v2(tlvs=tlv(0xE0, b"something") + tlv(3, bytes(4)))
    return plain[:-4] + struct.pack("!I", crc32c(plain) ^ wrong)


LOCAL = block(0, 0, b"")
UNIX = block(1, 0x31, b"/run/one".ljust(108, b"\0") + b"/run/two".ljust(108, b"\0"))
HEADERS = {"v1": v1(), "v2": v2(), "v2-tlv": v2(tlvs=tlv(0xE0, b"x" * 300) + tlv(4, b"")), "v2-crc": v2_with_sum(), "v1-6": v1(CLIENT_6, REACHED_6),
           "v2-6": v2(CLIENT_6, REACHED_6), "v1-mapped": v1(("::ffff:192.0.2.7", 40007), ("::ffff:192.0.2.1", 443)),
           "v2-mapped": v2(("::ffff:192.0.2.7", 40007), ("::ffff:192.0.2.1", 443))}
NAMELESS = {"v1-unknown": b"PROXY UNKNOWN\r\n", "v1-unknown-longest": b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", "local": LOCAL,
            "local-with-addresses": block(0, 0x11, ends() + tlv(4, b"pad")), "unspecified": block(1, 0, b""), "unix": UNIX}


def text_of(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_header(connection):
    """What a target gets: (version, client, reached, TLVs); an address is None where the header names none."""
    begin = connection.recv(6, socket.MSG_WAITALL)
    if begin == b"PROXY ":
        line = begin
        while not line.endswith(b"\r\n"):
            line += connection.recv(1)
        assert len(line) <= 107
        words = line.decode().rstrip("\r\n").split(" ")
        if words[1] == "UNKNOWN":
            return 1, None, None, {}
        return 1, (words[2], int(words[4])), (words[3], int(words[5])), {}
    head = begin + connection.recv(10, socket.MSG_WAITALL)
    assert head[:12] == SIGNATURE, head
    body = connection.recv(struct.unpack("!H", head[14:16])[0], socket.MSG_WAITALL) if head[14:16] != b"\0\0" else b""
    size = {0: 0, 0x11: 4, 0x21: 16}[head[13]]
    at, tlvs, client, reached = 2 * size + 4 if size else 0, {}, None, None
    if size:
        hosts = [socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, body[i:i + size]) for i in (0, size)]
        ports = struct.unpack("!HH", body[2 * size:2 * size + 4])
        client, reached = zip(hosts, ports)
    while at < len(body):
        length = struct.unpack("!H", body[at + 1:at + 3])[0]
        tlvs[body[at]] = body[at + 3:at + 3 + length]
        at += 3 + length
    assert at == len(body) and head[12] == 0x21
    return 2, client, reached, tlvs


def announced(origin, connection):
    """An echo behind a header, which it keeps."""
    header = read_header(connection)
    with origin.changed:
        origin.headers = getattr(origin, "headers", []) + [header]
        origin.changed.notify_all()
    return origins.echo(origin, connection)


class Box:
    """A sluice with an API and an access log."""

    def __init__(self, folder, *args, **options):
        self.log_path = folder / "access.log"
        port = process.free_port()
        self.proxy = process.Sluice(str(folder), "--api", f"127.0.0.1:{port}", "--access-log", self.log_path, "--workers", "1", *args, **options)
        self.api = scripts.Api(("127.0.0.1", port))
        self.address = self.proxy.address

    def sessions(self):
        return self.api.get("/sessions").json()["sessions"]

    def lines(self):
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def failed(self, label):
        return failures(self.api, label)


@pytest.fixture(scope="module")
def echo():
    one = origins.Origin(origins.echo)
    yield one
    one.close()


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """Its proxies are 127.0.0.1 and ::1. 192.0.2.99 may not come; each source has two connections."""
    one = Box(tmp_path_factory.mktemp("box"), "--proxy-protocol", "127.0.0.1", "--deny-client", "192.0.2.99,127.0.0.1/32", "--limit",
              "source: connections=2 half-open=3", "--timeout", "5", "--loglevel", "5")
    yield one
    one.proxy.finish()


@pytest.fixture
def started(tmp_path):
    """started(*args) is a Box for one test."""
    boxes = []

    def start(*args, **options):
        folder = tmp_path / f"box{len(boxes)}"
        folder.mkdir()
        boxes.append(Box(folder, *args, **options))
        return boxes[-1]

    yield start
    for one in reversed(boxes):
        one.proxy.finish()


def through(address, header, echo, source=None):
    """A SOCKS5 connection to the echo, begun in one piece with its header."""
    client = wire.Client(address, source=source).send(header + b"\5\1\0")
    assert client.read(2) == b"\5\0"
    assert wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", echo.port)))[0] == 0
    return client


def is_reset(address, data, source=None):
    """Whether that is all it takes to be reset."""
    try:
        with wire.Client(address, source=source) as client:
            client.send(data)
            return client.ends_with() == "reset"
    except (ConnectionResetError, BrokenPipeError):
        return True


# --- in ---

@pytest.mark.parametrize("name", HEADERS)
def test_client_of_the_header(box, echo, name):
    """Is the client: in the list of sessions, in the access log; its octets pass."""
    expected = text_of(*CLIENT_6) if name.endswith("-6") else text_of(*CLIENT)
    with through(box.address, HEADERS[name], echo) as client:
        assert client.send(b"ping").read(4) == b"ping"
        assert [row["client"] for row in box.sessions()] == [expected]
    process.becomes(lambda: box.sessions(), [])
    assert process.wait_until(lambda: box.lines() and box.lines()[-1]["client"] == expected and box.lines()[-1]["result"] == "ok")


def test_header_in_two_pieces(started, echo):
    """Cut anywhere, with a pause: the same as whole. All at once, so that one pause is enough."""
    box = started("--proxy-protocol", "127.0.0.0/8")
    for header in (v1(), v2(), v2(tlvs=tlv(0xE0, b"some"))):
        whole = header + b"\5\1\0"
        clients = [wire.Client(box.address).send(whole[:cut]) for cut in range(1, len(whole))]
        time.sleep(0.05)
        for cut, client in enumerate(clients, 1):
            client.send(whole[cut:])
        for client in clients:
            assert client.read(2) == b"\5\0"
            assert wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", echo.port)))[0] == 0
        rows = box.api.get("/sessions?limit=1000").json()["sessions"]
        assert {row["client"] for row in rows} == {text_of(*CLIENT)} and len(rows) == len(clients)
        for client in clients:
            client.close()
        process.becomes(lambda: box.sessions(), [])


def test_protocols_behind_a_header(started, echo, origin):
    """All of them, also when request and payload come with it; and a second request on a kept connection."""
    web = origin(origins.pages)
    forwards = process.free_port()
    box = started("--proxy-protocol", "127.0.0.0/8", "-l", f"127.0.0.1:{forwards}", "-f", f"127.0.0.1:{echo.port}", "--proxy-protocol", "127.0.0.0/8")
    with wire.Client(box.address).send(v2() + wire.http_connect("127.0.0.1", echo.port) + b"early") as client:
        assert client.read(len(wire.HTTP_ESTABLISHED)) == wire.HTTP_ESTABLISHED and client.read(5) == b"early"
    with wire.Client(box.address).send(v1() + wire.socks4("127.0.0.1", echo.port) + b"early") as client:
        assert client.read(8) == wire.SOCKS4_GRANTED and client.read(5) == b"early"
    with wire.Client(("127.0.0.1", forwards)).send(v2() + b"early") as client:
        assert client.read(5) == b"early"
        assert box.sessions()[-1]["client"] == text_of(*CLIENT)
    with wire.Client(box.address).send(v2()) as client:
        for path in (b"/one", b"/two"):
            client.send(b"GET http://127.0.0.1:%d%s HTTP/1.1\r\nHost: x\r\n\r\n" % (web.port, path))
            assert b" 200 " in client.read_head()
            assert client.read(len(b"page " + path)) == b"page " + path
    process.becomes(lambda: [line["client"] for line in box.lines()], [text_of(*CLIENT)] * 5)


@pytest.mark.parametrize("name", NAMELESS)
def test_header_that_names_nobody(started, echo, name):
    """Leaves the proxy as the client."""
    box = started("--proxy-protocol", "127.0.0.0/8")
    with through(box.address, NAMELESS[name], echo) as client:
        assert box.sessions()[0]["client"] == text_of(*client.socket.getsockname())


WRONG = {"nothing": b"\5\1\0", "http": b"GET / HTTP/1.1\r\n\r\n", "line without an end": b"PROXY TCP4 " + b"1" * 96, "line feed alone": b"PROXY UNKNOWN\n",
         "family of the line": b"PROXY TCP4 ::1 ::1 1 2\r\n", "command": block(2, 0x11, ends()), "version": SIGNATURE + b"\x11\x11\0\x0c" + ends(),
         "short block": block(1, 0x21, ends()), "TLV past the end": v2(tlvs=b"\xe0\0\x09short"), "sum": v2_with_sum(wrong=1),
         "too long": SIGNATURE + b"\x21\x11\xff\xff"}


def test_wrong_headers(box):
    """Are reset at once, whatever else might follow."""
    before = box.failed("proxy_header")
    for name, octets in WRONG.items():
        assert is_reset(box.address, octets), name
    assert box.failed("proxy_header") == before + len(WRONG)
    assert box.proxy.says("no PROXY header, or a malformed one")


def test_peers_that_are_no_proxies(box, started, echo):
    """Are reset at accept; where they may come, they come as they are, and a header is no part of any protocol of theirs."""
    before = box.failed("no_proxy")
    assert is_reset(box.address, v2(), source=("127.0.0.2", 0))
    assert box.failed("no_proxy") == before + 1
    assert box.proxy.says("refused: it is none of --proxy-protocol's proxies")
    lenient = started("--proxy-protocol", "127.0.0.1,optional")
    with wire.greet(wire.Client(lenient.address, source=("127.0.0.2", 0))) as client:
        assert wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", echo.port)))[0] == 0
        assert lenient.sessions()[0]["client"].startswith("127.0.0.2:")
    for header in (v1(), v2()):
        with wire.Client(lenient.address, source=("127.0.0.2", 0)) as client:
            client.send(header + b"\r\n\r\n" + wire.http_connect("127.0.0.1", echo.port))
            assert b" 200 " not in client.read_all()[:16]
    assert is_reset(lenient.address, b"\5\1\0")
    with through(lenient.address, v2(), echo):
        assert [row["client"] for row in lenient.sessions()] == [text_of(*CLIENT)]


def test_lists_judge_the_client(box, echo):
    """And not the proxy, which a list denies here: until it names nobody, and so comes itself."""
    before = box.failed("client_denied")
    with through(box.address, v2(), echo):
        pass
    assert is_reset(box.address, v2(("192.0.2.99", 1)) + b"\5\1\0")
    assert is_reset(box.address, LOCAL + b"\5\1\0")
    assert box.failed("client_denied") == before + 2
    assert box.proxy.says("192.0.2.99:1: client denied by a list")


def test_limits_count_the_client(box, echo):
    """Two connections of each source, three handshakes; the proxy has made all of them."""
    other = v2(("192.0.2.8", 1))
    clients = [through(box.address, header, echo) for header in (v2(), v2(), other, other)]
    late = wire.Client(box.address).send(v2() + b"\5\1\0")
    assert late.read(2) == b"\5\0"
    assert wire.read_socks5_reply(late.send(wire.socks5("127.0.0.1", echo.port)))[0] == 2
    assert box.api.get("/limits/source:192.0.2.7").json()["connections"] == 2
    for client in [*clients, late]:
        client.close()
    process.becomes(lambda: box.sessions(), [])
    before = box.failed("half_open")
    slow = [wire.Client(box.address).send(v2()) for _ in range(3)]
    process.becomes(lambda: box.api.get("/limits/source:192.0.2.7").json()["half_open"], 3)
    assert is_reset(box.address, v2() + b"\5\1\0") and box.failed("half_open") == before + 1
    with through(box.address, other, echo):
        pass
    for client in slow:
        client.close()
    process.becomes(lambda: box.sessions(), [])


def test_silent_proxies(box, echo):
    """Whoever says nothing, or not enough, holds nobody up, and is closed when the time for a handshake is over."""
    before = box.failed("handshake_timeout")
    silent = [wire.Client(box.address).send(v2()[:size]) for size in (0, 5, 12) * 60]
    begin = time.monotonic()
    with through(box.address, v2(), echo) as client:
        assert client.send(b"ping").read(4) == b"ping"
    assert time.monotonic() - begin < 5 * process.SLOW
    assert {client.ends_with() for client in silent} <= {"end", "reset"}
    process.becomes(lambda: box.failed("handshake_timeout"), before + len(silent))


def test_unix_socket_of_a_proxy(started, echo, tmp_path):
    box = started("-l", f"unix:{tmp_path}/front", "--proxy-protocol", "unix")
    with through(f"{tmp_path}/front", v2(), echo):
        assert [row["client"] for row in box.sessions()] == [text_of(*CLIENT)]
    with through(f"{tmp_path}/front", LOCAL, echo):
        assert box.sessions()[-1]["client"] == "local"


# --- out ---

@pytest.fixture(scope="module")
def target():
    one = origins.Origin(announced)
    yield one
    one.close()


@pytest.fixture(scope="module")
def forwarder(tmp_path_factory, target):
    """Forwards to that target with version 1, version 2 and without a header, on three ports, behind proxies or not."""
    ports = [process.free_port() for _ in range(3)]
    words = []
    for port, options in zip(ports, (["--send-proxy", "v1"], ["--send-proxy", "v2"], [])):
        words += ["-l", f"127.0.0.1:{port},proxy-protocol=127.0.0.1,proxy-protocol=optional", "-f", f"127.0.0.1:{target.port}", *options]
    one = Box(tmp_path_factory.mktemp("forwarder"), *words)
    one.ports = ports
    yield one
    one.proxy.finish()


def told(target, address, header=b"", source=None):
    """What the target is told of a client with that header, and the client's own address. Its octets pass behind it."""
    before = len(getattr(target, "headers", []))
    with wire.Client(address, source=source).send(header + b"ping") as client:
        assert client.read(4) == b"ping"
        return target.headers[before], client.socket.getsockname()


def test_target_is_told_the_client(forwarder, target):
    for port, version in zip(forwarder.ports, (1, 2)):
        header, own = told(target, ("127.0.0.1", port), LOCAL)
        assert header[:3] == (version, own, ("127.0.0.1", port))
        header, own = told(target, ("127.0.0.1", port), source=("127.0.0.2", 0))
        assert header[:3] == (version, own, ("127.0.0.1", port))
        for client, reached in ((CLIENT, REACHED), (CLIENT_6, REACHED_6)):
            assert told(target, ("127.0.0.1", port), v2(client, reached))[0][:3] == (version, client, reached)
        mapped = v2(("::ffff:192.0.2.7", 40007), ("::ffff:192.0.2.1", 443))
        assert told(target, ("127.0.0.1", port), mapped)[0][:3] == (version, CLIENT, REACHED)
    before = len(target.results)
    with wire.Client(("127.0.0.1", forwarder.ports[2])).send(v2()) as client:
        assert process.wait_until(lambda: len(target.connections) > before)
        client.send(b"PROXY UNKNOWN\r\nping")
        assert client.read(4) == b"ping", "where no header is wanted the first octets are the client's"


def test_ends_of_two_families(forwarder, target):
    """A client with IPv6 that has connected to IPv4: version 1 has no form for that."""
    mixed = block(1, 0x21, packed("2001:db8::7") + packed("::ffff:192.0.2.1") + struct.pack("!HH", 40007, 443))
    assert told(target, ("127.0.0.1", forwarder.ports[0]), mixed)[0][:3] == (1, None, None)
    assert told(target, ("127.0.0.1", forwarder.ports[1]), mixed)[0][:3] == (2, CLIENT_6, ("::ffff:192.0.2.1", 443))


def test_session_is_named(forwarder, target):
    """The unique id is that of the list of sessions."""
    before = len(getattr(target, "headers", []))
    with wire.Client(("127.0.0.1", forwarder.ports[1])).send(v2() + b"ping") as client:
        assert client.read(4) == b"ping"
        rows = [row for row in forwarder.sessions() if row["client"] == text_of(*CLIENT)]
        assert target.headers[before][3] == {5: rows[0]["id"].encode()}


def test_client_of_a_unix_socket(started, target, tmp_path):
    box = started("-l", f"unix:{tmp_path}/v1", "-f", f"127.0.0.1:{target.port}", "--send-proxy", "v1", "-l", f"unix:{tmp_path}/v2",
                  "-f", f"127.0.0.1:{target.port}", "--send-proxy", "v2")
    for version in (1, 2):
        before = len(getattr(target, "headers", []))
        with wire.Client(f"{tmp_path}/v{version}").send(b"ping") as client:
            assert client.read(4) == b"ping"
        assert target.headers[before][:3] == (version, None, None)
    assert box.proxy.flat()


def test_through_a_chain(started, target):
    """The header is the target's, not the proxies'."""
    hop, other, port = started(), started(), process.free_port()
    box = started("-l", f"127.0.0.1:{port}", "-f", f"127.0.0.1:{target.port}", "--send-proxy", "v2", "-x",
                  f"socks5://127.0.0.1:{hop.proxy.port},http://127.0.0.1:{other.proxy.port}")
    header, own = told(target, ("127.0.0.1", port))
    assert header[:3] == (2, own, ("127.0.0.1", port))
    assert box.proxy.flat()


def test_target_that_speaks_first(started, origin):
    """And one that ends without reading the header."""
    def greets(_origin, connection):
        connection.sendall(b"welcome")
        header = read_header(connection)
        connection.sendall(repr(header[1]).encode())
        return header

    speaker, port = origin(greets), process.free_port()
    box = started("-l", f"127.0.0.1:{port}", "-f", f"127.0.0.1:{speaker.port}", "--send-proxy", "v1")
    client = wire.Client(("127.0.0.1", port))
    assert client.read(7) == b"welcome" and client.read_all() == repr(client.socket.getsockname()).encode()
    deaf, port = origin(lambda _origin, connection: origins.reset(connection)), process.free_port()
    box = started("-l", f"127.0.0.1:{port}", "-f", f"127.0.0.1:{deaf.port}", "--send-proxy", "v2")
    for _ in range(20):
        try:
            assert wire.Client(("127.0.0.1", port)).ends_with() in ("end", "reset")
        except ConnectionResetError:
            pass  # before connect() has returned
    assert box.proxy.flat()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_from_one_to_the_next(started, echo, version):
    """What one sends, the other one reads."""
    inner, port = started("--proxy-protocol", "127.0.0.1"), process.free_port()
    started("-l", f"127.0.0.1:{port}", "-f", inner.proxy.url, "--send-proxy", version)
    with through(("127.0.0.1", port), b"", echo, source=("127.0.0.3", 0)) as client:
        assert [row["client"] for row in inner.sessions()] == [text_of(*client.socket.getsockname())]


def test_circle_with_headers(started, tmp_path):
    """Two forwarders that lead to each other: a header hides where a connection comes from, and the circle ends all the same."""
    one, two, rules = process.free_port(), process.free_port(), tmp_path / "rules.lua"
    rules.write_text(f"return {{ route = function(a) return a == '192.0.2.1:1' and '127.0.0.1:{two}' or '127.0.0.1:{one}' end }}")
    box = started("-r", rules, "-l", f"127.0.0.1:{one},proxy-protocol=127.0.0.1,send-proxy=v2", "-f", "192.0.2.1:1",
                  "-l", f"127.0.0.1:{two},proxy-protocol=127.0.0.1,send-proxy=v1", "-f", "192.0.2.2:1")
    with wire.Client(("127.0.0.1", one)).send(v2()) as client:
        assert client.ends_with() in ("end", "reset")
    process.becomes(lambda: box.failed("loop"), 1)
    assert box.api.get("/stats?format=json").json()["requests"] == 2


# --- a ruleset's word ---

RULES = """
local options = {{ one = {{ proxy_protocol = 1 }}, two = {{ proxy_protocol = 2 }}, off = {{ proxy_protocol = false }}, wrong = {{ proxy_protocol = 3 }} }}
return {{
    resolve = function(a)
        local way = a:match("^(%w+)%.test:")
        if way == "try" then
            await.forward("127.0.0.1:{nobody}", options.two)
            await.forward("127.0.0.1:{port}", options.two)
            return
        end
        return "127.0.0.1:{port}", options[way]
    end,
    route = function(a)
        if a == "192.0.2.1:1" then return "127.0.0.1:{port}", options.off end
        return "127.0.0.1:{port}"
    end,
}}
"""


@pytest.fixture
def ruled_box(started, tmp_path):
    def start(port, *args):
        rules = tmp_path / "rules.lua"
        rules.write_text(RULES.format(port=port, nobody=process.free_port()))
        return started("--proxy-protocol", "127.0.0.1", "-r", rules, *args)

    return start


def test_ruleset_says_the_version(ruled_box, target):
    """And the target learns what was asked for, and by whom."""
    box = ruled_box(target.port)
    for name, version in (("one", 1), ("two", 2), ("try", 2)):
        before = len(getattr(target, "headers", []))
        client = wire.greet(wire.Client(box.address).send(v2()), b"alice", b"secret")
        assert wire.read_socks5_reply(client.send(wire.socks5(f"{name}.test".encode(), 80)))[0] == 0
        assert client.send(b"ping").read(4) == b"ping"
        got = target.headers[before]
        assert got[:3] == (version, CLIENT, REACHED)
        facts = {2: f"{name}.test".encode(), 5: box.sessions()[0]["id"].encode(), 0xE2: b"alice"}
        assert got[3] == (facts if version == 2 else {})
        client.close()
        process.becomes(lambda: box.sessions(), [])
    with wire.greet(wire.Client(box.address).send(v2())) as client:
        assert wire.read_socks5_reply(client.send(wire.socks5(b"wrong.test", 80)))[0] != 0
    assert box.proxy.says("the decision's member `proxy_protocol': give 1 or 2, or false for none")


def test_ruleset_and_listener(ruled_box, echo):
    """What a decision says goes before --send-proxy; where it says nothing that holds."""
    one, two = process.free_port(), process.free_port()
    seen = origins.Origin(origins.collect)
    box = ruled_box(seen.port, "-l", f"127.0.0.1:{one},send-proxy=v1", "-f", "192.0.2.1:1", "-l", f"127.0.0.1:{two},send-proxy=v1", "-f", "192.0.2.2:1")
    for port in (one, two):
        wire.Client(("127.0.0.1", port)).send(b"octets").shut().read_all()
    results = seen.wait("results", 2)
    assert sorted(result.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ") for result in results) == [False, True]
    assert sorted(results)[1] == b"octets" and sorted(results)[0].endswith(b"\r\noctets")
    seen.close()
    assert box.proxy.flat()


def announced_pages(origin, connection):
    """A web server that names the client of its header, for as many requests as there come."""
    header = read_header(connection)
    while origins.read_http_head(connection):
        body = text_of(*header[1]).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def test_plain_http_of_three_clients(ruled_box, origin):
    """Turn by turn: no connection that names one of them carries a request of another."""
    web = origin(announced_pages)
    box = ruled_box(web.port)
    hosts = [("192.0.2.7", 1), ("192.0.2.8", 2), ("2001:db8::9", 3)]
    clients = [wire.Client(box.address).send(v2(host, REACHED_6 if ":" in host[0] else REACHED)) for host in hosts]
    for _ in range(3):
        for host, client in zip(hosts, clients):
            client.send(b"GET http://two.test/ HTTP/1.1\r\nHost: two.test\r\n\r\n")
            assert b" 200 " in client.read_head()
            assert client.read(len(text_of(*host))).decode() == text_of(*host)
    assert len(web.connections) == 9
    for client in clients:
        client.close()
    assert box.proxy.flat()


# --- others ---

def test_curl(started, origin):
    """It writes a header of version 1 itself, with its own address."""
    web, port = origin(origins.pages), process.free_port()
    box = started("-l", f"127.0.0.1:{port}", "-f", f"127.0.0.1:{web.port}", "--proxy-protocol", "127.0.0.1")
    done = subprocess.run([require("curl", "curl"), "-sS", "--haproxy-protocol", "--interface", "127.0.0.1", f"http://127.0.0.1:{port}/page"],
                          capture_output=True, check=True, timeout=60)
    assert done.stdout == b"page /page"
    process.becomes(lambda: len(box.lines()), 1)
    assert box.lines()[0]["client"].startswith("127.0.0.1:")


HAPROXY = """
global
    stats socket {folder}/stats mode 600
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
{sections}
"""


@pytest.fixture
def haproxy(daemon, tmp_path):
    def start(sections, port):
        path = tmp_path / "haproxy.cfg"
        path.write_text(HAPROXY.format(folder=tmp_path, sections=sections))
        return daemon([require("haproxy", "haproxy"), "-db", "-f", str(path)], port)

    return start


@pytest.fixture
def nginx(daemon, tmp_path):
    def start(text, port, module=None):
        path, load = tmp_path / "nginx.conf", f"load_module {module};\n" if module else ""
        path.write_text(f"{load}daemon off; master_process off; pid {tmp_path}/pid; events {{ }}\n{text}")
        return daemon([require("nginx", "nginx"), "-e", f"{tmp_path}/error.log", "-p", str(tmp_path), "-c", str(path)], port)

    return start


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_behind_haproxy(started, haproxy, echo, how):
    """With its health checks, which must find a server that is up."""
    box, port = started("--proxy-protocol", "127.0.0.1"), process.free_port()
    haproxy(f"listen front\n    bind 127.0.0.1:{port}\n    server one {box.proxy.url} {how} check inter 200ms check-send-proxy", port)
    process.becomes(lambda: box.failed("peer") > 1, True)  # checks that have said who they are, and no more
    with through(("127.0.0.1", port), b"", echo, source=("127.0.0.4", 0)) as client:
        assert text_of(*client.socket.getsockname()) in [row["client"] for row in box.sessions()]
        assert client.send(b"ping").read(4) == b"ping"
    assert box.failed("proxy_header") == 0


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_in_front_of_haproxy(started, haproxy, version):
    front, port = process.free_port(), process.free_port()
    haproxy(f"frontend web\n    mode http\n    bind 127.0.0.1:{front} accept-proxy\n"
            "    http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port] %[dst] %[dst_port]\"", front)
    started("-l", f"127.0.0.1:{port},proxy-protocol=127.0.0.1", "-f", f"127.0.0.1:{front}", "--send-proxy", version)
    for client, reached in ((CLIENT, REACHED), (CLIENT_6, REACHED_6)):
        with wire.Client(("127.0.0.1", port)).send(v2(client, reached) + b"GET / HTTP/1.0\r\n\r\n") as one:
            assert one.read_all().rsplit(b"\r\n", 1)[1].decode() == "%s %d %s %d" % (*client, *reached)


def test_behind_nginx(started, nginx, echo):
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    if not os.path.exists(module):
        pytest.skip("the stream module is missing: apt-get install libnginx-mod-stream")
    box, port = started("--proxy-protocol", "127.0.0.1"), process.free_port()
    nginx(f"stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {box.proxy.url}; proxy_protocol on; }} }}", port, module)
    with through(("127.0.0.1", port), b"", echo, source=("127.0.0.4", 0)) as client:
        assert [row["client"] for row in box.sessions()][-1] == text_of(*client.socket.getsockname())


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_in_front_of_nginx(started, nginx, version):
    front, port = process.free_port(), process.free_port()
    nginx(f"""http {{ access_log off; server {{ listen 127.0.0.1:{front} proxy_protocol;
              location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port"; }} }} }}""", front)
    started("-l", f"127.0.0.1:{port},proxy-protocol=127.0.0.1", "-f", f"127.0.0.1:{front}", "--send-proxy", version)
    for client, reached in ((CLIENT, REACHED), (CLIENT_6, REACHED_6)):
        with wire.Client(("127.0.0.1", port)).send(v2(client, reached) + b"GET / HTTP/1.0\r\n\r\n") as one:
            assert one.read_all().rsplit(b"\r\n", 1)[1].decode() == "%s %d %s %d" % (*client, *reached)
