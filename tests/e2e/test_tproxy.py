"""Transparent proxying, in three namespaces of our own: a client, a router on which sluice runs, and a server.

    client 10.91.1.2 ---- 10.91.1.1 router 10.91.2.1 ---- 10.91.2.2 server        (and fd91:1::/64, fd91:2::/64)

The router's firewall hands every TCP connection that comes from the client's side to sluice (nftables, tproxy), which
sees in the socket's own address where the client wanted to go."""
import os

import pytest

import namespaces
import origins
import wire
from conftest import require

RULES = """
table inet sluice {
    chain divert {
        type filter hook prerouting priority mangle; policy accept;
        iifname "%(client)s" meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:%(port)d meta mark set 1 accept
        iifname "%(client)s" meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:%(port)d meta mark set 1 accept
    }
}
"""
PORT = 12345  # in a namespace of its own every port is free


class Network:
    def __init__(self, namespace):
        self.client, self.router, self.server = namespace("c"), namespace("r"), namespace("s")
        tag = str(os.getpid() % 100000)
        self.inner, self.outer = f"ri{tag}", f"ro{tag}"
        namespaces.connect(self.client, f"c{tag}", self.router, self.inner)
        namespaces.connect(self.server, f"s{tag}", self.router, self.outer)
        for one, device, net, host in ((self.client, f"c{tag}", 1, 2), (self.router, self.inner, 1, 1),
                                       (self.server, f"s{tag}", 2, 2), (self.router, self.outer, 2, 1)):
            one.ip("addr", "add", f"10.91.{net}.{host}/24", "dev", device)
            one.ip("addr", "add", f"fd91:{net}::{host}/64", "dev", device, "nodad")
        for one, net in ((self.client, 1), (self.server, 2)):
            one.ip("route", "add", "default", "via", f"10.91.{net}.1")
            one.ip("-6", "route", "add", "default", "via", f"fd91:{net}::1")
        for family, every in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
            self.router.ip(family, "rule", "add", "fwmark", "1", "lookup", "100")
            self.router.ip(family, "route", "add", "local", every, "dev", "lo", "table", "100")

    def divert(self, nft):
        done = self.router.run(nft, "-f", "-", input=RULES % {"client": self.inner, "port": PORT})
        if done.returncode:
            pytest.skip(f"this kernel has no TPROXY: {done.stderr.strip().splitlines()[0]}")


@pytest.fixture
def network(namespace):
    nft = require("nft", "nftables")
    made = Network(namespace)
    made.divert(nft)
    return made


CASES = {4: ("127.0.0.1", "10.91.2.2", "10.91.2.1", "10.91.2.99"),
         6: ("[::1]", "fd91:2::2", "fd91:2::1", "fd91:2::99")}


@pytest.mark.parametrize("family", CASES)
def test_tproxy(sluice, origin, network, family):
    listen, server, router, _ = CASES[family]
    proxy = sluice("--tproxy", "-l", f"{listen}:{PORT}", listen=None, prefix=network.router.prefix)
    target = network.server.call(origin, origins.echo, host=server)
    client = network.client.call(wire.Client, (server, target.port))
    message = bytes(range(256)) * 4000
    client.send(message).shut()
    assert client.read_all() == message
    assert target.wait("peers")[0][0] == router  # the connection is ours, not the client's
    assert proxy.flat()


@pytest.mark.parametrize("family", CASES)
def test_tproxy_tells_a_refusal_by_its_end(sluice, network, family):
    listen, server, _, _ = CASES[family]
    sluice("--tproxy", "-l", f"{listen}:{PORT}", listen=None, prefix=network.router.prefix)
    client = network.client.call(wire.Client, (server, 9))
    assert client.ends_with() in ("end", "reset")


def test_tproxy_is_subject_to_the_policy(sluice, origin, network):
    sluice("--tproxy", "-l", f"127.0.0.1:{PORT}", "--block-outbound", "local", listen=None,
           prefix=network.router.prefix)
    target = network.server.call(origin, origins.echo, host="10.91.2.2")
    client = network.client.call(wire.Client, ("10.91.2.2", target.port))
    assert client.ends_with() in ("end", "reset")
    assert not target.connections


def test_tproxy_through_a_chain(sluice, origin, network):
    """The address that the client dialled travels to the next proxy."""
    second = sluice("-l", "10.91.2.2:1080", listen=None, prefix=network.server.prefix)
    sluice("--tproxy", "-l", f"127.0.0.1:{PORT}", "-x", "socks5://10.91.2.2:1080", listen=None,
           prefix=network.router.prefix)
    target = network.server.call(origin, origins.echo, host="10.91.2.2")
    client = network.client.call(wire.Client, ("10.91.2.2", target.port))
    client.send(b"hello")
    assert client.read(5) == b"hello"
    assert target.wait("peers")[0][0] == "10.91.2.2"
    client.close()
    assert second.alive()


def test_tproxy_without_the_right_says_so(tmp_path):
    """CAP_NET_ADMIN is needed, and its lack is told in one line."""
    import process
    setpriv = require("setpriv", "util-linux")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    import subprocess
    done = subprocess.run([setpriv, "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw",
                           process.BINARY, "--tproxy", "-l", f"127.0.0.1:{process.free_port()}"],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and "--tproxy" in lines[0]
