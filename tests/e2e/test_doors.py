"""What the process itself listens on is no target of its clients, in whatever form they name it; and no connection runs
in a circle. The operator's own words keep working."""
import os
import socket

import pytest

import process
import scripts
import wire
from conftest import require
from test_ruleset import DIRECT, echoes, refused
from test_scripts import Scripted, socks4_source
from test_tproxy import Network

# A name that a client brings along is one more form.
FORMS = ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0", b"127.0.0.1", b"::ffff:127.0.0.1", b"localhost",
         b"LOCALHOST", b"evil.test", b"mapped.test", b"both.test"]


def count(api, label):
    return api.get("/stats?format=json").json()["failures"][label]


def accepted(api):
    return sum(worker["accepted"] for worker in api.get("/stats?format=json").json()["workers"])


def attack(path, where="", host="localhost"):
    """A request that would make the API run a command."""
    body = f"os.execute('touch {path}')"
    return (f"POST {where}/ruleset/invoke HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n" + body).encode()


def plain(host, port, path):
    authority = wire.authority(host.decode() if isinstance(host, bytes) else host, port).decode()
    return attack(path, f"http://{authority}", authority)


def every_way(proxy, host, port, path, code=2, status=403):
    """In each protocol the client is told that it may not, whatever it sends behind its request."""
    client = wire.greet(wire.Client(proxy.address)).send(wire.socks5(host, port) + attack(path))
    assert client.read_all() == wire.socks5_failure(code), host
    name = host if isinstance(host, bytes) else host.encode()
    client = wire.Client(proxy.address).send(wire.socks4a(name, port) + attack(path))
    assert client.read_all() == wire.SOCKS4_REJECTED, host
    literal = name.decode()
    client = wire.Client(proxy.address).send(wire.http_connect(literal, port) + attack(path))
    assert wire.status_of(client.read_all())[0] == status, host
    client = wire.Client(proxy.address).send(plain(host, port, path))
    assert wire.status_of(client.read_all())[0] == status, host


@pytest.mark.parametrize("script", [None, DIRECT], ids=["without", "ruleset"])
def test_the_api_is_no_target(ruled, dns, tmp_path, script):
    names = dns()
    names.add("evil.test", "127.0.0.1")
    names.add("mapped.test", "::ffff:127.0.0.1")
    names.add("both.test", "::1", "127.0.0.1")  # at the first of which nobody listens: as localhost in Debian's /etc/hosts
    proxy, api = ruled(script, "--nameserver", names.text, "--loglevel", "5")
    mark = tmp_path / "taken"
    for host in FORMS:
        every_way(proxy, host, api.address[1], mark)
    client = wire.Client(proxy.address).send(wire.socks4("127.0.0.1", api.address[1]) + attack(mark))
    assert client.read_all() == wire.SOCKS4_REJECTED
    assert count(api, "self") == 4 * len(FORMS) + 1
    assert proxy.says("the target is this proxy itself")
    assert not mark.exists()
    assert api.post("/ruleset/invoke", f"os.execute('touch {mark}')").status in (200, 500)  # the machine's own users


@pytest.mark.parametrize("script", [None, DIRECT], ids=["without", "ruleset"])
def test_curl_cannot_reach_the_api(ruled, tmp_path, script):
    curl = require("curl", "curl")
    proxy, api = ruled(script)
    mark = tmp_path / "taken"
    import subprocess
    for way in ["--socks4", "--socks4a", "--socks5", "--socks5-hostname", "--proxy"]:
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"]:
            for more in [[], ["--proxytunnel"]] if way == "--proxy" else [[]]:
                done = subprocess.run([curl, "-s", "-m", "10", way, proxy.url, *more, "--noproxy", "", "--data-binary",
                                       f"os.execute('touch {mark}')", f"http://{host}:{api.address[1]}/ruleset/invoke"],
                                      capture_output=True, timeout=30)
                assert done.returncode != 0 or b"403 Forbidden" in done.stdout, (way, host, done)
    assert not mark.exists()


def test_allow_self(ruled):
    proxy, api = ruled(None, "--allow-self")
    client = wire.through_http(proxy.address, "127.0.0.1", api.address[1]).send(b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.read_head().startswith(b"HTTP/1.1 200")
    client.close()
    # round and round, by naming the proxy again and again, ends all the same
    client = wire.Client(proxy.address)
    for _ in range(40):
        try:
            client.send(wire.http_connect("127.0.0.1", proxy.port))
            if b" 200 " not in client.read_head():
                break
        except (EOFError, OSError):
            break
    else:
        raise AssertionError("it went round forty times")
    client.close()
    assert proxy.flat() and count(api, "loop") == 1


def test_listeners_are_no_targets(sluice, ruled, origin):
    """Neither our own nor the others of the same process; what another process listens on is its own matter."""
    other = process.free_port()
    proxy, api = ruled(None, "-l", f"127.0.0.2:{other}", "--http", f"127.0.0.1:{other}")
    for host, port in [("127.0.0.1", proxy.port), ("127.0.0.2", other), ("127.0.0.1", other)]:
        refused(proxy, host, port, 2)
    refused(proxy, "127.0.0.3", other, 5)  # nobody listens there
    target = origin(host="127.0.0.3")
    echoes(wire.through_socks5(proxy.address, "127.0.0.3", target.port))
    assert count(api, "self") == 3


def test_a_listener_on_all_addresses(namespace, sluice, tmp_path):
    """Every address of the machine leads to it, also one that is added while it runs, a secondary one, and one that no
    interface has but that is routed to here. A neighbour's does not."""
    import namespaces
    ours, neighbour = namespace("a"), namespace("b")
    namespaces.connect(ours, "left", neighbour, "right")
    ours.ip("addr", "add", "10.92.1.1/24", "dev", "left")
    ours.ip("addr", "add", "10.92.1.3/24", "dev", "left")
    ours.ip("addr", "add", "fd92:1::1/64", "dev", "left", "nodad")
    neighbour.ip("addr", "add", "10.92.1.2/24", "dev", "right")
    path = str(tmp_path / "api")
    sluice("-l", "[::]:1080", "--api", f"unix:{path}", listen=None, prefix=ours.prefix)
    there = neighbour.call(socket.create_server, ("10.92.1.2", 1080))

    def ask(host):
        client = wire.greet(ours.call(wire.Client, ("127.0.0.1", 1080))).send(wire.socks5(host, 1080))
        code = wire.read_socks5_reply(client)[0]
        client.close()
        return code

    for host in ["127.0.0.1", "127.1.2.3", "::1", "::", "0.0.0.0", "10.92.1.1", "10.92.1.3", "::ffff:10.92.1.3", "fd92:1::1"]:
        assert ask(host) == 2, host
    assert ask("10.92.1.2") == 0
    ours.ip("addr", "add", "10.92.7.7/24", "dev", "left")
    ours.ip("-6", "addr", "add", "fd92:7::7/64", "dev", "left", "nodad")
    ours.ip("route", "add", "local", "10.93.0.0/16", "dev", "lo")
    for host in ["10.92.7.7", "fd92:7::7", "10.93.4.5"]:
        assert ask(host) == 2, host
    assert count(scripts.Api(path), "self") == 12
    there.close()


# --- the operator's words ---

HOSTS = """
_G.libruleset = require("libruleset")
_G.hosts = {{ ["table.test"] = "127.0.0.1" }}
_G.redirect_name = {{
    {{ match.exact("api.neosocksd.internal:80"), rule.redirect("127.0.0.1:{api}") }},
    {{ match.host("resolved.test"), rule.resolve() }},
}}
_G.redirect = {{ {{ match.exact("192.0.2.9:81"), rule.redirect("localhost:{api}") }} }}
_G.route_default = {{ rule.direct() }}
return libruleset
"""


def test_a_ruleset_may_name_the_api(ruled, dns):
    """It has said both, host and port. A name that it resolves, or looks up in its table of hosts, leaves the port to the
    client: that is no word of the operator's."""
    names = dns()
    names.add("resolved.test", "127.0.0.1")
    names.add("direct.test", "127.0.0.1")
    proxy, api = ruled(None, "--nameserver", names.text)
    port = api.address[1]
    proxy, api = ruled(HOSTS.format(api=port), "--nameserver", names.text, name="hosts.lua")
    port = api.address[1]
    api.update(HOSTS.format(api=port))
    for client in [wire.through_socks5(proxy.address, b"api.neosocksd.internal", 80),
                   wire.through_http(proxy.address, "api.neosocksd.internal", 80),
                   wire.through_socks4(proxy.address, "192.0.2.9", 81)]:
        client.send(b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.read_head().startswith(b"HTTP/1.1 200")
        client.close()
    for name in [b"resolved.test", b"table.test", b"direct.test", b"localhost"]:
        refused(proxy, name, port, 2)
    assert count(api, "self") == 4


def test_calls_of_scripts_reach_the_api(ruled):
    """await.rpcall and await.invoke, directly and by way of our own listener."""
    proxy, api = ruled(HOSTS.format(api=9))
    port = api.address[1]
    api.update(HOSTS.format(api=port))
    assert api.call(f"local ok, f = await.invoke('return 7', '127.0.0.1:{port}') return ok, f()") == "return true,true,true,7"
    assert api.call("local ok, f = await.invoke('return 8', 'api.neosocksd.internal:80', "
                    f"'socks5://127.0.0.1:{proxy.port}') return ok, f()") == "return true,true,true,8"
    assert count(api, "self") == count(api, "loop") == 0


def test_a_forwarder_may_lead_to_the_api(sluice):
    """-f is the operator's word, too."""
    api_port, port = process.free_port(), process.free_port()
    sluice("-l", f"127.0.0.1:{port}", "-f", f"127.0.0.1:{api_port}", "--api", f"127.0.0.1:{api_port}", listen=None)
    assert scripts.Api(("127.0.0.1", port)).get("/healthy").status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", b"localhost", b"localhost."])
def test_a_chain_on_this_machine_leads_back(sluice, ruled, tmp_path, host):
    """What the next proxy takes for loopback is our own machine if it runs here."""
    other = sluice()
    proxy, api = ruled(None, "-x", f"socks5://127.0.0.1:{other.port}")
    mark = tmp_path / "taken"
    every_way(proxy, host, api.address[1], mark)
    assert not mark.exists() and count(api, "self") == 4


def test_a_chain_on_this_machine_that_has_a_name(sluice, ruled, dns, tmp_path):
    """Where it runs is known when it is reached: it is not asked."""
    names = dns()
    names.add("next.test", "127.0.0.1")
    other = sluice("--loglevel", "5")
    proxy, api = ruled(None, "-x", f"socks5://next.test:{other.port}", "--nameserver", names.text)
    mark = tmp_path / "taken"
    for host in ["127.0.0.1", b"localhost"]:
        every_way(proxy, host, api.address[1], mark)
    assert not mark.exists() and count(api, "self") == 8
    assert str(api.address[1]) not in other.log()


def test_what_a_far_chain_calls_loopback_is_its_own(sluice, ruled, origin):
    """The next proxy is somewhere else, as far as we can tell: its loopback is not ours."""
    heard = []

    def handler(_, connection):
        connection.recv(3)
        connection.sendall(b"\5\0")
        heard.append(connection.recv(100))
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")

    far = origin(handler)
    proxy, api = ruled(None, "-x", f"socks5://{socket.gethostname()}.far.test:{far.port}", "--nameserver", "127.0.0.1:1")
    refused(proxy, "127.0.0.1", api.address[1], 4)  # its name does not resolve here; but the target was not the reason
    assert count(api, "self") == 0


# --- scripts ---

def test_sockets_of_scripts_are_no_targets(ruled, origin):
    port, datagrams = process.free_port(), process.free_port(kind=socket.SOCK_DGRAM)
    proxy, api = ruled(None, "--enable-socks5-udp")
    source = (f"local s = socket.new('inet', 'tcp') s:setsockopt('socket', 'reuseaddr', 1) s:bind('127.0.0.1', {port}) s:listen(8) "
              f"local u = socket.new('inet', 'udp') u:bind('127.0.0.1', {datagrams}) _G.got = 0 "
              "while true do local text = u:receive(100) if text then neosocksd.invoke(function() end) end end")
    assert api.post("/scripts?name=server", source).status in (200, 201)
    assert process.wait_until(lambda: process.listens("127.0.0.1", port))
    refused(proxy, "127.0.0.1", port, 2)
    refused(proxy, b"localhost", port, 2)
    # a datagram to it is dropped, one to somebody else is not
    control = wire.greet(wire.Client(proxy.address)).send(wire.socks5("0.0.0.0", 0, command=3))
    _, host, relay = wire.read_socks5_reply(control)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind(("127.0.0.1", 0))
    far.settimeout(10)
    dropped = sum_of_workers(api, "datagrams_dropped")
    for to in (datagrams, relay, far.getsockname()[1]):
        client.sendto(b"\0\0\0" + wire.socks5_address("127.0.0.1", to) + b"hello", ("127.0.0.1", relay))
    assert far.recv(100) == b"hello"
    assert process.wait_until(lambda: sum_of_workers(api, "datagrams_dropped") == dropped + 2)
    client.close()
    far.close()
    control.close()
    # when the script is gone its port is anybody's
    api.ask("DELETE", "/scripts/server")
    assert process.wait_until(lambda: process.is_free("127.0.0.1", port, socket.SOCK_STREAM))
    target = origin(port=port)
    echoes(wire.through_socks5(proxy.address, "127.0.0.1", target.port))


def sum_of_workers(api, name):
    return int(sum(float(line.split()[-1]) for line in api.get("/metrics").text.splitlines()
                   if line.startswith(f"sluice_{name}")))


@pytest.mark.parametrize("host", ["127.0.0.1", b"localhost", b"127.0.0.1", b"::ffff:127.0.0.1"])
def test_the_socks4_example_keeps_clients_from_the_api(sluice, tmp_path, host):
    port = process.free_port()
    (tmp_path / "socks4.lua").write_text(socks4_source("script", port))
    (tmp_path / "rules.lua").write_text("return {}")
    one = Scripted(sluice, "--script", str(tmp_path / "socks4.lua"), "-r", str(tmp_path / "rules.lua"))
    mark = tmp_path / "taken"
    api_port = one.api.address[1]
    for to in (api_port, port):
        assert process.wait_until(lambda: process.listens("127.0.0.1", port))
        request = wire.socks4a(host, to) if isinstance(host, bytes) else wire.socks4(host, to)
        client = wire.Client(("127.0.0.1", port)).send(request + attack(mark))
        assert client.read(8) == wire.SOCKS4_REJECTED
        client.close()
    assert not mark.exists()
    assert one.api.call(f"return sluice.is_own('127.0.0.1', {api_port}), sluice.is_own(0x7f000001, {port}), "
                        f"sluice.is_own('127.0.0.2', {port}), pcall(sluice.is_own, 'name', 1)").startswith("return true,true,true,false,false,")


# --- circles ---

class Circle:
    """A sluice with several listeners, the API on a Unix socket, and what has become of one connection to it."""

    def __init__(self, sluice, tmp_path, *args, prefix=()):
        path = str(tmp_path / "api")
        self.api = scripts.Api(path)
        self.sluice = sluice("--api", f"unix:{path}", "--workers", "2", "--max-sessions", "200", *args, listen=None, prefix=prefix)

    def ends(self, most, label="loop", failures=1):
        assert self.sluice.flat()
        assert 1 <= accepted(self.api) <= most
        assert count(self.api, label) == failures


def test_tproxy_to_itself(sluice, tmp_path):
    """The address that a direct connection was meant for is the listener's own: one session, not as many as there may be."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    port = process.free_port()
    circle = Circle(sluice, tmp_path, "--tproxy", "-l", f"127.0.0.1:{port}")
    assert wire.Client(("127.0.0.1", port)).ends_with() in ("end", "reset")
    circle.ends(1, "self")


def test_tproxy_to_itself_although_it_is_allowed(sluice, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    port = process.free_port()
    circle = Circle(sluice, tmp_path, "--tproxy", "-l", f"127.0.0.1:{port}", "--allow-self")
    assert wire.Client(("127.0.0.1", port)).ends_with() in ("end", "reset")
    circle.ends(1)


@pytest.mark.parametrize("count_of_listeners", [1, 2, 3])
def test_forwarders_in_a_circle(sluice, tmp_path, dns, count_of_listeners):
    """Each leads to the next by a name, the last one to the first."""
    names = dns()
    names.add("round.test", "127.0.0.1")
    ports = [process.free_port() for _ in range(count_of_listeners)]
    words = []
    for i, port in enumerate(ports):
        words += ["-l", f"127.0.0.1:{port}", "-f", f"round.test:{ports[(i + 1) % len(ports)]}"]
    circle = Circle(sluice, tmp_path, "--nameserver", names.text, *words)
    for turn in range(5):
        assert wire.Client(("127.0.0.1", ports[0])).ends_with() in ("end", "reset")
    # a worker that is held up between its connect and its note lets one more through
    circle.ends(5 * (count_of_listeners + 1), failures=5)


@pytest.mark.parametrize("scheme", ["socks5", "socks4a", "http"])
def test_a_chain_to_itself(sluice, tmp_path, dns, scheme):
    names = dns()
    names.add("round.test", "127.0.0.1")
    port = process.free_port()
    circle = Circle(sluice, tmp_path, "--nameserver", names.text, "-l", f"127.0.0.1:{port}", "-x", f"{scheme}://round.test:{port}")
    client = wire.greet(wire.Client(("127.0.0.1", port))).send(wire.socks5("192.0.2.1", 80))
    assert client.read_all() == wire.socks5_failure(2)
    circle.ends(1)


def test_a_chain_by_way_of_a_forwarder(sluice, tmp_path, dns):
    """-x leads to another listener of the process, which forwards to the first."""
    names = dns()
    names.add("round.test", "127.0.0.1")
    first, second = process.free_port(), process.free_port()
    circle = Circle(sluice, tmp_path, "--nameserver", names.text, "-l", f"127.0.0.1:{first}", "-l", f"127.0.0.1:{second}",
                    "-f", "192.0.2.1:9", "-x", f"socks5://round.test:{second}")
    client = wire.greet(wire.Client(("127.0.0.1", first))).send(wire.socks5("192.0.2.1", 80))
    assert client.read(1) == b"\5"
    client.close()
    circle.ends(3)


def test_two_processes_in_a_circle_end(sluice, tmp_path, dns):
    """A circle through somebody else: the connection comes from a stranger, but the limits hold, and all of it ends."""
    ports = [process.free_port(), process.free_port()]
    first = sluice("-l", f"127.0.0.1:{ports[0]}", "-x", f"socks5://127.0.0.1:{ports[1]}", "-m", "20", "-t", "5", listen=None)
    second = sluice("-l", f"127.0.0.1:{ports[1]}", "-x", f"socks5://127.0.0.1:{ports[0]}", "-m", "20", "-t", "5", listen=None)
    client = wire.greet(wire.Client(("127.0.0.1", ports[0]))).send(wire.socks5("192.0.2.1", 80))
    assert client.read(2)[:1] == b"\5"
    client.close()
    assert first.flat() and second.flat()


CAPTURE = """
table inet circle {
    chain out {
        type route hook output priority mangle; policy accept;
        ip daddr 10.91.2.2 tcp dport 7777 meta mark set 1
    }
    chain divert {
        type filter hook prerouting priority mangle; policy accept;
        iifname "lo" ip daddr 10.91.2.2 tcp dport 7777 tproxy ip to 127.0.0.1:12345 meta mark set 1 accept
    }
    chain turn {
        type nat hook output priority -100; policy accept;
        ip daddr 10.91.2.2 tcp dport 8888 redirect to :12346
    }
}
"""


def test_a_firewall_that_leads_back_what_we_send(sluice, tmp_path, namespace):
    """Rules that catch the proxy's own connections: TPROXY and REDIRECT. Each client costs two sessions at most."""
    nft = require("nft", "nftables")
    network = Network(namespace)
    done = network.router.run(nft, "-f", "-", input=CAPTURE)
    if done.returncode:
        pytest.skip(f"this kernel has no TPROXY or REDIRECT: {done.stderr.strip().splitlines()[0]}")
    circle = Circle(sluice, tmp_path, "--tproxy", "-l", "127.0.0.1:12345", prefix=network.router.prefix)
    for turn in range(1, 6):
        assert network.router.call(wire.Client, ("10.91.2.2", 7777)).ends_with() in ("end", "reset")
    circle.ends(5 * 3, failures=5)
    (tmp_path / "two").mkdir()
    circle = Circle(sluice, tmp_path / "two", "-l", "0.0.0.0:12346", "-f", "10.91.2.2:8888", prefix=network.router.prefix)
    for turn in range(1, 6):
        assert network.router.call(wire.Client, ("127.0.0.1", 12346)).ends_with() in ("end", "reset")
    circle.ends(5 * 3, failures=5)
