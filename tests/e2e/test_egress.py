"""Which way connections leave: source addresses, networks of them, marks and interfaces, in a network of its own.

    here (out1) 10.94.1.1-5, 2001:db8:94::1, all of 2001:db8:94:1::/64 ---- 10.94.1.9, 2001:db8:94::9 near
    here (out2) 10.94.2.1                                              ---- 10.94.1.9 far, where mark 5 leads
"""
import ipaddress
import os
import re
import signal
import socket
import threading
import time

import pytest

import namespaces
import origins
import process
import scripts
import wire
from conftest import require

V4, V6, PORT = "10.94.1.9", "2001:db8:94::9", 4000
OWN = [f"10.94.1.{n}" for n in range(1, 6)]
PREFIX = ipaddress.ip_network("2001:db8:94:1::/64")


def tell_peer(origin, connection):
    """The server's name and the address that it sees."""
    connection.sendall(f"{origin.name} {connection.getpeername()[0]}".encode())


class Network:
    def __init__(self):
        self.closing, self.made = [], []
        self.here, self.near, self.far = (self.namespace(name) for name in ("h", "n", "f"))
        namespaces.connect(self.here, "out1", self.near, "in")
        namespaces.connect(self.here, "out2", self.far, "in")
        for address in OWN:
            self.here.ip("addr", "add", f"{address}/24", "dev", "out1")
        self.here.ip("addr", "add", "2001:db8:94::1/64", "dev", "out1", "nodad")
        self.here.ip("-6", "route", "add", "local", str(PREFIX), "dev", "lo")
        self.here.ip("addr", "add", "10.94.2.1/24", "dev", "out2")
        self.here.ip("route", "add", "default", "dev", "out2", "table", "5")
        self.here.ip("rule", "add", "fwmark", "5", "table", "5")
        for there in (self.near, self.far):
            there.ip("addr", "add", f"{V4}/16", "dev", "in")
        self.near.ip("addr", "add", f"{V6}/64", "dev", "in", "nodad")
        self.near.ip("-6", "route", "add", str(PREFIX), "via", "2001:db8:94::1")
        self.near.ip("-6", "route", "add", "2001:db8:94:2::/64", "via", "2001:db8:94::1")
        for there, name, host in ((self.near, "near", V4), (self.far, "far", V4), (self.near, "near", V6)):
            there.call(self.serve, name, host)

    def namespace(self, name):
        try:
            self.made.append(namespaces.Namespace(f"egr{os.getpid()}{name}"))
        except namespaces.Unavailable as reason:
            pytest.skip(f"no network namespaces here: {reason}")
        return self.made[-1]

    def serve(self, name, host):
        origin = origins.Origin(tell_peer, host=host, port=PORT)
        origin.name = name
        self.closing.append(origin)

    def close(self):
        for one in self.closing:
            one.close()
        for one in reversed(self.made):
            one.close()


@pytest.fixture(scope="module")
def network():
    require("ip", "iproute2")
    made = Network()
    yield made
    made.close()


@pytest.fixture
def leaving(sluice, network, tmp_path):
    """leaving(*args): a proxy in that network, behind a Unix socket."""
    def start(*args, rules=None, listen="", prefix=(), **options):
        path = str(tmp_path / f"s{time.monotonic_ns()}")
        if rules is not None:
            (tmp_path / "rules.lua").write_text(rules)
            args = ("-r", str(tmp_path / "rules.lua"), *args)
        proxy = sluice("-l", f"unix:{path}{listen}", *args, listen=None, prefix=(*network.here.prefix, *prefix), **options)
        proxy.path = path
        return proxy

    return start


def seen(path, host=V4, user=None):
    """(server, address that it has seen), or the REP of the refusal."""
    client = wire.greet(wire.Client(path), *((user, b"x") if user else ())).send(wire.socks5(host, PORT))
    with client:
        reply = wire.read_socks5_reply(client)
        return tuple(client.read_all().decode().split()) if reply[0] == 0 else reply[0]


# --- rulesets ---

RULES = """
local ways = {
    source = {source = "10.94.1.3"}, same = {source = "same"}, any = {source = "any"}, mark = {mark = 5}, out2 = {interface = "out2"},
    six = {source = "2001:db8:94:1::77"}, gone = {source = "10.94.1.77"}, unrouted = {source = "2001:db8:94:2::1"},
    nowhere = {interface = "out3"}, wrong = {colour = 1}, prefix = {source = "2001:db8:94:1::/64,by=random"},
}
local function decide(addr, user)
    sluice.cache(user == "mark" and 60 or 0)
    if ways[user] then return addr, ways[user] end
    return addr
end
return {resolve = decide, route = decide, route6 = decide}
"""


@pytest.fixture(scope="module")
def ruled(network, tmp_path_factory):
    """One proxy for what rulesets say; its log is looked at, and it must end in order."""
    folder = tmp_path_factory.mktemp("ruled")
    (folder / "rules.lua").write_text(RULES)
    proxy = process.Sluice(str(folder), "-l", f"unix:{folder}/s", "-r", folder / "rules.lua", "--workers", 1, listen=None,
                           prefix=network.here.prefix)
    proxy.path = f"{folder}/s"
    yield proxy
    proxy.finish()


@pytest.mark.parametrize("user, host, expected", [
    ("plain", V4, ("near", OWN[0])),
    ("source", V4, ("near", "10.94.1.3")),
    ("any", V4, ("near", OWN[0])),
    ("six", V6, ("near", "2001:db8:94:1::77")),
    ("source", V6, 3),  # no source of that family: refused, not reached from another address
    ("six", V4, 3),
    ("same", V4, 3),  # the client came by a Unix socket
    ("gone", V4, 1),
    ("unrouted", V6, 1),  # not this machine's, although it could be bound to: nobody would answer
    ("nowhere", V4, 1),
    ("out2", V4, ("far", "10.94.2.1")),
    ("mark", V4, ("far", "10.94.2.1")),
    ("mark", V4, ("far", "10.94.2.1")),  # remembered by the worker
    ("wrong", V4, 1)])
def test_what_a_verdict_says(ruled, user, host, expected):
    assert seen(ruled.path, host, user.encode()) == expected


def test_verdict_that_is_wrong_is_an_error(ruled):
    assert seen(ruled.path, V4, b"wrong") == 1
    assert ruled.says("ruleset error: the decision has no member `colour', give one of interface, mark, proxy_protocol, source")


def test_new_address_for_each_connection(ruled):
    addresses = {ipaddress.ip_address(seen(ruled.path, V6, b"prefix")[1]) for _ in range(100)}
    assert len(addresses) == 100 and all(address in PREFIX and address != PREFIX[0] for address in addresses)


# --- options ---

def addresses(proxy, host, users):
    """The address that each user has, asked twice."""
    first, again = ([seen(proxy.path, host, user)[1] for user in users] for _ in range(2))
    assert first == again
    return first


USERS = [b"user%d" % n for n in range(60)]


def test_one_address(leaving):
    proxy = leaving("--source", "10.94.1.4")
    assert seen(proxy.path) == ("near", "10.94.1.4")
    assert seen(proxy.path, V6) == 3


def test_an_address_for_each_user(leaving):
    """In both families, whichever worker has the user, and after a restart."""
    options = ("--source", "10.94.1.2,10.94.1.3,10.94.1.4", "--source", "10.94.1.5,2001:db8:94:1::/64")
    runs = []
    for workers in (1, 2):
        proxy = leaving(*options, "--workers", workers)
        runs.append((addresses(proxy, V4, USERS), addresses(proxy, V6, USERS[:20])))
    assert runs[0] == runs[1]
    assert set(runs[0][0]) == set(OWN[1:])
    assert len(set(runs[0][1])) == 20 and all(ipaddress.ip_address(address) in PREFIX for address in runs[0][1])


def test_each_in_turn(leaving):
    proxy = leaving("--source", "10.94.1.2,10.94.1.3,10.94.1.4,by=round", "--workers", 1)
    assert [seen(proxy.path)[1] for _ in range(7)] == [OWN[1 + n % 3] for n in range(7)]


def test_a_thousand_of_a_network(leaving):
    proxy = leaving("--source", f"{PREFIX},by=random")
    found = {ipaddress.ip_address(seen(proxy.path, V6)[1]) for _ in range(1000)}
    assert len(found) > 990 and all(address in PREFIX and address != PREFIX[0] for address in found)


def test_where_the_client_came_in(leaving, network):
    """Several addresses of one listener; a client that came in by IPv4 has no IPv6 address here, unless one is given."""
    port = process.free_port()
    proxy = leaving("-l", f"[::]:{port}", "--source", "same")
    mixed = leaving("-l", f"0.0.0.0:{port + 1}", "--source", "same,2001:db8:94:1::5")

    def ask(host, at, target):
        client = network.near.call(wire.Client, (host, at))
        with wire.greet(client).send(wire.socks5(target, PORT)):
            reply = wire.read_socks5_reply(client)
            return client.read_all().decode().split()[1] if reply[0] == 0 else reply[0]

    assert [ask(address, port, V4) for address in OWN[:3]] == OWN[:3]
    assert ask("2001:db8:94::1", port, V6) == "2001:db8:94::1"
    assert ask(OWN[0], port, V6) == 3
    assert ask(OWN[1], port + 1, V6) == "2001:db8:94:1::5" and ask(OWN[1], port + 1, V4) == OWN[1]
    assert seen(proxy.path) == 3  # by the Unix socket


def test_listeners_differ(leaving):
    """A listener's word counts before the settings', member by member, and a verdict's before that."""
    proxy = leaving("--source", "10.94.1.2", "--mark", "5", listen=",source=10.94.2.1,source=2001:db8:94::1")
    assert seen(proxy.path) == ("far", "10.94.2.1")
    other = leaving("--source", "10.94.1.2", "-i", "out1", listen=",interface=out2,source=any")
    assert seen(other.path) == ("far", "10.94.2.1")
    third = leaving("--source", "10.94.1.2", listen=",mark=0,source=10.94.1.3,source=10.94.1.4,by=round",
                    rules="return {route = function(a, user) return a, {source = user == 'x' and '10.94.1.5' or nil} end}")
    assert seen(third.path)[1] in (OWN[2], OWN[3]) and seen(third.path, user=b"x")[1] == OWN[4]


def test_marks_and_interfaces_choose_the_way(leaving):
    assert seen(leaving("--mark", "0x5").path) == ("far", "10.94.2.1")
    assert seen(leaving("-i", "out2").path) == ("far", "10.94.2.1")
    assert seen(leaving("-i", "out1").path) == ("near", OWN[0])


def test_another_address_when_one_has_gone(leaving):
    """The next one of the pool is tried, once; that the address has gone is said and not told to clients."""
    proxy = leaving("--source", "10.94.1.77,10.94.1.3,by=round", "--workers", 1)
    assert [seen(proxy.path) for _ in range(4)] == [("near", OWN[2])] * 4
    assert proxy.says("--source: 10.94.1.77 is no address of this machine at present")
    assert proxy.says("egress: no connection from 10.94.1.77, interface any, mark 0: the address is not this machine's")
    assert seen(leaving("--source", "10.94.1.77,10.94.1.78,10.94.1.3,by=round", "--workers", 1).path) == 1


def test_interface_that_is_made_anew(leaving, network):
    """Nothing leaves while it is gone, and no restart is needed when it is there again."""
    def make():
        network.here.ip("link", "add", "out7", "type", "veth", "peer", "name", "out8")
        network.here.ip("addr", "add", "10.94.7.1/24", "dev", "out7")
        network.here.ip("link", "set", "out8", "up")
        network.here.ip("link", "set", "out7", "up")

    make()
    proxy = leaving("-i", "out7", "-t", "5")
    try:
        assert seen(proxy.path, "10.94.7.1") != 1  # the way exists: refused, or nobody answers
        network.here.ip("link", "del", "out7")
        assert seen(proxy.path, V4) == 1 and seen(proxy.path, "10.94.7.1") == 1
        make()
        assert seen(proxy.path, "10.94.7.1") != 1
    finally:
        network.here.ip("link", "del", "out7")


# --- BIND, UDP, names ---

def test_bind_listens_where_it_would_leave_from(leaving, network):
    proxy = leaving("--source", "10.94.1.4,2001:db8:94:1::9", "--enable-socks5-bind")
    for named, own in ((V4, "10.94.1.4"), (V6, "2001:db8:94:1::9")):
        client = wire.greet(wire.Client(proxy.path)).send(wire.socks5(named, 0, 2))
        rep, bound, port = wire.read_socks5_reply(client)
        assert (rep, bound) == (0, own)
        with client, network.near.call(wire.Client, (bound, port), source=(named, 0)) as peer:
            assert wire.read_socks5_reply(client)[:2] == (0, named)
            peer.send(b"through")
            assert client.read(7) == b"through"
    lonely = leaving("--source", "10.94.1.4", "--enable-socks5-bind")
    with wire.greet(wire.Client(lonely.path)).send(wire.socks5(V6, 0, 2)) as client:
        assert wire.read_socks5_reply(client)[0] == 3


class Datagrams:
    """Answers each datagram with its own name and the address that it sees."""

    def __init__(self, space, name, host, port=PORT):
        self.socket = space.call(socket.socket, socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.socket.settimeout(30)
        self.name = name
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                _, sender = self.socket.recvfrom(2048)
                self.socket.sendto(f"{self.name} {sender[0]}".encode(), sender)
        except OSError:
            return


def datagram(network, proxy, host, *at):
    """(server, address that it has seen) of a datagram, or None: it was dropped."""
    client = network.near.call(wire.Client, at)
    with wire.greet(client).send(wire.socks5("0.0.0.0", 0, 3)):
        rep, bound, port = wire.read_socks5_reply(client)
        assert rep == 0
        with network.near.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0.4 * process.SLOW)
            sender.sendto(b"\0\0\0" + wire.socks5_address(host, PORT) + b"x", (bound, port))
            try:
                answer = sender.recv(2048)
            except socket.timeout:
                return None
    return tuple(answer[10 if answer[3] == 1 else 22:].decode().split())


def test_datagrams(leaving, network):
    servers = [Datagrams(network.near, "near", V4), Datagrams(network.far, "far", V4), Datagrams(network.near, "near", V6)]
    port = process.free_port()

    def ask(host, *args):
        proxy = leaving("-l", f"{OWN[0]}:{port}", "--enable-socks5-udp", *args)
        answer = datagram(network, proxy, host, OWN[0], port)
        proxy.finish()
        return answer

    try:
        assert ask(V4) == ("near", OWN[0])
        assert ask(V4, "--source", "10.94.1.3,2001:db8:94:1::3") == ("near", "10.94.1.3")
        assert ask(V6, "--source", "10.94.1.3,2001:db8:94:1::3") == ("near", "2001:db8:94:1::3")
        assert ask(V6, "--source", "10.94.1.3") is None  # no source of that family
        assert ask(V4, "--mark", "5") == ("far", "10.94.2.1")
        assert ask(V4, "-i", "out2") == ("far", "10.94.2.1")
        assert ask(V4, "-i", "out3") is None
    finally:
        for server in servers:
            server.socket.close()


@pytest.fixture
def name_servers(network):
    """One near, one far, which know a name by different addresses; they note who asks."""
    import fakedns
    made = {}
    spaces = {"near": network.near, "far": network.far}
    for name, there in spaces.items():
        made[name] = there.call(fakedns.NameServer, V4, 53)
        made[name].add("name.test", V4)
    yield made
    for name, there in spaces.items():
        there.call(made[name].close)


@pytest.mark.parametrize("args, server", [((), "near"), (("--mark", "5"), "far"), (("-i", "out2"), "far")])
def test_questions_leave_the_same_way(leaving, name_servers, args, server):
    proxy = leaving("--nameserver", V4, *args)
    assert seen(proxy.path, b"name.test")[0] == server
    assert [name for name, one in name_servers.items() if one.queries] == [server]


# --- rights ---

def test_marks_outlive_the_change_of_the_user(leaving, name_servers):
    """Of workers and of the thread that asks name servers; and no other right does."""
    proxy = leaving("--mark", "5", "-u", "nobody:", "--nameserver", V4)
    assert seen(proxy.path) == ("far", "10.94.2.1") and seen(proxy.path, b"name.test")[0] == "far"
    assert name_servers["far"].queries and not name_servers["near"].queries
    process.becomes(lambda: {int(re.search(r"CapPrm:\t(\w+)", text).group(1), 16) for text in proxy.threads("status")}, {0, 1 << 13})


def test_no_right_is_left_without_marks(leaving):
    proxy = leaving("-u", "nobody:", "-i", "out1", "--source", "10.94.1.3")
    assert seen(proxy.path) == ("near", "10.94.1.3")  # interfaces and sources take none
    assert process.wait_until(lambda: all("CapPrm:\t0000000000000000" in text for text in proxy.threads("status")))


def test_marks_without_the_right(leaving, network):
    """Settings that cannot be met end the start; a ruleset's are a failure, and nothing leaves unmarked."""
    rights = "-net_raw,-net_admin"
    without = (require("setpriv", "util-linux"), "--bounding-set", rights, "--inh-caps", rights)
    done = network.here.run(*without, process.BINARY, "-l", "127.0.0.1:1080", "--mark", "5", timeout=20 * process.SLOW)
    assert done.returncode == 1
    assert "--mark 5: marking packets takes CAP_NET_RAW or CAP_NET_ADMIN, which this process does not have" in done.stderr
    proxy = leaving(prefix=without, rules="return {route = function(a) return a, {mark = 5} end}")
    assert seen(proxy.path) == 1
    assert proxy.says("mark 5: marks and interfaces need CAP_NET_RAW or CAP_NET_ADMIN")


# --- ports that run out ---

def test_ports_that_run_out(leaving, network, tmp_path):
    """Four ports, two addresses: the second one is taken when the first has none left, and then it is said at once."""
    port_range = "/proc/sys/net/ipv4/ip_local_port_range"
    before = network.here.run("cat", port_range).stdout
    holding = network.near.call(origins.Origin, origins.hold, host=V4, port=PORT + 1)
    clients, seen_from, answers = [], [], []
    proxy = leaving("--source", "10.94.1.2,10.94.1.3,by=source", "--workers", 1, "--api", f"unix:{tmp_path}/api")
    try:
        network.here.run("sh", "-c", f"echo 40000 40003 > {port_range}")
        for _ in range(9):
            clients.append(wire.greet(wire.Client(proxy.path)).send(wire.socks5(V4, PORT + 1)))
            answers.append(wire.read_socks5_reply(clients[-1])[0])
        seen_from = [peer[0] for peer in holding.wait("connections", 8) and holding.peers]
    finally:
        network.here.run("sh", "-c", f"echo {before} > {port_range}")
        for client in clients:
            client.close()
        holding.close()
    assert answers == [0] * 8 + [1]
    assert sorted(seen_from) == ["10.94.1.2"] * 4 + ["10.94.1.3"] * 4 and len(set(seen_from[:4])) == 1
    metrics = scripts.Api(f"{tmp_path}/api").get("/metrics").text
    assert 'sluice_failures_total{reason="egress"} 1' in metrics
    assert 'sluice_egress_rests_total{worker="0"} 2' in metrics
    assert proxy.cpu() < 5


# --- settings that change ---

def test_reload(leaving, name_servers, tmp_path):
    """What a -c file says takes the place of what was there; connections, listeners and questions follow."""
    def write(text):
        (tmp_path / "c.lua").write_text(f"return {{ {text} }}")

    write('source = "10.94.1.2"')
    proxy = leaving("-c", tmp_path / "c.lua", "--nameserver", V4)
    assert seen(proxy.path) == ("near", "10.94.1.2")
    for number, (text, expected) in enumerate([('source = "10.94.1.3,10.94.1.3"', ("near", "10.94.1.3")), ('source = "", mark = 5', ("far", "10.94.2.1")),
                                               ('mark = 0, netdev = "out1"', ("near", OWN[0]))], 1):
        write(text)
        proxy.signal(signal.SIGHUP)
        assert process.wait_until(lambda: proxy.log().count("config successfully reloaded") == number)
        process.becomes(lambda: seen(proxy.path), expected)
        assert seen(proxy.path, b"name.test")[0] == expected[0]
    write('source = "eth0"')
    proxy.signal(signal.SIGHUP)
    assert proxy.says("field `source': \"eth0\": this is no address")
    assert seen(proxy.path) == ("near", OWN[0])
