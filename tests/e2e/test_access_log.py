"""The access log: a line for each session and each plain HTTP request, whole and true, whatever becomes of where it goes."""
import array
import collections
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

import namespaces
import origins
import process
import wire
from test_udp import ON as UDP
from test_udp import Association, Target

FIELDS = ["time", "event", "id", "listener", "protocol", "command", "client", "user", "target", "dialed", "egress", "chain", "rule",
          "revision", "result", "method", "host", "path", "status", "up", "down", "handshake_us", "decision_us", "resolve_us",
          "connect_us", "first_byte_us", "total_us", "relay", "client_rtt_us", "target_rtt_us", "client_retrans", "target_retrans",
          "truncated", "suppressed"]
LATE = 10.0  # what may take a second may take this on a busy machine, times process.SLOW


def lines_of(path):
    with open(path, encoding="utf-8") as log:
        return [json.loads(line) for line in log.read().splitlines()]


def wait_for_lines(path, count, timeout=10):
    """All lines, of which there are so many in the end."""
    def there():
        return os.path.exists(path) and open(path, "rb").read().count(b"\n") >= count
    process.wait_until(there, timeout)
    lines = lines_of(path)
    assert len(lines) == count, lines
    return lines


def in_turn(path, *actions):
    """Their lines, each awaited before the next action: two workers' lines have no order."""
    lines = []
    for count, action in enumerate(actions, 1):
        action()
        lines = wait_for_lines(path, count)
    return lines


def metric(api, name):
    return int(re.search(rf"^{name} (\d+)$", api.get("/metrics").text, re.MULTILINE).group(1))


def talk(client, data=b"hello"):
    """An echo's answer, and an orderly end."""
    with client:
        client.send(data)
        assert client.read(len(data)) == data
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read_all() == b""


def refused(proxy, user=None, path=b"/"):
    """One request of plain HTTP for a port that nobody listens on."""
    fields = wire.basic(user, b"secret") if user else b""
    with wire.Client(proxy.address) as client:
        client.send(b"GET http://127.0.0.1:1%s HTTP/1.1\r\nHost: 127.0.0.1:1\r\n%s\r\n" % (path, fields))
        return client.read_all()


def refused_by_name(proxy, user):
    """The same in SOCKS4, whose user names may have any octet but zero."""
    with wire.Client(proxy.address) as client:
        client.send(wire.socks4("127.0.0.1", 1, user))
        assert client.read_all() == wire.SOCKS4_REJECTED


@pytest.fixture
def logged(ruled, tmp_path):
    """logged(*args): a sluice whose access log is a file: (proxy, api, path)."""
    def start(*args, script=None, **options):
        path = str(tmp_path / "access.log")
        proxy, api = ruled(script, "--access-log", path, *args, **options)
        return proxy, api, path
    return start


def test_every_protocol(logged, origin):
    proxy, api, path = logged(UDP)
    target = origin()
    other = Target()

    def associate():
        with Association(proxy) as association:
            association.send(b"ping", "127.0.0.1", other.port)
            assert association.receive()[0] == b"ping"

    lines = in_turn(path,
                    lambda: talk(wire.through_socks4(proxy.address, "127.0.0.1", target.port)),
                    lambda: talk(wire.through_socks4a(proxy.address, "localhost", target.port)),
                    lambda: talk(wire.through_socks5(proxy.address, "127.0.0.1", target.port), b"x" * 70000),
                    lambda: talk(wire.through_http(proxy.address, "127.0.0.1", target.port)),
                    associate)
    other.close()
    for line in lines:
        assert list(line) == FIELDS
        assert line["event"] == "end" and line["result"] == "ok" and not line["truncated"] and line["suppressed"] is None
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
        assert line["listener"] == proxy.url and line["client"].startswith("127.0.0.1:")
        assert line["relay"] in ("copy", "splice", "both") and line["total_us"] >= line["first_byte_us"] >= line["handshake_us"] >= 0
    assert [(line["protocol"], line["command"]) for line in lines] == [
        ("socks4", "connect"), ("socks4", "connect"), ("socks5", "connect"), ("http-connect", "connect"), ("socks5", "associate")]
    for line in lines[:4]:
        assert line["dialed"] == f"127.0.0.1:{target.port}" and line["egress"].startswith("127.0.0.1:")
        assert line["connect_us"] >= 0 and line["client_rtt_us"] > 0 and line["target_rtt_us"] > 0 and line["target_retrans"] >= 0
    assert lines[1]["target"] == f"localhost:{target.port}" and lines[1]["resolve_us"] >= 0 and lines[0]["resolve_us"] is None
    assert [line["up"] for line in lines] == [line["down"] for line in lines] == [5, 5, 70000, 5, 4]
    assert lines[3]["status"] == 200 and lines[4]["target"] is None and lines[4]["dialed"] is None
    process.becomes(lambda: metric(api, "sluice_access_log_lines_total"), 5)  # counted when they have been written
    assert metric(api, "sluice_access_log_lost_total") == 0


def test_bind(logged, origin):
    proxy, _api, path = logged("--enable-socks5-bind")
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5("127.0.0.1", 0, 2))
        rep, host, port = wire.read_socks5_reply(client)
        assert rep == 0
        with wire.Client((host, port)) as peer:
            at = "%s:%d" % peer.socket.getsockname()
            assert wire.read_socks5_reply(client)[0] == 0
            talk_both(client, peer)
    line, = wait_for_lines(path, 1)
    assert line["command"] == "bind" and line["dialed"] == at and line["egress"] == f"{host}:{port}"
    assert (line["up"], line["down"], line["result"]) == (3, 4, "ok")


def talk_both(client, peer):
    client.send(b"abc")
    assert peer.read(3) == b"abc"
    peer.send(b"defg")
    assert client.read(4) == b"defg"


def test_failures(logged):
    """The label is that of the counter, of every way to be refused."""
    proxy, api, path = logged()

    def ask(client, octets):
        with client:
            return client.send(octets).read_all()

    lines = in_turn(path,
                    lambda: ask(wire.Client(proxy.address), b"\x07nonsense"),
                    lambda: refused(proxy),
                    lambda: ask(wire.Client(proxy.address), wire.http_connect("no.such.name.invalid", 80)),
                    lambda: ask(wire.greet(wire.Client(proxy.address)), wire.socks5("127.0.0.1", 1, 9)))
    assert [line["result"] for line in lines][:2] == ["version", "refused"] and lines[3]["result"] == "command"
    assert lines[0]["protocol"] is None and lines[0]["command"] is None and lines[0]["handshake_us"] is None
    assert lines[1]["status"] == 502 and lines[1]["method"] == "GET" and lines[1]["dialed"] == "127.0.0.1:1"
    assert lines[2]["target"] == "no.such.name.invalid:80" and lines[2]["result"].startswith("resolve")
    text = api.get("/metrics").text
    for line in lines:
        assert re.search(rf'sluice_failures_total{{reason="{line["result"]}"}} 1\n', text)


def test_each_connection_has_a_line(logged, origin):
    """Also those that are reset at accept; of a flood of them the lines say how many have none."""
    proxy, api, path = logged("--workers", "2", "--max-sessions", "3", "--deny-client", "127.0.0.2")
    target = origin()

    def knock(source):
        try:
            with wire.Client(proxy.address, source=(source, 0)) as client:
                at = "%s:%d" % client.socket.getsockname()
                return client.ends_with() == "reset" and at
        except ConnectionResetError:
            return None

    def counted(family):
        found = re.findall(rf'^{family}\{{reason="(\w+)"\}} (\d+)$', api.get("/metrics").text, re.MULTILINE)
        return {label: int(number) for label, number in found if int(number)}

    def results():
        return collections.Counter(line["result"] for line in lines_of(path) if line["event"] == "end")

    talk(wire.through_socks5(proxy.address, "127.0.0.1", target.port))
    with wire.Client(proxy.address) as client:
        client.send(b"\x07").read_all()
    wait_for_lines(path, 2)
    at = knock("127.0.0.2")
    line = wait_for_lines(path, 3)[-1]
    assert line["result"] == "client_denied" and line["client"].startswith("127.0.0.2:") and at in (None, line["client"])
    assert line["id"] is None and line["listener"] == proxy.url and line["protocol"] is None and line["up"] == line["down"] == 0
    assert process.wait_until(lambda: metric(api, "neosocksd_sessions_active") == 0)
    held = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(3)]
    knock("127.0.0.1")
    assert wait_for_lines(path, 4)[-1]["result"] == "max_sessions"
    held[0].reset()
    wait_for_lines(path, 5)
    for client in held[1:]:
        client.shut().read_all()
        client.close()
    wait_for_lines(path, 7)
    process.becomes(lambda: counted("sluice_failures_total"), {"version": 1, "client_denied": 1, "client_reset": 1})
    process.becomes(lambda: counted("sluice_connections_refused_total"), {"max_sessions": 1})
    assert results() == {"ok": 3, "version": 1, "client_denied": 1, "client_reset": 1, "max_sessions": 1}
    for _ in range(400):
        knock("127.0.0.2")
    process.becomes(lambda: counted("sluice_failures_total")["client_denied"], 401)
    process.becomes(lambda: results()["client_denied"] + metric(api, "sluice_access_log_suppressed_total"), 401)
    suppressed = metric(api, "sluice_access_log_suppressed_total")
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    others = [line for line in lines_of(path) if line["event"] != "end"]
    assert {line["event"] for line in others} <= {"suppressed"} and sum(line["suppressed"] for line in others) == suppressed
    assert all(line["id"] is None and line["result"] is None for line in others)
    assert results()["client_denied"] + suppressed == 401 and sum(results().values()) + suppressed == 7 + 400


def test_reset_client_has_its_address(logged):
    """Also when nobody could ask the kernel any more."""
    proxy, _api, path = logged()
    client = wire.Client(proxy.address)
    at = "%s:%d" % client.socket.getsockname()
    client.send(b"\x05")
    origins.reset(client.socket)
    line, = wait_for_lines(path, 1)
    assert line["client"] == at and line["result"] == "peer"


def test_each_request_of_a_connection(logged, origin):
    def three(_origin, connection):
        while head := origins.read_http_head(connection):
            number = int(head[len(b"POST /"):][:1])
            connection.sendall(b"HTTP/1.1 %d Fine\r\nContent-Length: %d\r\n\r\n" % (200 + number, number) + b"x" * number)

    proxy, api, path = logged()
    target = origin(three)
    with wire.Client(proxy.address) as client:
        for number in range(3):
            client.send(b"POST http://127.0.0.1:%d/%d?secret=%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
                        % (target.port, number, number))
            assert client.read_head().startswith(b"HTTP/1.1 %d" % (200 + number))
            assert client.read(number) == b"x" * number
        lines = wait_for_lines(path, 3)
    assert [line["path"] for line in lines] == ["/0", "/1", "/2"]
    assert [line["status"] for line in lines] == [200, 201, 202]
    assert {line["id"] for line in lines} == {lines[0]["id"]} and {line["method"] for line in lines} == {"POST"}
    assert {line["host"] for line in lines} == {"127.0.0.1"} and {line["command"] for line in lines} == {"request"}
    assert sum(line["up"] for line in lines) == metric(api, "neosocksd_uplink_bytes_total")
    assert sum(line["down"] for line in lines) == metric(api, "neosocksd_downlink_bytes_total")
    assert proxy.alive()
    wait_for_lines(path, 3)  # the end of an idle connection is no request


def test_sums_are_the_counters(logged, origin):
    """To the octet: bulk, resets on either side, half-closed ones, and what a stop cuts off."""
    proxy, api, path = logged()
    bulk, echo = origin(origins.flood), origin()
    for number in range(6):
        client = wire.through_socks5(proxy.address, "127.0.0.1", bulk.port)
        client.read(300000 + 7001 * number)
        if number % 2:
            origins.reset(client.socket)
        client.close()
    for number in range(6):
        talk(wire.through_http(proxy.address, "127.0.0.1", echo.port), b"y" * (1 + 40000 * number))
    lines = wait_for_lines(path, 12)
    assert process.wait_until(lambda: metric(api, "neosocksd_sessions_active") == 0)
    assert sum(line["up"] for line in lines) == metric(api, "neosocksd_uplink_bytes_total")
    assert sum(line["down"] for line in lines) == metric(api, "neosocksd_downlink_bytes_total")
    left = [wire.through_socks5(proxy.address, "127.0.0.1", echo.port) for _ in range(20)]
    for client in left:
        client.send(b"stay")
        assert client.read(4) == b"stay"
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    lines = wait_for_lines(path, 32)[12:]  # those of before were all written by then
    assert {(line["up"], line["down"], line["result"]) for line in lines} == {(4, 4, "drain")}


def test_rule_revision_and_decision(logged, origin):
    proxy, api, path = logged(script="""
        local function route(addr) sluice.tag('gold "1"') return addr end
        return { resolve = route, route = route, route6 = route }""")
    target = origin()
    talk(wire.through_socks5(proxy.address, "127.0.0.1", target.port))
    line, = wait_for_lines(path, 1)
    assert line["rule"] == 'gold "1"' and line["revision"] == metric(api, "sluice_ruleset_revision") == 1
    assert line["decision_us"] >= 0


def test_chain_without_password(logged, sluice, origin):
    hop, last = sluice(), sluice()
    proxy, _api, path = logged("-x", f"socks5://me:hush@127.0.0.1:{hop.port},http://127.0.0.1:{last.port}")
    target = origin()
    talk(wire.through_socks5(proxy.address, "127.0.0.1", target.port))
    line, = wait_for_lines(path, 1)
    assert line["chain"] == f"socks5://127.0.0.1:{hop.port} http://127.0.0.1:{last.port}"
    assert line["dialed"] == f"127.0.0.1:{hop.port}" and line["target"] == f"127.0.0.1:{target.port}"


# --- whether it is true ---

def address_of(connection):
    return "%s:%d" % connection[:2]


def elapsed_us(since):
    return (time.monotonic() - since) * 1e6


def test_times_and_ends_are_those_of_a_tunnel(logged, origin, dns):
    """Each part takes as long at least as somebody has held it up, and all of them no longer than what the client sees."""
    seen = []

    def hop(_origin, connection):  # a proxy that takes its time for its answer, and a target that does
        seen.append(address_of(connection.getpeername()))
        connection.recv(64)
        connection.sendall(b"\5\0")
        connection.recv(64)
        time.sleep(0.2)
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")
        heard = connection.recv(64)
        time.sleep(0.3)
        connection.sendall(heard * 3)
        return connection.recv(1) == b""

    server, proxy_of_chain = dns(), origin(hop)
    server.add("hop.example", "127.0.0.1")
    server.silent.add(("hop.example", 28))  # 50 ms are waited for its other family
    proxy, _api, path = logged("--nameserver", server.text, script=f"""
        local function route(addr) await.sleep(0.25) return addr, 'socks5://me:hush@hop.example:{proxy_of_chain.port}' end
        return {{ resolve = route, route = route, route6 = route }}""")
    begun = time.monotonic()
    with wire.Client(proxy.address) as client:
        at = address_of(client.socket.getsockname())
        client.send(b"\5\1\0")
        assert client.read(2) == b"\5\0"
        time.sleep(0.2)
        client.send(wire.socks5("192.0.2.7", 443))
        assert wire.read_socks5_reply(client)[0] == 0
        client.send(b"hello")
        assert client.read(15) == b"hello" * 3
        time.sleep(0.2)
        client.shut()
        assert client.read_all() == b""
    line, = wait_for_lines(path, 1)
    took = elapsed_us(begun)
    parts = [line[name] for name in ["handshake_us", "decision_us", "resolve_us", "connect_us"]]
    assert all(part >= least for part, least in zip(parts, [200_000, 250_000, 40_000, 200_000])), line
    assert line["first_byte_us"] >= sum(parts) + 300_000 and line["total_us"] >= line["first_byte_us"] + 200_000 and took >= line["total_us"]
    assert line["client"] == at and line["target"] == "192.0.2.7:443" and (line["up"], line["down"]) == (5, 15)
    assert line["dialed"] == f"127.0.0.1:{proxy_of_chain.port}" and [line["egress"]] == seen
    assert line["chain"] == f"socks5://hop.example:{proxy_of_chain.port}" and "hush" not in open(path, encoding="utf-8").read()
    assert all(0 < line[name] <= took for name in ["client_rtt_us", "target_rtt_us"])
    assert line["client_retrans"] >= 0 and line["target_retrans"] >= 0  # a starved machine acknowledges late


def test_each_request_has_its_own_figures(logged, origin):
    """On one connection of the client. The last one takes an upstream of before, which no request with a body does."""
    pause, sizes, seen = 0.4, [10, 70_000, 3], []

    def pages(_origin, connection):
        while head := origins.read_http_head(connection):
            body = int((re.search(rb"Content-Length: (\d+)", head) or [0, 0])[1])
            while body > 0:
                part = connection.recv(body)
                head, body = head + part, body - len(part)
            seen.append((address_of(connection.getpeername()), len(head)))
            size = sizes[len(seen) - 1]
            time.sleep(pause)
            connection.sendall(b"HTTP/1.1 200 Fine\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    proxy, _api, path = logged()
    target = origin(pages)
    downs, spans = [], []
    with wire.Client(proxy.address) as client:
        at = address_of(client.socket.getsockname())
        for count, size in enumerate(sizes):
            time.sleep(pause)
            begun = time.monotonic()
            body = b"Content-Length: %d\r\n\r\n" % (9 * size) + b"y" * 9 * size if count == 1 else b"\r\n"
            client.send(b"%s http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n%s" % (b"POST" if count == 1 else b"GET", target.port, body))
            head = client.read_head()
            assert client.read(size) == b"x" * size
            downs.append(len(head) + size)
            lines = wait_for_lines(path, count + 1)
            spans.append(elapsed_us(begun))
    assert [line["down"] for line in lines] == downs and [(line["egress"], line["up"]) for line in lines] == seen
    for line, span in list(zip(lines, spans))[1:]:  # what the client did before its request is no part of it
        assert span >= line["total_us"] >= line["first_byte_us"] >= pause * 1e6 and line["handshake_us"] <= line["first_byte_us"]
    assert lines[0]["total_us"] >= lines[0]["first_byte_us"] >= lines[0]["handshake_us"] + pause * 1e6
    assert seen[0][0] != seen[1][0] and seen[2][0] in (seen[0][0], seen[1][0]) and {line["client"] for line in lines} == {at}
    assert {line["dialed"] for line in lines} == {f"127.0.0.1:{target.port}"} and all(line["client_rtt_us"] > 0 < line["target_rtt_us"] for line in lines)


def test_figures_of_datagrams(logged):
    """Octets are what targets and client get, without the headers of SOCKS; times begin with the connection."""
    proxy, _api, path = logged(UDP)
    target, pause = Target(), 0.2
    begun = time.monotonic()
    with Association(proxy) as association:
        at = address_of(association.control.socket.getsockname())
        time.sleep(pause)
        for size in (1, 300, 1200):
            association.send(b"z" * size, "127.0.0.1", target.port)
            assert len(association.receive()[0]) == size
        association.raw(b"\0\0\1" + wire.socks5_address("127.0.0.1", target.port) + b"a fragment")  # is dropped, and no payload
    line, = wait_for_lines(path, 1)
    took = elapsed_us(begun)
    target.close()
    assert (line["up"], line["down"], line["relay"]) == (1501, 1501, "copy") and line["client"] == at
    assert took >= line["total_us"] >= line["first_byte_us"] >= line["handshake_us"] + pause * 1e6 and line["connect_us"] is None
    assert line["egress"] is None and line["target_rtt_us"] is None and 0 < line["client_rtt_us"] <= took


def test_segments_that_were_sent_again(logged):
    """The kernel's own count in a namespace, where nothing but the way to the target loses anything."""
    try:
        space = namespaces.Namespace(f"sluice-lossy-{os.getpid()}")
    except namespaces.Unavailable as error:
        pytest.skip(str(error))
    try:
        target = space.call(origins.Origin, origins.echo)
        rules = f"tcp dport {target.port} meta length > 1000 numgen inc mod 5 == 3 drop"
        for words in (["add", "table", "inet", "t"], ["add", "chain", "inet", "t", "c", "{ type filter hook input priority 0; }"],
                      ["add", "rule", "inet", "t", "c", *rules.split()]):
            if space.run("nft", *words, check=False).returncode != 0:
                pytest.skip("no nftables here")
        proxy, _api, path = logged(prefix=space.prefix)
        client = space.call(wire.through_socks5, proxy.address, "127.0.0.1", target.port)
        talk(client, b"x" * 400_000)
        line, = wait_for_lines(path, 1, 30)
        names, values = (row.split() for row in space.run("cat", "/proc/net/snmp").stdout.splitlines() if row.startswith("Tcp:"))
        again = int(values[names.index("RetransSegs")])
        # Where acknowledgements come late, other sockets send again, too.
        assert 0 < line["target_retrans"] <= again - line["client_retrans"] and line["up"] == line["down"] == 400_000
        target.close()
    finally:
        space.close()


def test_start_lines(logged, origin):
    proxy, _api, path = logged("--access-log-start")
    talk(wire.through_socks5(proxy.address, "127.0.0.1", origin().port))
    wait_for_lines(path, 2)
    refused(proxy)
    start, end, failed = wait_for_lines(path, 3)
    assert (start["event"], end["event"], failed["event"]) == ("start", "end", "end")
    assert start["id"] == end["id"] and start["result"] is None and start["dialed"] == end["dialed"]


# --- what clients choose ---

def test_hostile_texts(logged):
    """Nobody ends a line, a field or a string; nothing that is secret is there."""
    proxy, _api, path = logged()
    user = b'a\n{"event":"end"}\r\x1b[31m\\"\xff\xc3\xa9'
    named, line = in_turn(path, lambda: refused_by_name(proxy, user),
                          lambda: refused(proxy, b"me", b"/p?query-secret=1"))
    assert named["user"] == 'a\n{"event":"end"}\r\x1b[31m\\"\ufffd\u00e9' and line["path"] == "/p" and line["user"] == "me"
    raw = open(path, "rb").read()
    assert raw.count(b"\n") == 2 and not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", raw)
    assert b"secret" not in raw


def test_query_when_asked_for(logged):
    proxy, _api, path = logged("--access-log-query")
    refused(proxy, path=b"/p?a=b")
    line, = wait_for_lines(path, 1)
    assert line["path"] == "/p?a=b"


def test_long_path_is_cut(logged):
    proxy, _api, path = logged()
    refused(proxy, path=b"/" + b"%22" * 7000)
    line, = wait_for_lines(path, 1)
    assert line["truncated"] and 900 <= len(line["path"]) < 2048 and line["result"] == "refused"


@pytest.mark.parametrize("form, named, asked", [
    ("logfmt", rb'time=\S+ event=end .* client=127\.0\.0\.1:\d+ user="x\\u000ay \\"z\\"\xef\xbf\xbd" target=127\.0\.0\.1:1 .*',
     rb'.* method=GET host=127\.0\.0\.1 path="/a\\"b" status=502 .*'),
    ("clf", rb'127\.0\.0\.1 - x\\x0ay\\x20\\x22z\\x22\\xff \[[^\]]+ \+0000\] "connect 127\.0\.0\.1:1 socks4" - 0',
     rb'127\.0\.0\.1 - me \[[^\]]+ \+0000\] "GET http://127\.0\.0\.1:1/a\\x22b http" 502 0'),
    ("{client} {user} {path}", rb'127\.0\.0\.1:\d+ x\\x0ay\\x20\\x22z\\x22\\xff -', rb'127\.0\.0\.1:\d+ me /a\\x22b'),
], ids=["logfmt", "clf", "template"])
def test_other_formats_are_lines(logged, form, named, asked):
    proxy, _api, path = logged("--access-log-format", form)
    refused_by_name(proxy, b'x\ny "z"\xff')
    assert process.wait_until(lambda: open(path, "rb").read().count(b"\n") == 1)
    refused(proxy, b"me", b'/a"b')
    assert process.wait_until(lambda: open(path, "rb").read().count(b"\n") == 2)
    raw = open(path, "rb").read()
    first, second = raw.splitlines()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", raw) and b"secret" not in raw
    assert re.fullmatch(named, first) and re.fullmatch(asked, second), raw


def test_jq_reads_it(logged):
    jq = shutil.which("jq")
    if not jq:
        pytest.skip("jq is missing: apt-get install jq")
    proxy, _api, path = logged()
    for number in range(3):
        refused(proxy, b"user%d" % number)
    wait_for_lines(path, 3)
    done = subprocess.run([jq, "-s", "-r", "map(select(.total_us >= 0) | .user) | sort | join(\" \")", path], capture_output=True, check=True)
    assert done.stdout == b"user0 user1 user2\n"


# --- rotation ---

def open_files(proxy):
    found = []
    for name in os.listdir(f"/proc/{proxy.pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{proxy.pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


@pytest.mark.parametrize("hangup", [False, True])
def test_moved_file_is_let_go(logged, hangup):
    """While nothing is written at all."""
    proxy, _api, path = logged()
    refused(proxy)
    wait_for_lines(path, 1)
    os.rename(path, path + ".1")
    if hangup:
        proxy.signal(signal.SIGHUP)
    # the new file is open before the old one is closed
    assert process.wait_until(lambda: path in open_files(proxy) and path + ".1" not in open_files(proxy), LATE)
    refused(proxy)
    wait_for_lines(path, 1)
    assert len(lines_of(path + ".1")) == 1


def test_truncated_file_has_no_hole(logged):
    proxy, _api, path = logged()
    for _ in range(3):
        refused(proxy)
    wait_for_lines(path, 3)
    os.truncate(path, 0)
    refused(proxy)
    wait_for_lines(path, 1)
    assert b"\0" not in open(path, "rb").read()


def test_file_that_cannot_be_opened_again(logged):
    """The one that is open stays, and a line says so, once."""
    proxy, _api, path = logged()
    refused(proxy)
    wait_for_lines(path, 1)
    proxy.stop()  # lest it open the file anew between these two
    os.rename(path, path + ".1")
    os.mkdir(path)
    proxy.signal(signal.SIGCONT)
    assert proxy.says("cannot be opened again")
    refused(proxy)
    wait_for_lines(path + ".1", 2)
    time.sleep(1.2)  # two more looks
    assert proxy.log().count("cannot be opened again") == 1
    os.rmdir(path)
    assert process.wait_until(lambda: os.path.exists(path), LATE)
    refused(proxy)
    wait_for_lines(path, 1)


# --- full disks, readers that sleep or go ---

def in_mounts(command):
    """A prefix: the program runs in a mount namespace of its own, in which the command was run before it."""
    return ("unshare", "--mount", "sh", "-c", f'{command} || exit 77; exec "$@"', "sh")


@pytest.fixture
def mounts():
    if subprocess.run([*in_mounts("mount -t tmpfs tmpfs /mnt"), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespaces here")
    return in_mounts


def test_full_disk(ruled, mounts, tmp_path, origin):
    """Traffic goes on, what is lost is counted and said, and behind the free space each line is whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    proxy, api = ruled(None, "--workers", "1", "--access-log", str(disk / "access.log"),
                       prefix=mounts(f"mount -t tmpfs -o size=1m tmpfs {disk} && dd if=/dev/zero of={disk}/filler bs=1k count=900 status=none"))
    inside = f"/proc/{proxy.pid}/root{disk}"
    long = b"/" + b"x" * 1300
    target = origin()
    count = 0
    while metric(api, "sluice_access_log_lost_total") == 0:
        assert count < 20000
        for _ in range(250):
            refused(proxy, b"u" * 250, long)
        count += 250
    process.becomes(lambda: metric(api, "sluice_access_log_broken"), 1)
    assert proxy.says("No space left on device")
    assert proxy.says("lines are lost")
    assert proxy.rss() < 120 << 20 or process.SANITIZED
    talk(wire.through_socks5(proxy.address, "127.0.0.1", target.port))
    os.truncate(f"{inside}/filler", 0)
    os.truncate(f"{inside}/access.log", 0)

    def whole_lines():
        """But for the first one, whose front may have found room before."""
        return [line for line in open(f"{inside}/access.log", "rb").read().split(b"\n")[1:-1] if line]

    assert process.wait_until(whole_lines) and all(json.loads(line)["result"] for line in whole_lines())
    assert b"\0" not in open(f"{inside}/access.log", "rb").read()


def unix_reader(path, kind):
    reader = socket.socket(socket.AF_UNIX, kind)
    reader.bind(path)
    reader.settimeout(15 * process.SLOW)
    if kind == socket.SOCK_STREAM:
        reader.listen(4)
    return reader


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["datagrams", "stream"])
def test_moved_socket_is_let_go(ruled, tmp_path, kind):
    """By SIGHUP, though its reader is still there; a stream's at once, while nothing is written."""
    where = str(tmp_path / "log.socket")

    def next_user(reader):
        return json.loads(reader.recv(65536))["user"]

    def accepted(reader):
        if kind == socket.SOCK_DGRAM:
            return reader
        stream, _ = reader.accept()
        stream.settimeout(15 * process.SLOW)
        return stream

    first = unix_reader(where, kind)
    proxy, _api = ruled(None, "--access-log", f"unix:{where}")
    old = accepted(first)
    refused(proxy, b"one")
    assert next_user(old) == "one"
    os.rename(where, where + ".1")
    second = unix_reader(where, kind)
    proxy.signal(signal.SIGHUP)
    if kind == socket.SOCK_STREAM:
        assert old.recv(1) == b""
    new = accepted(second) if kind == socket.SOCK_STREAM else second

    def arrives():  # a datagram before that has gone to the old one
        refused(proxy, b"two")
        return select.select([new], [], [], 0.2)[0]

    assert process.wait_until(arrives)
    assert next_user(new) == "two"
    for reader in (old, new, first, second):
        reader.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["datagrams", "stream"])
def test_reader_that_goes_and_comes_back(ruled, tmp_path, kind):
    where = str(tmp_path / "log.socket")
    proxy, api = ruled(None, "--access-log", f"unix:{where}")
    proxy.check_descriptors = False  # the log's own comes and goes
    refused(proxy, b"nobody")  # waits until somebody reads
    assert process.wait_until(lambda: "nobody reads there" in proxy.log())

    def read_users(reader, count):
        users, stream = [], reader
        if kind == socket.SOCK_STREAM:
            stream, _ = reader.accept()
            stream.settimeout(15 * process.SLOW)
        data = b""
        while len(users) < count:
            part = stream.recv(65536)
            assert part
            data = data + part + (b"\n" if kind == socket.SOCK_DGRAM else b"")
            *whole, data = data.split(b"\n")
            users += [json.loads(line)["user"] for line in whole]
        return users, stream

    first = unix_reader(where, kind)
    refused(proxy, b"one")
    users, stream = read_users(first, 2)
    assert sorted(users) == ["nobody", "one"]
    stream.close()
    first.close()
    os.unlink(where)
    second = unix_reader(where, kind)
    refused(proxy, b"two")
    refused(proxy, b"three")
    users, stream = read_users(second, 2 if kind == socket.SOCK_DGRAM else 1)
    assert set(users) <= {"two", "three"}
    assert metric(api, "sluice_access_log_lost_total") == 0
    stream.close()
    second.close()


# write, writev, sendto, sendmsg, sendmmsg
WRITES = {"x86_64": {1, 20, 44, 46, 307}, "aarch64": {64, 66, 206, 211, 269}}.get(os.uname().machine, set())


def waits_of(proxy):
    """[(thread, the system call in which it sleeps)]; one that runs has none."""
    found = []
    for thread in os.listdir(f"/proc/{proxy.pid}/task"):
        try:
            with open(f"/proc/{proxy.pid}/task/{thread}/comm", encoding="utf-8") as comm, \
                    open(f"/proc/{proxy.pid}/task/{thread}/syscall", encoding="utf-8") as call:
                found.append((comm.read().strip(), int(call.read().split()[0].replace("running", "-1"))))
        except (FileNotFoundError, PermissionError):
            continue
    return found


def test_reader_that_sleeps(ruled, tmp_path, origin):
    """What it does not read is lost in the end, and no client waits for that."""
    where = str(tmp_path / "log.socket")
    reader = unix_reader(where, socket.SOCK_DGRAM)
    proxy, api = ruled(None, "--workers", "1", "--access-log", f"unix:{where}")
    target, count, waits = origin(), 0, []
    while metric(api, "sluice_access_log_lost_total") == 0:
        assert count < 20000
        for _ in range(250):
            refused(proxy, b"u" * 250, b"/" + b"x" * 1300)
        count += 250
        talk(wire.through_socks5(proxy.address, "127.0.0.1", target.port))
        waits += waits_of(proxy)
    assert process.wait_until(lambda: re.search(r"access-log: \d+ lines are lost", proxy.log()))
    assert {name for name, _ in waits} >= {"access-log", "worker-0"} or not os.access(f"/proc/{proxy.pid}/syscall", os.R_OK), set(waits)
    assert not [name for name, call in waits if call in WRITES and name in ("access-log", "worker-0")], set(waits)
    reader.recv(65536)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    lost = sum(int(number) for number in re.findall(r"access-log: (\d+) lines are lost", proxy.log()))
    assert lost > 0
    reader.close()


def read_entry(data):
    """The fields of an entry of journald's native protocol."""
    fields = {}
    while data:
        end = data.index(b"\n")
        if b"=" in data[:end]:
            name, value = data[:end].split(b"=", 1)
            data = data[end + 1:]
        else:
            name, size = data[:end], int.from_bytes(data[end + 1:end + 9], "little")
            value, data = data[end + 9:end + 9 + size], data[end + 9 + size:]
            assert data[:1] == b"\n"
            data = data[1:]
        fields[name.decode()] = value
    return fields


def test_journald(ruled, mounts):
    proxy, _api = ruled(None, "--access-log", "journald", prefix=mounts("mkdir -p /run/systemd/journal && mount -t tmpfs tmpfs /run/systemd/journal"))
    proxy.check_descriptors = False
    reader = unix_reader(f"/proc/{proxy.pid}/root/run/systemd/journal/socket", socket.SOCK_DGRAM)
    refused_by_name(proxy, b"a\nMESSAGE=forged\xff")
    data, ancillary, _, _ = reader.recvmsg(1 << 20, socket.CMSG_SPACE(64))
    if not data:
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2])
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            data = file.read()
    fields = read_entry(data)
    assert fields["SYSLOG_IDENTIFIER"] == b"sluice" and fields["PRIORITY"] == b"6"
    assert fields["SLUICE_USER"] == b"a\nMESSAGE=forged\xff" and fields["SLUICE_RESULT"] == b"refused"
    assert json.loads(fields["MESSAGE"])["result"] == "refused" and "SLUICE_CHAIN" not in fields
    reader.close()


def test_syslog(ruled, tmp_path):
    """Each line is an entry, whole in spite of what a client has chosen; SIGHUP finds another daemon, though the first one is there."""
    if not namespaces.can_mount():
        pytest.skip("no mounts of one's own here")
    folder = tmp_path / "dev"
    folder.mkdir()
    nodes = [name for name in ["null", "urandom", "random", "zero"] if os.path.exists("/dev/" + name)]
    for name in nodes:
        (folder / name).touch()
    mounts = [f"mount --bind /dev/{name} {folder}/{name}" for name in nodes] + [f"mount --rbind {folder} /dev"]
    first = unix_reader(str(folder / "log"), socket.SOCK_DGRAM)
    proxy, _api = ruled(None, "--access-log", "syslog", prefix=namespaces.with_mounts(*mounts))

    def line_of(entry):
        head, text = re.fullmatch(rb"(<14>\w{3} [ \d]\d \d\d:\d\d:\d\d sluice\[\d+\]: )(\{.*\})", entry).groups()
        assert len(head) + len(text) <= 8000
        return json.loads(text)

    refused_by_name(proxy, b"\x01\n<0>forged: " + b"\x02" * 240)
    line = line_of(first.recv(65536))
    assert line["user"] == "\x01\n<0>forged: " + "\x02" * 240 and line["result"] == "refused" and not line["truncated"]
    os.rename(folder / "log", folder / "old")
    second = unix_reader(str(folder / "log"), socket.SOCK_DGRAM)
    proxy.signal(signal.SIGHUP)

    def arrives():
        refused_by_name(proxy, b"two")
        return select.select([second], [], [], 0.2)[0]

    assert process.wait_until(arrives)
    assert line_of(second.recv(65536))["user"] == "two"
    first.close()
    second.close()


def test_standard_output(sluice):
    proxy = sluice("--access-log", "stdout", "--access-log-format", "{result} {target} {up}")
    refused(proxy)
    assert process.wait_until(lambda: "refused 127.0.0.1:1 0\n" in proxy.log())


# --- a stop, privileges, wrong options ---

def test_nothing_is_lost_at_a_stop(logged):
    proxy, _api, path = logged()
    for number in range(300):
        refused(proxy, b"u%d" % number)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    assert sorted(line["user"] for line in lines_of(path) if line["user"]) == sorted(f"u{number}" for number in range(300))


def test_after_privileges_have_gone(request, sluice):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tempfile.mkdtemp(prefix="sluice-logs-")  # pytest closes its own folders to others whenever another run begins
    request.addfinalizer(lambda: shutil.rmtree(folder))
    os.chown(folder, 65534, 65534)
    path = os.path.join(folder, "access.log")
    proxy = sluice("--access-log", path, "-u", "65534:65534")
    assert os.stat(path).st_uid == 65534 and os.stat(path).st_mode & 0o777 == 0o640
    os.rename(path, path + ".1")
    assert process.wait_until(lambda: os.path.exists(path), LATE), proxy.log()
    refused(proxy)
    wait_for_lines(path, 1)


@pytest.mark.parametrize("words, cause, remedy", [
    (["--access-log", ""], "names nothing", "FILE, unix:/path"),
    (["--access-log", "/nonexistent/x/access.log"], "No such file or directory", "make its folder first"),
    (["--access-log", "/"], "Is a directory", "name a file in it"),
    (["--access-log", "unix:relative"], "is no path of a socket", "absolute path"),
    (["--access-log", "unix:/" + "x" * 120], "is no path of a socket", "107 octets"),
    (["--access-log", "stdout", "-d"], "has no standard output", "name a file"),
    (["--access-log", "stdout", "--access-log-format", "{password}"], 'unknown field "password"', "docs/access-log.md"),
    (["--access-log", "stdout", "--access-log-format", "jsn"], "no field stands in it", "give json"),
    (["--access-log", "stdout", "--access-log-format", "{up"], "a field is {name}", "give json"),
    (["--access-log-start"], "there is no access log", "give --access-log"),
    (["--access-log-query"], "there is no access log", "leave it out"),
])
def test_what_cannot_be(words, cause, remedy):
    code, _out, err = process.run("-l", f"127.0.0.1:{process.free_port()}", *words)
    assert code == 1
    line, = [line for line in err.splitlines() if "access-log" in line]
    assert cause in line and remedy in line


def test_check_tries_and_leaves_no_trace(tmp_path):
    words = ["-l", f"127.0.0.1:{process.free_port()}", "--check", "--access-log"]
    assert process.run(*words, str(tmp_path / "log"))[0] == 0 and os.listdir(tmp_path) == []
    (tmp_path / "log").write_text("kept\n")
    assert process.run(*words, str(tmp_path / "log"))[0] == 0 and (tmp_path / "log").read_text() == "kept\n"
    code, _out, err = process.run(*words, str(tmp_path))
    assert code == 1 and "name a file in it" in err


def test_fifo_without_reader(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    code, _out, err = process.run("-l", f"127.0.0.1:{process.free_port()}", "--access-log", str(tmp_path / "fifo"))
    assert code == 1 and "FIFO that nobody reads" in err


def test_fail2ban_reads_it(logged):
    """Its filter finds who is refused for his password or his protocol, and nobody whom such a client names."""
    filter_file = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "fail2ban", "sluice-access.conf")
    with open(filter_file, encoding="utf-8") as conf:
        expression = re.search(r"^failregex = (.*)$", conf.read(), re.MULTILINE).group(1)
    pattern = re.compile(expression.replace("<HOST>", r"(?P<host>[0-9a-f.:]+?)"))
    proxy, _api, path = logged("--access-log-format", "logfmt", "--deny-client", "127.0.0.2")

    def next_line(count):
        assert process.wait_until(lambda: open(path, "rb").read().count(b"\n") == count)
        line = open(path, encoding="utf-8").read().splitlines()[-1]
        return re.sub(r"^time=\S+", "", line)  # which the date pattern takes off the line

    with wire.Client(proxy.address) as client:
        client.send(b"\x07")
        client.read_all()
    assert pattern.search(next_line(1)).group("host") == "127.0.0.1"
    refused_by_name(proxy, b'x" client=192.0.2.1:1 result=auth up=1')
    assert pattern.search(next_line(2)) is None
    refused(proxy, b"someone")
    assert pattern.search(next_line(3)) is None
    with pytest.raises(ConnectionResetError), wire.Client(proxy.address, source=("127.0.0.2", 0)) as client:
        client.socket.recv(1)
    assert pattern.search(next_line(4)).group("host") == "127.0.0.2"
    if shutil.which("fail2ban-regex"):
        done = subprocess.run(["fail2ban-regex", "-o", "ip", path, filter_file], capture_output=True, text=True, timeout=60 * process.SLOW, check=False)
        assert done.stdout.split() == ["127.0.0.1", "127.0.0.2"], done
