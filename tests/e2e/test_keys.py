"""Limits by key: connections, their rate, octets per second and per period, for each source, user, rule or name.

Speeds are tested by what cannot come sooner than they allow, never by how long something takes at most."""
import errno
import hashlib
import re
import signal
import time

import pytest

import origins
import process
import wire
from test_udp import ON as UDP
from test_udp import Association, Target

NOT_ALLOWED = wire.socks5_failure(2)


def failures(api, label):
    found = re.search(rf'sluice_failures_total{{reason="{label}"}} (\d+)', api.get("/metrics").text)
    return int(found.group(1))


def refusal(proxy, target, *fields):
    """The whole answer to a CONNECT."""
    with wire.Client(proxy.address) as client:
        return client.send(wire.http_connect("127.0.0.1", target.port, b"".join(fields))).read_all()


def is_refused(proxy, target):
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5("127.0.0.1", target.port))
        return client.read(10) == NOT_ALLOWED


def serves(proxy, target):
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5("127.0.0.1", target.port))
        return wire.read_socks5_reply(client)[0] == 0


def read_until_cut(client):
    """Everything until the reset; an orderly end is a failure."""
    data = b""
    while True:
        try:
            part = client.socket.recv(1 << 20)
        except ConnectionResetError:
            return data
        assert part, f"an orderly end behind {len(data)} octets"
        data += part


def pour(size, behind=0):
    """A handler that receives `behind` octets, and then sends so many and its end; it returns what has become of that."""
    def handler(_origin, connection):
        try:
            left = behind
            while left > 0 and (got := connection.recv(left)):
                left -= len(got)
            connection.sendall(bytes(size))
            connection.shutdown(1)
            return "reset" if connection.recv(1) else "end"
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):  # the last: shutdown() behind a reset
                raise
            return "reset"

    return handler


def nobody_is_under(api, key):
    """A session counts for its key until nothing of it is in flight, longer than it counts as established."""
    answer = api.get("/limits/" + key)
    return answer.status == 404 or answer.json()["connections"] == 0


# --- connections ---

@pytest.mark.parametrize("workers, key", [(1, "source"), (4, "source"), (16, "source"), (2, "total"), (16, "total"), (2, "source:127.0.0.1")])
def test_connections_at_a_time(ruled, origin, workers, key):
    proxy, api = ruled(None, "--workers", workers, "--limit", f"{key}: connections=3")
    target = origin()
    for _ in range(3):
        clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(3)]
        for _ in range(20):
            assert is_refused(proxy, target)
        with wire.Client(proxy.address) as client:
            assert client.send(wire.socks4("127.0.0.1", target.port)).read(9) == wire.SOCKS4_REJECTED
        answer = refusal(proxy, target)
        assert wire.status_of(answer) == (429, "Too Many Requests")
        assert b"retry-after" not in answer.lower()
        for client in clients:
            assert client.send(b"alive").read(5) == b"alive"
            client.close()
        assert process.wait_until(lambda: serves(proxy, target))
        assert process.wait_until(lambda: nobody_is_under(api, key if key != "source" else "source:127.0.0.1"))
    assert failures(api, "limit_connections") >= 3 * 22


def test_refusals_of_every_kind_leave_nothing_behind(ruled, origin):
    """Wrong passwords, no target, another limit: the gauge is as before, and exactly as many are admitted."""
    script = 'return {login = function(user) return user == "alice" end, route = function(addr) return addr end}'
    proxy, api = ruled(script, "--auth-required", "--limit", "total: connections=4", "--limit", "user: connections=2")
    target, gone = origin(), process.free_port()
    for i in range(40):
        with wire.Client(proxy.address) as client:
            client.send(b"\5\1\2" + wire.socks5_auth(b"mallory", b"x"))
            assert client.read(4) == b"\5\2\1\1"
        with wire.greet(wire.Client(proxy.address), b"alice", b"x") as client:
            client.send(wire.socks5("127.0.0.1", gone))
            assert wire.read_socks5_reply(client)[0] == 5
    assert process.wait_until(lambda: nobody_is_under(api, "total") and nobody_is_under(api, "user:alice"))
    clients = []
    for i in range(6):
        clients.append(wire.greet(wire.Client(proxy.address), b"alice", b"x").send(wire.socks5("127.0.0.1", target.port)))
        assert wire.read_socks5_reply(clients[-1])[0] == (0 if i < 2 else 2)
    assert failures(api, "limit_connections") == 4


def refuse(proxy, target, stage, gone):
    """One connection that fails there, with its protocol's answer."""
    user, password = (b"mallory", b"x") if stage == "login" else (stage.encode(), b"x")
    with wire.Client(proxy.address) as client:
        client.send(b"\5\1\2" + wire.socks5_auth(user, password))
        if stage == "login":
            assert client.read(4) == b"\5\2\1\1"
            return
        assert client.read(4) == b"\5\2\1\0"
        client.send(wire.socks5("127.0.0.2" if stage == "list" else "127.0.0.1", gone if stage == "dial" else target.port))
        assert wire.read_socks5_reply(client)[0] != 0


@pytest.mark.parametrize("stage", ["login", "list", "reject", "rate", "dial", "chain"])
def test_a_thousand_refusals_leave_no_trace(ruled, origin, stage):
    """At whatever stage: nobody is counted as there, and exactly as many are admitted as may come."""
    target, gone = origin(), process.free_port()
    script = """return {login = function(user) return user ~= "mallory" end, route = function(addr, user)
        if user == "reject" then return nil end
        if user == "chain" then return addr, "socks5://127.0.0.1:%d" end
        return addr end}""" % gone
    proxy, api = ruled(script, "--workers", "2", "--auth-required", "--deny-target", "127.0.0.2", "--limit", "total: connections=5",
                       "--limit", "user:rate: rate=1/h")
    if stage == "rate":
        with wire.greet(wire.Client(proxy.address), b"rate", b"x") as client:
            client.send(wire.socks5("127.0.0.1", target.port))
            assert wire.read_socks5_reply(client)[0] == 0
    for _ in range(1000):
        refuse(proxy, target, stage, gone)
    assert process.wait_until(lambda: api.get("/limits/total").json()["connections"] == 0)
    clients = []
    for i in range(8):
        clients.append(wire.greet(wire.Client(proxy.address), b"alice", b"x").send(wire.socks5("127.0.0.1", target.port)))
        assert wire.read_socks5_reply(clients[-1])[0] == (0 if i < 5 else 2)
    assert api.get("/limits/total").json()["connections"] == 5


def test_new_connections_in_a_time(ruled, origin):
    proxy, api = ruled(None, "--limit", "source: rate=2/h burst=3")
    target = origin()
    for _ in range(3):
        assert serves(proxy, target)
    assert is_refused(proxy, target)
    answer = refusal(proxy, target)
    assert wire.status_of(answer) == (429, "Too Many Requests")
    wait = int(re.search(rb"Retry-After: (\d+)\r\n", answer).group(1))
    assert 1700 < wait <= 1800
    assert failures(api, "limit_rate") == 2


# --- octets ---

@pytest.mark.parametrize("relay", ["auto", "splice", "copy"])
def test_a_speed_is_kept_and_every_octet_arrives(sluice, origin, relay):
    proxy = sluice("--relay", relay, "--limit", "total: up=2MB/s down=4MB/s")
    target = origin(origins.digest)
    data = hashlib.sha512(b"limits").digest() * 20000
    begin = time.monotonic()
    with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
        client.send(data).shut()
        assert client.read_all().decode() == hashlib.sha256(data).hexdigest()
    assert time.monotonic() - begin >= (len(data) - 200000) / 2e6


@pytest.mark.parametrize("way", ["direct", "chained"])
@pytest.mark.parametrize("flows", [1, 8])
@pytest.mark.parametrize("limit, speed, size", [("100kB/s", 1e5, 160000), ("300Mbit/s", 37.5e6, 16000000), ("10Gbit/s", 1.25e9, 16000000)])
def test_flows_together_get_the_speed_and_no_more(sluice, origin, way, flows, limit, speed, size):
    """With a proxy behind it, too. What may come at once: 100 ms, what goes in front of bulk, and a piece for each flow."""
    target = origin(pour(size // flows))
    chain = ["-x", f"socks5://{sluice().url}"] if way == "chained" else []
    proxy = sluice("--workers", "2", "--limit", f"source: down={limit}", *chain)
    begin = time.monotonic()
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(flows)]
    for client in clients:
        assert len(client.shut().read_all()) == size // flows
    at_once = speed / 10 + max(2800, speed / 100) + flows * 1400
    assert time.monotonic() - begin >= (size - at_once) / (speed * 1.02)


def test_flows_of_a_key_share_it(sluice, origin):
    proxy = sluice("--workers", "2", "--limit", "source: both=4MB/s")
    target = origin(pour(700000))
    begin = time.monotonic()
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(4)]
    for client in clients:
        assert len(client.shut().read_all()) == 700000
    assert time.monotonic() - begin >= (4 * 700000 - 400000) / 4e6


@pytest.mark.parametrize("relay", ["auto", "splice", "copy"])
def test_a_spent_quota_delivers_what_was_taken_and_cuts(ruled, origin, relay):
    proxy, api = ruled(None, "--relay", relay, "--limit", "user: quota=1500000B/month")
    target = origin(pour(8000000, behind=1000))
    client = wire.Client(proxy.address)
    client.send(wire.socks4("127.0.0.1", target.port, b"alice"))
    assert client.read(8) == wire.SOCKS4_GRANTED
    assert len(read_until_cut(client.send(b"x" * 1000))) == 1500000 - 1000
    assert target.result(0) == "reset"
    with wire.Client(proxy.address) as client:  # and nothing more
        assert client.send(wire.socks4("127.0.0.1", target.port, b"alice")).read(9) == wire.SOCKS4_REJECTED
    answer = refusal(proxy, target, wire.basic(b"alice", b""))
    assert wire.status_of(answer)[0] == 403 and b"retry-after" not in answer.lower()
    assert failures(api, "quota") == 3
    with wire.Client(proxy.address) as client:  # others are none of its business
        assert client.send(wire.socks4("127.0.0.1", target.port, b"bob")).read(8) == wire.SOCKS4_GRANTED


def test_quotas_of_one_direction(sluice, origin):
    proxy = sluice("--limit", "total: quota-up=1000B")
    target = origin()
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    client.send(b"x" * 1000)
    assert client.read(1000) == b"x" * 1000
    client.send(b"y")
    assert read_until_cut(client) == b""


def test_idle_connections_hold_nothing_of_a_quota(sluice, origin):
    """Armed receives of others must not have taken what one could use."""
    proxy = sluice("--workers", "1", "--limit", "total: quota=100kB")
    target = origin()
    idle = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(20)]
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    for _ in range(10):
        assert client.send(b"x" * 5000).read(5000) == b"x" * 5000
    client.send(b"x")
    assert read_until_cut(client) == b""
    for other in idle:
        assert read_until_cut(other.send(b"x")) == b""


# --- plain HTTP ---

def answer_with(body):
    def handler(_origin, connection):
        while b"\r\n\r\n" not in connection.recv(4096):
            pass
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except ConnectionError:
            return "reset"
        return "sent"

    return handler


def get(target):
    return b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % target.port


def test_a_plain_exchange_is_under_its_limits(sluice, origin):
    proxy = sluice("--limit", "source: down=2MB/s connections=1")
    body = hashlib.sha512(b"body").digest() * 12000
    target = origin(answer_with(body))
    begin = time.monotonic()
    with wire.Client(proxy.address) as client:
        for _ in range(2):  # the connection counts with its requests: the second one is admitted, too
            client.send(get(target))
            assert b"200 OK" in client.read_head()
            assert client.read(len(body)) == body
    assert time.monotonic() - begin >= (2 * len(body) - 200000) / 2e6


def test_a_plain_response_is_cut_by_its_quota(sluice, origin):
    proxy = sluice("--limit", "source: quota=500kB")
    target = origin(answer_with(bytes(3000000)))
    client = wire.Client(proxy.address).send(get(target))
    head = client.read_head()
    assert b"200 OK" in head
    assert 400000 < len(read_until_cut(client)) + len(head) < 500000
    assert wire.status_of(refusal(proxy, target))[0] == 403


# --- datagrams ---

def test_datagrams_over_the_speed_are_dropped(sluice):
    proxy, target = sluice(UDP, "--limit", "source: up=64kB/s"), Target(answers=False)
    association = Association(proxy)
    begin = time.monotonic()
    for _ in range(400):
        association.send(bytes(1000), "127.0.0.1", target.port)
    assert process.wait_until(lambda: len(target.seen) >= 6)
    assert len(target.seen) * 1000 <= 65536 + 64000 * (time.monotonic() - begin)
    association.close()
    target.close()


def test_an_association_ends_with_its_quota(ruled):
    proxy, api = ruled(None, UDP, "--limit", "source: quota=10kB")
    target = Target()
    association = Association(proxy)
    for _ in range(5):
        association.send(bytes(1000), "127.0.0.1", target.port)
        assert association.receive()[0] == bytes(1000)
    association.send(b"x", "127.0.0.1", target.port)
    assert association.control.ends_with() == "reset"
    process.becomes(lambda: failures(api, "quota"), 1)
    assert len(target.seen) == 5
    association.close()
    target.close()


# --- rulesets ---

def test_a_ruleset_puts_a_request_under_limits(ruled, origin):
    script = """
        return {route = function(addr, user)
            if user == "none" then sluice.limit("silver") end
            if user == "many" then for i = 1, 5 do sluice.limit("m" .. i, {connections = 1}) end end
            if user == "wrong" then sluice.limit("gold", {down = "fast"}) end
            sluice.limit("gold", {connections = 2, quota = "100GiB/month", down = "20MiB/s"})
            sluice.limit("user:" .. user, {connections = 1})
            sluice.limit("gold")
            return addr
        end}"""
    proxy, api = ruled(script)
    target = origin()

    kept = []  # a client that nobody holds is closed

    def ask(user):
        client = wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, user))
        kept.append(client)
        return client, client.read(8) == wire.SOCKS4_GRANTED

    alice, first = ask(b"alice")
    assert first and not ask(b"alice")[1]  # her own
    assert ask(b"bob")[1] and not ask(b"carol")[1]  # that of all of them
    alice.close()
    assert process.wait_until(lambda: ask(b"dave")[1])
    for user, text in ((b"none", "there is no limit silver"), (b"many", "under 4 limits at most"), (b"wrong", "give a speed")):
        assert not ask(user)[1]
        assert process.wait_until(lambda: text in proxy.log())
    assert failures(api, "limit_connections") >= 2


def test_rules_have_limits_by_their_tag(ruled, origin):
    script = 'return {route = function(addr, user) sluice.tag(user) return addr end}'
    proxy, _ = ruled(script, "--limit", "rule: connections=2", "--limit", "rule:b: connections=1")
    target = origin()
    granted = {b"a": 0, b"b": 0}
    clients = []
    for user in (b"a", b"b") * 3:
        clients.append(wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, user)))
        granted[user] += clients[-1].read(8) == wire.SOCKS4_GRANTED
    assert granted == {b"a": 2, b"b": 1}


def test_a_try_leaves_its_limits_behind(ruled, origin):
    """await.forward under one rule, in vain, and then under another: the request is under the second one alone. What was
    given by name stays for all tries, until it is taken back."""
    script = """
        return {route = function(addr, user)
            sluice.limit("all", {connections = 9})
            sluice.limit("first", {connections = 1})
            sluice.tag("a")
            assert(not await.forward("127.0.0.1:%d"))
            sluice.limit("first", false)
            sluice.limit("second", {connections = 9})
            sluice.tag("b")
            await.forward("127.0.0.1:%d")
        end}"""
    target = origin()
    proxy, api = ruled(script % (process.free_port(), target.port), "--workers", "1", "--limit", "rule: connections=3")

    def connections(key):
        return api.get("/limits/" + key).json()["connections"]

    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(3)]
    assert [connections(key) for key in ("all", "first", "second", "rule:a", "rule:b")] == [3, 0, 3, 0, 3]
    assert is_refused(proxy, target)  # by the second rule: the first one has room
    assert [connections(key) for key in ("all", "first", "second", "rule:a", "rule:b")] == [3, 0, 3, 0, 3]
    for client in clients:
        assert client.send(b"alive").read(5) == b"alive"
        client.close()
    assert process.wait_until(lambda: connections("all") == connections("rule:b") == 0)


def test_a_verdict_that_is_remembered_brings_its_limits(ruled, origin):
    script = 'return {route = function(addr) sluice.cache(60) sluice.limit("x", {connections = 2}) return addr end}'
    proxy, api = ruled(script, "--workers", "1")
    target = origin()
    for _ in range(3):
        clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(2)]
        assert is_refused(proxy, target)
        for client in clients:
            client.close()
        assert process.wait_until(lambda: api.get("/limits/x").json()["connections"] == 0)


def test_a_listener_is_named_by_its_address(sluice, origin):
    """As its option has it, without what stands behind the comma; what holds for each listener does not hold there."""
    target, ports = origin(), [process.free_port() for _ in range(3)]
    sluice("-l", f"127.0.0.1:{ports[0]},protocol=socks", "-l", f"127.0.0.1:{ports[1]}", "-l", f":{ports[2]}", "--limit",
           f"listener:127.0.0.1:{ports[0]}: connections=3", "--limit", f"listener::{ports[2]}: connections=1", "--limit", "listener: connections=2", listen=None)
    for port, most in zip(ports, [3, 2, 1]):
        held = [wire.greet(wire.Client(("127.0.0.1", port))).send(wire.socks5("127.0.0.1", target.port)) for _ in range(5)]
        # workers take them in as they like
        assert sorted(wire.read_socks5_reply(client)[0] for client in held) == [0] * most + [2] * (5 - most)


# --- settings ---

@pytest.mark.parametrize("words, text", [
    (["--limit", "source"], "give KEY: TERMS"),
    (["--limit", "source: speed=3"], "an unknown term"),
    (["--limit", "source: connections=1 connections=2"], "connections: is given twice"),
    (["--limit", "sourc: connections=1"], "source is meant?"),
    (["--limit", "sourc:127.0.0.1: connections=1", "--api", "127.0.0.1:1"], "source is meant?"),
    (["--limit", "gold: connections=1"], "nobody can come under that name"),
    (["--limit", "user: half-open=3"], "only a source can have them"),
    (["--limit", "source: down=10"], "give a speed such as 100Mbit/s"),
    (["--limit", "source: quota=5GiB/year"], "give octets, in all or per period"),
    (["--limit", "user:a b: connections=1"], "give KEY: TERMS"),
    (["--limit", "total: connections=1", "--limit", "total: rate=1"], "has a limit already"),
    ([word for kind in ("source", "user", "rule", "target", "total") for word in ("--limit", f"{kind}: connections=1")],
     "give at most 4 of source"),
    (["--limit", "user:a;b: connections=1"], "write it as %3B"),
    (["--limit", "listener:127.0.0.1:1: connections=1"], "no listener has that address"),
    (["--limit-keys", "3"], "give 16 to"),
])
def test_what_is_wrong_is_said_in_a_line(words, text):
    code, _, err = process.run("-l", "127.0.0.1:0", *words)
    assert code == 1
    assert text in err and len(err.splitlines()) == 1, err


def test_settings_that_change_act_on_sessions(sluice, origin, tmp_path):
    """A transfer that would take an hour ends when its limit is raised."""
    config = tmp_path / "config.lua"
    config.write_text('return {limit = "total: down=1kB/s; user:nobody: connections=1"}')
    proxy = sluice("-c", str(config))
    target = origin(pour(4000000))
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(3)]
    assert clients[0].read(100) == bytes(100)
    config.write_text('return {limit = "total: down=1Gbit/s"}')
    proxy.process.send_signal(signal.SIGHUP)
    for client in clients:
        client.shut()
    assert [len(client.read_all()) for client in clients] == [3999900, 4000000, 4000000]
    config.write_text('return {limit = "total: quota=1B"}')  # more than that has moved
    proxy.process.send_signal(signal.SIGHUP)
    assert process.wait_until(lambda: is_refused(proxy, target))
    config.write_text('return {limit = ""}')
    proxy.process.send_signal(signal.SIGHUP)
    assert process.wait_until(lambda: serves(proxy, target))


def test_the_dump_has_all_limits(tmp_path):
    code, out, err = process.run("-l", "127.0.0.1:0", "--limit", "total: down=1kB/s", "--limit", "user:x: rate=3", "--dump-config")
    assert (code, err) == (0, "")
    assert '    limit = "total: down=1kB/s; user:x: rate=3",\n    limit_keys = 100000,\n' in out
    config = tmp_path / "again.lua"
    config.write_text(out)
    assert process.run("-c", str(config), "--dump-config") == (0, out, "")
