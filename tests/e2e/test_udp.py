"""SOCKS5 UDP ASSOCIATE (RFC 1928 section 7)."""
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

import fakedns
import process
import scripts
import wire
from conftest import require
from test_chains import dante  # noqa: F401

ON = "--enable-socks5-udp"


class Target:
    """Keeps what it receives, and answers with the same."""

    def __init__(self, host="127.0.0.1", answers=True):
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((host, 0))
        self.host, self.port = self.socket.getsockname()[:2]
        self.seen = []  # (payload, sender)
        self.answers = answers
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                data, sender = self.socket.recvfrom(65536)
            except OSError:
                return
            if data == b"\0stop":
                return
            self.seen.append((data, sender[:2]))
            if self.answers:
                self.socket.sendto(data, sender)

    def close(self):
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"\0stop", (self.host, self.port))
        self.thread.join(5)
        self.socket.close()


@pytest.fixture
def target():
    started = []

    def start(*words, **options):
        started.append(Target(*words, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


class Association:
    def __init__(self, proxy, host="0.0.0.0", port=0, source=None, timeout=10):
        self.control = wire.greet(wire.Client(proxy.address)).send(wire.socks5(host, port, 3))
        rep, self.host, self.port = wire.read_socks5_reply(self.control)
        assert rep == 0 and self.port > 0
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(source or ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.socket.settimeout(timeout * process.SLOW)

    def send(self, payload, host, port, fragment=0):
        self.raw(bytes([0, 0, fragment]) + wire.socks5_address(host, port) + payload)
        return self

    def raw(self, datagram):
        self.socket.sendto(datagram, (self.host, self.port))

    def receive(self):
        """(payload, host, port) of the next datagram, its header asserted."""
        data, sender = self.socket.recvfrom(70000)
        assert sender[:2] == (self.host, self.port)
        assert data[:3] == b"\0\0\0" and data[3] in (1, 4), data[:10]
        size = 4 if data[3] == 1 else 16
        host = socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, data[4:4 + size])
        return data[6 + size:], host, struct.unpack("!H", data[4 + size:6 + size])[0]

    def hears_nothing(self, seconds=0.3):
        self.socket.settimeout(seconds)
        with pytest.raises(TimeoutError):
            self.socket.recv(70000)
        self.socket.settimeout(10 * process.SLOW)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.control.close()
        self.socket.close()


@pytest.mark.parametrize("listen", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families(sluice, target, listen, host):
    proxy, one = sluice(ON, listen=listen), target(host)
    with Association(proxy, listen) as client:
        assert client.host == listen
        for size in (0, 1, 512, 1472, 9000, 30000):
            payload = os.urandom(size)
            client.send(payload, one.host, one.port)
            assert client.receive() == (payload, one.host, one.port)
    assert proxy.flat()


@pytest.mark.parametrize("listen, size", [("127.0.0.1", 65497), ("::1", 65507)])
def test_longest_datagram(sluice, target, listen, size):
    """Over IPv4 the header takes ten octets of 65,507; over IPv6 there is room for all of them."""
    proxy, one = sluice(ON, listen=listen), target()
    payload = os.urandom(size)
    with Association(proxy, listen) as client:
        client.send(payload, one.host, one.port)
        assert client.receive() == (payload, one.host, one.port)


def test_answer_that_does_not_fit_is_dropped(shared, target):
    proxy, one = shared(ON), target(answers=False)
    with Association(proxy) as client:
        client.send(b"hello", one.host, one.port)
        assert process.wait_until(lambda: one.seen)
        one.socket.sendto(bytes(65507), one.seen[0][1])
        one.socket.sendto(b"short", one.seen[0][1])
        assert client.receive()[0] == b"short"


def test_names(sluice, target, dns):
    server, one = dns(), target()
    server.add("target.example", one.host)
    proxy = sluice(ON, "--nameserver", server.text)
    with Association(proxy) as client:
        for i in range(5):
            client.send(b"%d" % i, "target.example", one.port)
            assert client.receive() == (b"%d" % i, one.host, one.port)
        client.send(b"lost", "nowhere.example", one.port)
        client.send(b"found", one.host, one.port)
        assert client.receive()[0] == b"found"
    assert [payload for payload, _ in one.seen] == [b"%d" % i for i in range(5)] + [b"found"]


def test_name_of_which_one_family_is_never_answered(sluice, target, dns):
    server, one = dns(), target()
    server.add("half.example", "127.0.0.1", "::1")
    server.silent.add(("half.example", fakedns.AAAA))
    proxy = sluice(ON, "--nameserver", server.text)
    with Association(proxy) as client:
        client.send(b"hello", "half.example", one.port)
        assert client.receive() == (b"hello", one.host, one.port)


def test_names_are_judged_by_their_address(sluice, target, dns):
    server, one, other = dns(), target(), target("::1")
    server.add("rebound.example", one.host)
    proxy = sluice(ON, "--nameserver", server.text, "--block-outbound", "loopback")
    with Association(proxy) as client:
        client.send(b"blocked", "rebound.example", one.port)
        client.send(b"blocked", one.host, one.port)
        client.send(b"blocked", "::1", other.port)
        client.hears_nothing()
    assert not one.seen and not other.seen


def test_several_targets_at_once(shared, target):
    proxy, targets = shared(ON), [target() for _ in range(20)]
    with Association(proxy) as client:
        for i, one in enumerate(targets):
            client.send(b"%d" % i, one.host, one.port)
        heard = {client.receive() for _ in targets}
    assert heard == {(b"%d" % i, one.host, one.port) for i, one in enumerate(targets)}
    assert len({sender for one in targets for _, sender in one.seen}) == 1  # one port for all of them


BAD = {
    "empty": b"",
    "short": b"\0\0\0\1\x7f\0",
    "fragment": b"\0\0\1\1\x7f\0\0\1{port}fragment",
    "last fragment": b"\0\0\x81\1\x7f\0\0\1{port}fragment",
    "address type": b"\0\0\0\2\x7f\0\0\1{port}payload",
    "empty name": b"\0\0\0\3\0{port}payload",
    "name without its end": b"\0\0\0\3\xffname",
    "port 0": b"\0\0\0\1\x7f\0\0\1\0\0payload",
    "multicast": b"\0\0\0\1\xe0\0\0\1{port}payload",
    "nowhere": b"\0\0\0\1\0\0\0\0{port}payload",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_datagram_is_dropped(shared, target, name):
    proxy, one = shared(ON), target()
    with Association(proxy) as client:
        client.raw(BAD[name].replace(b"{port}", struct.pack("!H", one.port)))
        client.send(b"good", one.host, one.port)
        assert client.receive()[0] == b"good"
        client.hears_nothing(0.1)
    assert [payload for payload, _ in one.seen] == [b"good"]


def sibling_of(client):
    """Another socket of the same host: what a NAT that has lost its state makes of the client."""
    sibling = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sibling.bind(client.socket.getsockname()[:1] + (0,))
    sibling.settimeout(10)
    return sibling


def test_strangers_are_not_the_client(shared, target):
    """From another address nothing counts, neither before nor after the first valid datagram."""
    proxy, one = shared(ON), target()
    with Association(proxy) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.5", 0))
        datagram = b"\0\0\0" + wire.socks5_address(one.host, one.port)
        for payload in (b"first", b"second"):
            stranger.sendto(datagram + b"stranger", (client.host, client.port))
            client.send(payload, one.host, one.port)
            assert client.receive()[0] == payload
    assert [payload for payload, _ in one.seen] == [b"first", b"second"]


def test_port_moves(shared, target):
    """A NAT on the way may give the client another port at any time: answers follow."""
    proxy, one = shared(ON), target()
    with Association(proxy) as client, sibling_of(client) as moved:
        datagram = b"\0\0\0" + wire.socks5_address(one.host, one.port)
        client.send(b"before", one.host, one.port)
        assert client.receive()[0] == b"before"
        moved.sendto(datagram + b"after", (client.host, client.port))
        assert moved.recv(100).endswith(b"after")
        one.socket.sendto(b"unasked", one.seen[0][1])
        assert moved.recv(100).endswith(b"unasked")
        moved.sendto(b"\0\0\1" + datagram[3:], (client.host, client.port))  # not valid: moves nothing
        client.hears_nothing(0.1)
        client.send(b"back", one.host, one.port)
        assert client.receive()[0] == b"back"
    assert len({sender for _, sender in one.seen}) == 1


@pytest.mark.parametrize("named", ["target", "name", "unknown name", "private address", "own address", "zero with a port"])
def test_request_names_something_else(shared, target, named):
    """Clients name their target, a name, or what they are called behind their NAT: as if they had sent zeroes."""
    proxy, one = shared(ON, "--block-outbound", "multicast"), target("127.0.0.9")
    host, port = {"target": (one.host, one.port), "name": ("localhost", one.port), "unknown name": ("no.such.name", 1),
                  "private address": ("192.168.255.1", 4711), "own address": ("127.0.0.1", 9),
                  "zero with a port": ("0.0.0.0", 4711)}[named]
    with Association(proxy, host, port) as client:
        for payload in (b"first", b"second"):
            client.send(payload, one.host, one.port)
            assert client.receive() == (payload, one.host, one.port)
        with sibling_of(client) as moved:
            moved.sendto(b"\0\0\0" + wire.socks5_address(one.host, one.port) + b"moved", (client.host, client.port))
            assert moved.recv(100).endswith(b"moved")


def test_client_that_names_its_port(shared, target):
    """And sends from there: it is held to it, so that nobody else on its machine can speak for it."""
    proxy, one = shared(ON), target()
    port = process.free_port(kind=socket.SOCK_DGRAM)
    with Association(proxy, "127.0.0.1", port, source=("127.0.0.1", port)) as client, sibling_of(client) as other:
        for payload in (b"mine", b"mine too"):
            client.send(payload, one.host, one.port)
            assert client.receive()[0] == payload
            other.sendto(b"\0\0\0" + wire.socks5_address(one.host, one.port) + b"other", (client.host, client.port))
            client.hears_nothing(0.1)
    assert [payload for payload, _ in one.seen] == [b"mine", b"mine too"]


def test_a_thousand_peers(shared, target):
    """All of them may answer at any time, not only the last 256."""
    proxy, one = shared(ON), target()
    hosts = [f"127.{i // 250}.3.{i % 250 + 1}" for i in range(1000)]
    with Association(proxy) as client:
        for i, host in enumerate(hosts):
            client.send(b"to " + host.encode(), host, 9)
            if i % 50 == 49:  # not faster than it can take them
                client.send(b"%d" % i, one.host, one.port)
                assert client.receive()[0] == b"%d" % i
        outside = one.seen[0][1]
        for host in hosts:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind((host, 0))
                peer.sendto(host.encode(), outside)
                assert client.receive() == (host.encode(), host, peer.getsockname()[1])


def test_only_those_asked_may_answer(shared, target):
    proxy, one = shared(ON), target()
    with Association(proxy) as client:
        client.send(b"hello", one.host, one.port)
        assert client.receive()[0] == b"hello"
        outside = one.seen[0][1]
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stranger.bind(("127.0.0.66", 0))
        stranger.sendto(b"unasked", outside)
        client.hears_nothing(0.2)
        second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # the same host from another port, as TFTP does
        second.bind((one.host, 0))
        second.sendto(b"second port", outside)
        assert client.receive() == (b"second port", one.host, second.getsockname()[1])
        stranger.close()
        second.close()


def test_ends_with_its_connection(shared, target):
    proxy, one = shared(ON), target()
    for ending in ("close", "reset"):
        client = Association(proxy)
        client.send(b"hello", one.host, one.port)
        assert client.receive()[0] == b"hello"
        getattr(client.control, ending)()
        assert proxy.flat()
        client.send(b"late", one.host, one.port)
        client.hears_nothing(0.1)
        client.socket.close()
    assert b"late" not in [payload for payload, _ in one.seen]


def test_octets_on_the_connection_mean_nothing(shared, target):
    proxy, one = shared(ON), target()
    with Association(proxy) as client:
        client.control.send(bytes(100000))
        client.send(b"hello", one.host, one.port)
        assert client.receive()[0] == b"hello"


def test_target_that_is_not_there(shared, target):
    """What the kernel reports about one target must not end the association."""
    proxy, one = shared(ON), target()
    with Association(proxy) as client:
        for _ in range(5):
            client.send(b"nobody", "127.0.0.1", process.free_port(kind=socket.SOCK_DGRAM))
            time.sleep(0.02)
        client.send(b"hello", one.host, one.port)
        assert client.receive()[0] == b"hello"


def test_many_datagrams(shared, target):
    """Twenty thousand both ways, in bursts that any buffer holds: none is lost, none is changed."""
    proxy, one = shared(ON), target()
    with Association(proxy) as client:
        for burst in range(400):
            for i in range(50):
                client.send(struct.pack("!II", burst, i) * 30, one.host, one.port)
            heard = sorted(client.receive()[0] for _ in range(50))
            assert heard == [struct.pack("!II", burst, i) * 30 for i in range(50)]


def test_flood_harms_nobody(sluice, target):
    """More than can be sent: dropped, not queued; the others go on."""
    proxy, one = sluice(ON), target()
    before = proxy.rss()
    flooder, client = Association(proxy), Association(proxy)
    datagram = b"\0\0\0" + wire.socks5_address(one.host, one.port) + bytes(8000)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        for _ in range(50):
            flooder.raw(datagram)
    for i in range(20):
        for _ in range(20):  # UDP may lose one in a flood
            client.send(b"%d" % i, one.host, one.port)
            client.socket.settimeout(0.5)
            try:
                assert client.receive()[0]
                break
            except TimeoutError:
                continue
        else:
            raise AssertionError("nothing comes through")
    if not process.SANITIZED:
        assert proxy.rss() < before + (40 << 20)
    flooder.close()
    client.close()


def test_many_associations(shared, target):
    proxy, one = shared(ON), target()
    clients = [Association(proxy) for _ in range(100)]
    for i, client in enumerate(clients):
        client.send(b"%d" % i, one.host, one.port)
    for i, client in enumerate(clients):
        assert client.receive()[0] == b"%d" % i
    assert len({sender for _, sender in one.seen}) == 100
    for client in clients:
        client.close()
    assert proxy.flat()


def test_idle_association_ends(shared, target):
    proxy, one = shared(ON, "--idle-timeout", "4"), target()
    client = Association(proxy)
    client.send(b"hello", one.host, one.port)
    assert client.receive()[0] == b"hello"
    assert client.control.ends_with() in ("end", "reset")
    client.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_reply_names_the_address_that_the_client_has_reached(shared, target, address):
    """Never that of the wildcard; and answers come from there."""
    proxy, one = shared(ON, listen="0.0.0.0"), target()
    proxy.address = (address, proxy.port)
    with Association(proxy) as client:
        assert client.host == address
        client.send(b"hello", one.host, one.port)
        assert client.receive() == (b"hello", one.host, one.port)


def test_policy_judges_each_datagram(sluice, namespace):
    """A rule that forbids loopback forbids neither the association of a client that comes from there nor its other targets."""
    net = namespace()
    net.ip("addr", "add", "10.99.0.1/32", "dev", "lo")
    proxy = sluice(ON, "--block-outbound", "loopback", prefix=net.prefix)
    inner, outer = net.call(Target, "127.0.0.1"), net.call(Target, "10.99.0.1")
    with net.call(Association, proxy) as client:
        for payload in (b"first", b"second"):
            client.send(b"blocked", inner.host, inner.port)
            client.send(payload, outer.host, outer.port)
            assert client.receive() == (payload, outer.host, outer.port)
    assert not inner.seen
    net.call(inner.close)
    net.call(outer.close)


@pytest.fixture
def slow_way(namespace):
    """A namespace in which what goes to 10.99.1.2 leaves with 8 kbit/s, and soon not at all."""
    net = namespace()
    tc = require("tc", "iproute2")
    for words in [("link", "add", "slow0", "type", "veth", "peer", "name", "slow1"), ("addr", "add", "10.99.1.1/24", "dev", "slow0"),
                  ("link", "set", "slow0", "up"), ("link", "set", "slow1", "up"),
                  ("neigh", "add", "10.99.1.2", "lladdr", "02:00:00:00:00:02", "dev", "slow0", "nud", "permanent")]:
        net.ip(*words)
    if net.run(tc, "qdisc", "add", "dev", "slow0", "root", "tbf", "rate", "8kbit", "burst", "2kb", "limit", "100mb").returncode:
        pytest.skip("the kernel has no token bucket filter")
    return net


def test_sends_that_wait_leave_room_for_others(sluice, slow_way):
    """Whoever sends where nothing can leave gets three quarters of a worker's datagrams; the rest are dropped, and others are served."""
    proxy = sluice(ON, "--workers", "1", "--api", "127.0.0.1:9", prefix=slow_way.prefix)

    def dropped():
        text = slow_way.call(scripts.Api(("127.0.0.1", 9)).get, "/metrics").text
        return int(re.search(r'^sluice_datagrams_dropped_total{worker="0"} (\d+)$', text, re.MULTILINE).group(1))

    near = slow_way.call(Target, "127.0.0.1")
    stuck, client = slow_way.call(Association, proxy), slow_way.call(Association, proxy)

    def more_are_dropped():
        """Than its socket and its share hold; the kernel drops those for which the proxy had no time."""
        for _ in range(50):
            stuck.send(bytes(1000), "10.99.1.2", 9)
        return dropped() > 500

    assert process.wait_until(more_are_dropped, 30)
    for i in range(20):
        client.send(b"%d" % i, near.host, near.port)
        assert client.receive()[0] == b"%d" % i
    stuck.close()
    client.close()
    slow_way.call(near.close)


def test_one_client_cannot_have_them_all(shared):
    """The last quarter of a worker's 256 associations is for those who have few."""
    proxy, clients = shared(ON, "--workers", "1"), []

    def ask(source):
        clients.append(wire.greet(wire.Client(proxy.address, source=(source, 0))).send(wire.socks5("0.0.0.0", 0, 3)))
        return wire.read_socks5_reply(clients[-1])[0]

    answers = [ask("127.0.0.1") for _ in range(200)]
    assert answers == [0] * 192 + [1] * 8
    assert ask("127.0.0.2") == 0
    for client in clients:
        client.close()
    assert proxy.flat()
    assert ask("127.0.0.1") == 0


def test_many_targets_cost_nothing_for_long(sluice, target):
    """Thousands of targets take no descriptors, and all that they took is free when the connection has ended."""
    proxy, one = sluice(ON), target()
    before = proxy.sockets()
    client = Association(proxy)
    for i in range(5000):
        client.send(b"%d" % i, f"127.{i // 250 + 1}.7.{i % 250 + 1}", 9)
        if i % 100 == 99:  # not faster than it can take them
            client.send(b"%d" % i, one.host, one.port)
            assert client.receive()[0] == b"%d" % i
    assert proxy.sockets() <= before + 4
    client.close()
    assert proxy.flat()


def test_pysocks(shared, target):
    import socks
    proxy, one = shared(ON), target("::")  # localhost may be either family
    with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.set_proxy(socks.SOCKS5, proxy.host, proxy.port)
        client.settimeout(10)
        for host in ("127.0.0.1", "localhost"):
            client.sendto(b"through PySocks", (host, one.port))
            assert client.recvfrom(100)[0] == b"through PySocks"


SOCKSIFIED = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
for i in range(5):
    client.sendto(b"socksified %d" % i, ("127.0.0.1", int(sys.argv[1])))
    data, sender = client.recvfrom(100)
    print(data.decode(), sender[0], sender[1])
"""


def test_socksify(sluice, target, tmp_path):
    from test_clients import CLEAN, socksify_conf
    socksify = require("socksify", "dante-client")
    proxy, one = sluice(ON), target()
    env = socksify_conf(tmp_path, proxy, "udp", "udpassociate udpreply")
    done = subprocess.run([socksify, sys.executable, "-c", SOCKSIFIED, str(one.port)], env={**CLEAN, **env},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"socksified {i} 127.0.0.1 {one.port}\n" for i in range(5))
    assert len(one.seen) == 5
    assert proxy.flat()


# --- what replies name, and how long it lasts ---

@pytest.mark.parametrize("listen, options, listener, expected", [
    ("127.0.0.1", ["--udp-advertise", "192.0.2.5,2001:db8::5"], "", "192.0.2.5"),
    ("::1", ["--udp-advertise", "192.0.2.5,2001:db8::5"], "", "2001:db8::5"),
    ("::1", ["--udp-advertise", "192.0.2.5"], "", "::1"),
    ("127.0.0.1", ["--udp-advertise", "192.0.2.5"], ",udp-advertise=192.0.2.6", "192.0.2.6")])
def test_advertised_address(sluice, target, listen, options, listener, expected):
    """Behind NAT clients send to another address than this machine has, at the same port."""
    one, port = target(), process.free_port(listen)
    proxy = sluice(ON, *options, "-l", (f"[{listen}]:{port}" if ":" in listen else f"{listen}:{port}") + listener)
    proxy.address = (listen, port)
    with Association(proxy, listen) as client:
        assert client.host == expected
        client.host = listen
        client.send(b"hello", one.host, one.port)
        assert client.receive() == (b"hello", one.host, one.port)


def test_silent_association_ends(sluice, target):
    """The time counts from the last datagram."""
    proxy, one = sluice(ON, "--udp-timeout", "4", "--loglevel", "6"), target()
    with Association(proxy) as client:
        client.send(b"hello", one.host, one.port)
        assert client.receive()[0] == b"hello"
        assert client.control.ends_with() in ("end", "reset")
        assert proxy.flat()
    assert proxy.says("--udp-timeout")


# --- told by a ruleset ---

RULES = """
local asked = {}
local function decide(address, user, password)
    asked[#asked + 1] = request.command .. " " .. address .. " " .. tostring(user)
    local host, port = neosocksd.splithostport(address)
    if host == "127.0.0.66" then return nil end
    if host == "127.0.0.67" then error("no way") end
    if host == "127.0.0.77" or host == "moved.example" or host:find("^127.0.[12]") then return "127.0.0.1:" .. port end
    if host == "127.0.0.78" then
        if await.forward("127.0.0.1:" .. port) then return end
        error("it goes")
    end
    if host == "127.0.0.79" then
        while not go do await.sleep(0.02) end
        return "127.0.0.1:" .. port
    end
    if host == "127.0.0.88" then return "127.0.0.1:" .. port, "http://127.0.0.1:1" end
    if host:find("chain") then return "127.0.0.1:" .. port, %s end
    if host == "localhost" then return address, %s end
    return address
end
return { route = decide, route6 = decide, resolve = decide, stats = function() return table.concat(asked, ";") .. ";" end }
"""


def asked(api):
    """What the ruleset was asked, sorted."""
    return sorted(re.findall(r"(?:associate|connect|bind) [^;\n]+", api.post("/stats").text))


def dropped(api):
    return sum(int(number) for number in re.findall(r"^sluice_datagrams_dropped_total{.*} (\d+)$", api.get("/metrics").text, re.MULTILINE))


def test_a_ruleset_decides(ruled, target):
    """Once about each target. What it refuses is dropped; answers come in the name of the address that was asked for."""
    one = target()
    proxy, api = ruled(RULES % ("nil", "nil"), ON)
    assert api.post("/ruleset/invoke", "_G.go = true").status == 200
    hosts, refused = ["127.0.0.1", "127.0.0.77", "127.0.0.78", "127.0.0.79"], ["127.0.0.66", "127.0.0.67", "127.0.0.88"]
    with Association(proxy) as client:
        for i in range(3):
            for host in refused:
                client.send(b"dropped", host, one.port)
            for host in hosts:
                client.send(b"%d" % i, host, one.port)
                assert client.receive() == (b"%d" % i, host, one.port)
        client.send(b"named", "moved.example", one.port)  # of a name it is the address that answers
        assert client.receive()[0] == b"named"
    expected = [f"associate {host}:{one.port} nil" for host in [*hosts, *refused, "moved.example"]]
    assert asked(api) == sorted(expected)
    process.becomes(lambda: dropped(api), 9)
    assert b"dropped" not in [payload for payload, _ in one.seen]


def test_a_ruleset_that_is_slow(ruled, target):
    """Datagrams wait for it, but not many; those to targets that are decided do not."""
    one = target()
    proxy, api = ruled(RULES % ("nil", "nil"), ON)
    with Association(proxy) as client:
        client.send(b"known", "127.0.0.1", one.port)
        assert client.receive()[0] == b"known"
        for i in range(20):
            client.send(b"%d" % i, "127.0.0.79", one.port)
        client.send(b"at once", "127.0.0.1", one.port)
        assert client.receive()[0] == b"at once"
        process.becomes(lambda: dropped(api), 12)
        assert api.post("/ruleset/invoke", "_G.go = true").status == 200
        assert [client.receive()[0] for _ in range(8)] == [b"%d" % i for i in range(8)]


def test_decisions_are_bounded(ruled, target):
    """The target that was used longest ago is asked about again."""
    one = target()
    proxy, api = ruled(RULES % ("nil", "nil"), ON)
    hosts = [f"127.0.{i // 200}.{i % 200 + 1}" for i in range(200, 457)]
    with Association(proxy) as client:
        for host in [*hosts, hosts[-1], hosts[0]]:
            client.send(b"to", host, one.port)
            assert client.receive() == (b"to", host, one.port)
    assert len(asked(api)) == len(hosts) + 1


def test_a_new_ruleset_decides_anew(ruled, target):
    one = target()
    proxy, api = ruled(RULES % ("nil", "nil"), ON)
    with Association(proxy) as client:
        client.send(b"before", "127.0.0.1", one.port)
        assert client.receive()[0] == b"before"
        assert api.post("/ruleset/update", "return { route = function(a) if a:find('127.0.0.5') then return a end end }").status == 200
        client.send(b"after", "127.0.0.1", one.port)
        client.send(b"after", "127.0.0.5", one.port)
        client.hears_nothing()  # the target listens on 127.0.0.1 alone
    assert [payload for payload, _ in one.seen] == [b"before"]


def test_the_ruleset_judges_who_asks(ruled, target):
    """Where it has no `login`, user and password come with each question."""
    one = target()
    proxy, api = ruled(RULES % ("nil", "nil"), ON, "--auth-required")
    control = wire.greet(wire.Client(proxy.address), b"joe", b"secret").send(wire.socks5("0.0.0.0", 0, 3))
    rep, host, port = wire.read_socks5_reply(control)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10 * process.SLOW)
        client.sendto(b"\0\0\0" + wire.socks5_address(one.host, one.port) + b"hello", (host, port))
        assert rep == 0 and client.recv(100).endswith(b"hello")
    assert asked(api) == [f"associate {one.host}:{one.port} joe"]


# --- through other proxies ---

class Hops:
    """A chain of sluices; names are known to the last one alone."""

    def __init__(self, sluice, dns, count, *last):
        self.dns = dns()
        self.dns.add("chain.example", "127.0.0.1")
        self.proxies = [sluice(ON, "--nameserver", self.dns.text if i == count - 1 else "127.0.0.1:1") for i in range(count)]
        self.uris = [f"socks5://{one.url}" for one in self.proxies]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("listen", ["127.0.0.1", "::1"])
def test_through_a_chain(sluice, target, dns, count, listen):
    """Each proxy has an association, by a connection through those in front of it, as long as the client's stands."""
    one, hops = target(), Hops(sluice, dns, count)
    proxy = sluice(ON, "-x", ",".join(hops.uris), "--nameserver", "127.0.0.1:1", listen=listen)
    with Association(proxy, listen) as client:
        for size in (0, 1, 1400, 9000):
            payload = os.urandom(size)
            client.send(payload, one.host, one.port)
            assert client.receive() == (payload, one.host, one.port)
        client.send(b"named", "chain.example", one.port)
        assert client.receive() == (b"named", "127.0.0.1", one.port)
        assert proxy.sockets() == proxy.sockets_at_start + 3 + count  # two of them datagrams'
    for each in [proxy, *hops.proxies]:
        assert each.flat()


def test_a_chain_that_breaks(sluice, target, dns):
    """Nothing goes past it: the association ends with its chain, wherever that broke."""
    one, hops = target(), Hops(sluice, dns, 3)
    proxy = sluice(ON, "-x", ",".join(hops.uris))
    with Association(proxy) as client:
        client.send(b"hello", one.host, one.port)
        assert client.receive()[0] == b"hello"
        hops.proxies[2].signal(15)
        assert client.control.ends_with() in ("end", "reset")
        client.send(b"late", one.host, one.port)
        client.hears_nothing(0.1)
    assert [payload for payload, _ in one.seen] == [b"hello"]
    assert proxy.flat()


@pytest.mark.parametrize("lines, code", [
    ([(3, b"\5\0"), (10, b"\5\7\0\1" + bytes(6))], 7), ([(3, b"\5\0"), (10, b"\5\2\0\1" + bytes(6))], 2), ([(3, b"\5\xff")], 2),
    ([(3, b"\5\0"), (10, b"\5\0\0\1\x7f\0\0\1\0\0")], 1), ([(3, b"\5\0"), (10, b"\5\0\0\1\xe0\0\0\1\0\7")], 2)])
def test_proxy_that_refuses(sluice, origin, target, lines, code):
    """What it says is what the client hears: a command that it does not know, or a relay that nobody may send to."""
    from test_chains import scripted
    far = origin(scripted(*lines))
    proxy = sluice(ON, "-x", f"socks5://127.0.0.1:{far.port}")
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5("0.0.0.0", 0, 3))
        assert client.read_all() == wire.socks5_failure(code)
    heard = b"\5\1\0" + (wire.socks5("0.0.0.0", 0, 3) if len(lines) == 2 else b"")
    assert far.result() == heard
    assert proxy.flat()


def test_chains_of_a_ruleset(ruled, sluice, target, dns):
    """Beside each other, and beside what goes directly; one that fails takes nothing else along."""
    one, hops = target(), Hops(sluice, dns, 2)
    dead = f"'socks5://127.0.0.1:{process.free_port()}'"
    proxy, api = ruled(RULES % (", ".join(f"'{uri}'" for uri in reversed(hops.uris)), dead), ON, "--nameserver", "127.0.0.1:1")
    with Association(proxy) as client:
        for i in range(3):
            client.send(b"lost", "localhost", one.port)
            for host in ("chain.example", "127.0.0.1"):
                client.send(b"%d" % i + host.encode(), host, one.port)
            heard = sorted(client.receive()[0] for _ in range(2))
            assert heard == [b"%d127.0.0.1" % i, b"%dchain.example" % i]
        hops.proxies[1].signal(15)  # it is asked again when the chain is gone, and drops meanwhile
        assert process.wait_until(lambda: not hops.proxies[1].alive())
        client.send(b"direct", "127.0.0.1", one.port)
        assert client.receive()[0] == b"direct"
    outside = {sender for payload, sender in one.seen}
    assert len(outside) == 2 and b"lost" not in [payload for payload, _ in one.seen]
    assert proxy.flat()


def test_circles_end(ruled, target):
    """A ruleset that leads datagrams back to the listener that they come from."""
    one, port = target(), process.free_port()
    proxy, _ = ruled(f"return {{ route = function(a) return a, 'socks5://127.0.0.1:{port}' end }}", ON, "-l", f"127.0.0.1:{port}")
    proxy.address = ("127.0.0.1", port)
    with Association(proxy) as client:
        client.send(b"round", one.host, one.port)
        client.hears_nothing()
    assert not one.seen
    assert proxy.flat()


def test_through_dante(sluice, target, dante):
    port, one = dante(), target()
    proxy = sluice(ON, "-x", f"socks5://127.0.0.1:{port}")
    with Association(proxy) as client:
        for i in range(5):
            client.send(b"%d" % i, one.host, one.port)
            assert client.receive() == (b"%d" % i, one.host, one.port)


def test_pysocks_through_a_chain(ruled, sluice, target, dns):
    import socks
    one, hops = target("::"), Hops(sluice, dns, 1)
    proxy, _ = ruled(RULES % (f"'{hops.uris[0]}'", "nil"), ON)
    with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.set_proxy(socks.SOCKS5, proxy.host, proxy.port)
        client.settimeout(10)
        for host in ("127.0.0.1", "chain.example"):
            client.sendto(b"through PySocks", (host, one.port))
            assert client.recvfrom(100)[0] == b"through PySocks"
