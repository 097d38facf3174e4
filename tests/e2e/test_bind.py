"""SOCKS5 BIND: the client waits, by way of the proxy, for a connection from a peer."""
import subprocess
import sys
import time

import pytest

import process
import wire
from conftest import require

ON = "--enable-socks5-bind"


def ask(proxy, host="127.0.0.1", port=0, **options):
    """(client, where the peer is to connect)."""
    client = wire.greet(wire.Client(proxy.address, **options)).send(wire.socks5(host, port, 2))
    rep, bound, bound_port = wire.read_socks5_reply(client)
    assert rep == 0 and bound_port > 0
    return client, (bound, bound_port)


def assert_tunnel(client, peer):
    client.send(b"from the client")
    assert peer.read(15) == b"from the client"
    peer.send(b"from the peer")
    assert client.read(13) == b"from the peer"
    client.shut()
    assert peer.read_all() == b""
    peer.send(b"more").shut()
    assert client.read_all() == b"more"


def is_refused(address):
    """Whether nobody listens there."""
    try:
        wire.Client(address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the listener was closed while the connection was made
        pass
    return False


def is_reset(address, **options):
    """Whether a connection is made and reset, be it so early that connecting reports it."""
    try:
        with wire.Client(address, **options) as stranger:
            return stranger.ends_with() == "reset"
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("host, listen", [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"),
                                          ("::", "::1"), ("localhost", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_bind(sluice, host, listen):
    proxy = sluice(ON, *(["-4"] if host == "localhost" else []), listen=listen)
    client, bound = ask(proxy, host)
    assert bound[0] == ("127.0.0.1" if host in ("127.0.0.1", "0.0.0.0", "localhost") else "::1")
    peer = wire.Client(bound)
    rep, address, port = wire.read_socks5_reply(client)
    assert (rep, address, port) == (0, *peer.socket.getsockname()[:2])
    assert_tunnel(client, peer)
    assert proxy.flat()


def test_peer_comes_by_whichever_address(shared):
    """Who cannot say where its peer comes from cannot say either by which of our addresses it comes; who can, gets the one
    address by which that peer is reached."""
    proxy = shared(ON)
    client, bound = ask(proxy, "0.0.0.0")
    peer = wire.Client(("127.0.0.2", bound[1]))
    assert wire.read_socks5_reply(client)[0] == 0
    assert_tunnel(client, peer)
    client, bound = ask(proxy, "127.0.0.1")
    with pytest.raises(ConnectionRefusedError):
        wire.Client(("127.0.0.2", bound[1]))
    client.close()
    assert proxy.flat()


def test_somebody_else_is_refused(shared):
    proxy = shared(ON)
    client, bound = ask(proxy, "127.0.0.9")
    for _ in range(5):
        assert is_reset(bound, source=("127.0.0.1", 0))
    peer = wire.Client(bound, source=("127.0.0.9", 0))
    assert wire.read_socks5_reply(client)[:2] == (0, "127.0.0.9")
    assert_tunnel(client, peer)


def test_only_one_peer(shared):
    proxy = shared(ON)
    client, bound = ask(proxy)
    peer = wire.Client(bound)
    assert wire.read_socks5_reply(client)[0] == 0
    with pytest.raises(ConnectionRefusedError):
        wire.Client(bound)
    assert_tunnel(client, peer)


def test_octets_that_come_early(shared):
    """What either side has sent before the other was there arrives."""
    proxy = shared(ON)
    client, bound = ask(proxy)
    client.send(b"early client")
    time.sleep(0.1)
    peer = wire.Client(bound).send(b"early peer")
    assert wire.read_socks5_reply(client)[0] == 0
    assert client.read(10) == b"early peer"
    assert peer.read(12) == b"early client"
    assert_tunnel(client, peer)


def test_bind_for_a_name(sluice, dns):
    server = dns()
    server.add("peer.example", "127.0.0.7", "127.0.0.8")
    proxy = sluice(ON, "--nameserver", server.text)
    client, bound = ask(proxy, "peer.example")
    peer = wire.Client(bound, source=("127.0.0.8", 0))
    assert wire.read_socks5_reply(client)[:2] == (0, "127.0.0.8")
    assert_tunnel(client, peer)


@pytest.mark.parametrize("host, options, code", [
    ("nowhere.example", [], 4), ("224.0.0.1", [], 2), ("127.0.0.1", ["--block-outbound", "loopback"], 2)])
def test_bind_that_is_refused(sluice, dns, host, options, code):
    proxy = sluice(ON, "--nameserver", dns().text, *options)
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5(host, 80, 2))
        assert client.read_all() == wire.socks5_failure(code)


def test_policy_judges_the_peer(shared):
    proxy = shared(ON, "--block-outbound", "loopback")
    client, bound = ask(proxy, "0.0.0.0")
    assert is_reset(bound)
    client.reset()
    assert proxy.flat()


def test_nobody_comes(shared):
    """The second reply says so, with the listener's address (contract 2.4)."""
    proxy = shared(ON, "-t", "5")
    start = time.monotonic()
    client, bound = ask(proxy)
    assert wire.read_socks5_reply(client) == (6, *bound)
    assert client.ends_with() == "end"
    assert 4.5 < time.monotonic() - start < 30
    assert process.wait_until(lambda: is_refused(bound))


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_client_gives_up(shared, ending):
    proxy = shared(ON)
    client, bound = ask(proxy)
    getattr(client, ending)()
    assert proxy.flat()
    with pytest.raises(ConnectionRefusedError):
        wire.Client(bound)


@pytest.mark.parametrize("first", ["client", "peer"])
def test_reset_passes(shared, first):
    client, bound = ask(shared(ON))
    peer = wire.Client(bound)
    assert wire.read_socks5_reply(client)[0] == 0
    one, other = (client, peer) if first == "client" else (peer, client)
    one.reset()
    assert other.ends_with() == "reset"


# --- told by a ruleset, and through other proxies ---

RULES = """
local function decide(address)
    _G.asked = (asked or "") .. request.command .. " " .. address .. ";"
    local host, port = neosocksd.splithostport(address)
    if host == "127.0.0.66" then return nil end
    if host == "127.0.0.77" then return "127.0.0.8:" .. port end
    if host == "tried.example" then
        if await.forward("nowhere.example:1") then return end
        return "127.0.0.8:" .. port
    end
    if host:find("^chain") then return "127.0.0.8:9", "%s" end
    return address
end
return { route = decide, route6 = decide, resolve = decide, stats = function() return asked or "" end }
"""


def refused_with(proxy, host, port=0):
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5(host, port, 2))
        rep = wire.read_socks5_reply(client)[0]
        assert client.ends_with() == "end"
        return rep


def test_a_ruleset_decides(ruled, dns):
    proxy, api = ruled(RULES % "http://127.0.0.1:1", ON, "--nameserver", dns().text)
    client, bound = ask(proxy, "127.0.0.9", 21)
    assert is_reset(bound)
    peer = wire.Client(bound, source=("127.0.0.9", 0))
    assert wire.read_socks5_reply(client)[:2] == (0, "127.0.0.9")
    assert_tunnel(client, peer)
    client, bound = ask(proxy, "127.0.0.77", 21)  # another peer than was asked for
    assert is_reset(bound, source=("127.0.0.77", 0))
    peer = wire.Client(bound, source=("127.0.0.8", 0))
    assert wire.read_socks5_reply(client)[:2] == (0, "127.0.0.8")
    assert_tunnel(client, peer)
    client, bound = ask(proxy, "tried.example", 21)  # the first way fails, the second is taken
    peer = wire.Client(bound, source=("127.0.0.8", 0))
    assert wire.read_socks5_reply(client)[:2] == (0, "127.0.0.8")
    assert_tunnel(client, peer)
    client, bound = ask(proxy, "0.0.0.0")  # anybody may come: asked as it was said
    client.close()
    assert refused_with(proxy, "127.0.0.66", 21) == 1
    assert refused_with(proxy, "chain.example", 21) == 7  # no proxy of that kind can listen for a peer
    said = api.post("/stats").text
    for line in ("bind 127.0.0.9:21;", "bind 127.0.0.77:21;", "bind tried.example:21;", "bind 0.0.0.0:0;", "bind 127.0.0.66:21;"):
        assert line in said, said
    assert proxy.flat()


@pytest.mark.parametrize("proxies", [1, 3])
@pytest.mark.parametrize("by", ["option", "ruleset"])
def test_through_a_chain(ruled, sluice, proxies, by):
    """The last proxy listens; where it says that it does is what the client is told."""
    far = [sluice(ON, *(["--udp-advertise", "127.0.0.3"] if i == proxies - 1 else [])) for i in range(proxies)]
    chain = [f"socks5://{one.url}" for one in far]
    if by == "option":
        proxy, host = sluice(ON, "-x", ",".join(chain)), "127.0.0.8"
    else:
        (proxy, _), host = ruled(RULES % '", "'.join(reversed(chain)), ON), "chain.example"
    client, bound = ask(proxy, host, 9)
    assert bound[0] == "127.0.0.3"  # its own words, see --udp-advertise
    assert is_reset(("127.0.0.1", bound[1]))
    peer = wire.Client(("127.0.0.1", bound[1]), source=("127.0.0.8", 0))
    assert wire.read_socks5_reply(client) == (0, *peer.socket.getsockname()[:2])
    assert_tunnel(client, peer)
    client, bound = ask(proxy, host, 9)  # a client that leaves takes all of it along
    client.close()
    for one in [proxy, *far]:
        assert one.flat()


@pytest.mark.parametrize("answers, code", [
    ([b"\5\7\0\1" + bytes(6)], 7), ([b"\5\2\0\1" + bytes(6)], 2), ([b"\5\0\0\1\0\0\0\0\x12\x34", b"\5\6\0\1" + bytes(6)], 6)])
def test_proxy_that_refuses(sluice, origin, answers, code):
    """What the last proxy says is what the client hears; an address that it leaves open is its own."""
    from test_chains import scripted
    far = origin(scripted((3, b"\5\0"), (10, b"".join(answers))))
    proxy = sluice(ON, "-x", f"socks5://127.0.0.1:{far.port}")
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5("127.0.0.8", 21, 2))
        if len(answers) == 2:
            assert wire.read_socks5_reply(client) == (0, "127.0.0.1", 0x1234)
        assert wire.read_socks5_reply(client)[0] == code
        assert client.ends_with() == "end"
    assert far.result() == b"\5\1\0" + wire.socks5("127.0.0.8", 21, 2)


@pytest.mark.parametrize("options, listener, expected", [
    (["--udp-advertise", "192.0.2.5,2001:db8::5"], "", "192.0.2.5"), (["--udp-advertise", "2001:db8::5"], "", "127.0.0.1"),
    (["--udp-advertise", "192.0.2.5"], ",udp-advertise=192.0.2.6", "192.0.2.6")])
def test_advertised_address(sluice, options, listener, expected):
    """Behind NAT peers connect to another address than this machine has; the port is its own, and the last reply says it again."""
    port = process.free_port()
    proxy = sluice(ON, "-t", "5", *options, "-l", f"127.0.0.1:{port}{listener}")
    proxy.address = ("127.0.0.1", port)
    client, bound = ask(proxy, "127.0.0.9")
    assert bound[0] == expected
    peer = wire.Client(("127.0.0.1", bound[1]), source=("127.0.0.9", 0))
    assert wire.read_socks5_reply(client)[:2] == (0, "127.0.0.9")
    assert_tunnel(client, peer)
    client, bound = ask(proxy, "127.0.0.9")
    assert wire.read_socks5_reply(client) == (6, *bound)


SOCKSIFIED = """
import ctypes, os, socket
listener = socket.socket()
listener.bind(("0.0.0.0", 0))
listener.listen(1)
print("%s %d" % listener.getsockname(), flush=True)
peer, size = ctypes.create_string_buffer(128), ctypes.c_uint(128)
connection = ctypes.CDLL(None).accept(listener.fileno(), peer, ctypes.byref(size))  # Python's own accept4 is not caught
os.write(connection, b"to %d" % int.from_bytes(peer[2:4], "big"))
while data := os.read(connection, 4096):
    os.write(connection, data)
"""


def test_socksify_listens(sluice, tmp_path):
    from test_clients import CLEAN, socksify_conf
    socksify = require("socksify", "dante-client")
    proxy = sluice(ON)
    env = socksify_conf(tmp_path, proxy, "tcp", "connect bind bindreply")
    child = subprocess.Popen([socksify, sys.executable, "-c", SOCKSIFIED], env={**CLEAN, **env},
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = child.stdout.readline()
        assert line, child.stderr.read()
        host, port = line.split()
        assert process.wait_until(lambda: proxy.sockets() > proxy.sockets_at_start)
        peer = wire.Client((host, int(port)))
        expected = b"to %d" % peer.socket.getsockname()[1]
        assert peer.read(len(expected)) == expected
        peer.send(b"hello")
        assert peer.read(5) == b"hello"
        peer.close()
        assert child.wait(20 * process.SLOW) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()
