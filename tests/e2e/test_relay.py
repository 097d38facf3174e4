"""Once the way is open: octets in both directions, ends, resets, back-pressure, idleness; in each mode of the relay."""
import errno
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

import origins
import process
import wire

MODES = ["auto", "splice", "copy"]


@pytest.fixture(params=MODES)
def relay(request, shared):
    return shared("--relay", request.param)


def verify(load, proxy, target, way, size, flows):
    words = [load, "verify", "--via", way, "--target", f"127.0.0.1:{target}", "--bytes", size, "--flows", flows,
             "--seconds", 100 * process.SLOW]
    if way != "none":
        words += ["--proxy", proxy.url]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120 * process.SLOW)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["verified"] == flows and result["mismatches"] == result["errors"] == 0, result
    return result


GIB = (1 << 30) // (8 if process.SANITIZED else 1)


def test_gibibyte_both_ways_at_once(relay, load, load_origin):
    """Every octet is compared with what it must be, at both ends: stronger than a digest."""
    result = verify(load, relay, load_origin + 5, "socks5", GIB, 1)
    assert result["bytes"] == 2 * GIB
    assert relay.flat()


@pytest.mark.parametrize("way", ["socks4", "socks4a", "socks5-auth", "http"])
def test_many_flows_both_ways_at_once(relay, load, load_origin, way):
    verify(load, relay, load_origin + 5, way, 1 << 20, 64)


def test_gibibyte_through_forward_and_chain(sluice, load, load_origin):
    second = sluice()
    first = sluice("-x", f"http://{second.url}", "-f", f"127.0.0.1:{load_origin + 5}")
    words = [load, "verify", "--via", "forward", "--proxy", first.url, "--bytes", str(GIB // 4), "--flows", "2",
             "--seconds", str(100 * process.SLOW)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120 * process.SLOW)
    assert done.returncode == 0 and json.loads(done.stdout)["verified"] == 2, done.stdout + done.stderr


def test_digest_in_both_directions(relay, origin):
    """The same by SHA-256, with writes of uneven sizes and pauses that let a flow fall dry."""
    up, down = os.urandom(30_000_001), os.urandom(20_000_003)

    def exchange(_origin, connection):
        sender = threading.Thread(target=uneven, args=(connection, down))
        sender.start()
        seen = hashlib.sha256()
        while part := connection.recv(77777):
            seen.update(part)
        sender.join()
        connection.shutdown(socket.SHUT_WR)
        return seen.digest()

    target = origin(exchange)
    with wire.through_socks5(relay.address, "127.0.0.1", target.port) as client:
        sender = threading.Thread(target=lambda: (uneven(client.socket, up), client.shut()))
        sender.start()
        assert hashlib.sha256(client.read_all()).digest() == hashlib.sha256(down).digest()
        sender.join()
    assert target.result() == hashlib.sha256(up).digest()


def uneven(connection, data):
    at, turn = 0, 0
    while at < len(data):
        size = [1, 100, 16384, 16385, 65536, 1_000_000, 3][turn % 7]
        connection.sendall(data[at:at + size])
        at += size
        turn += 1
        if turn % 40 == 0:
            time.sleep(0.02)


def test_small_messages_after_bulk(relay, origin):
    """A flow turns to bulk and back: neither may keep an octet."""
    target = origin()
    with wire.through_socks5(relay.address, "127.0.0.1", target.port) as client:
        for turn in range(4):
            block = os.urandom(4 << 20)
            sender = threading.Thread(target=client.send, args=(block,))
            sender.start()
            assert client.read(len(block)) == block
            sender.join()
            for i in range(100):
                message = b"%d.%d" % (turn, i)
                client.send(message)
                assert client.read(len(message)) == message


@pytest.mark.parametrize("ends", [False, True])
def test_octets_behind_urgent_data(relay, origin, ends):
    """splice() stops at urgent data and takes what stands behind it for nothing, or, if the sender has ended, for the
    end. The urgent octet itself has no place in the stream and is not passed on."""
    block, tail = os.urandom(8 << 20), os.urandom(10_000)
    urgent = threading.Event()

    def serve(one, connection):
        connection.sendall(block)
        urgent.wait(60)  # the client has all of the block: the flow is bulk, and dry
        relay.stop()  # it meets all of what follows at once
        connection.send(b"!", socket.MSG_OOB)
        connection.sendall(tail)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        relay.signal(signal.SIGCONT)
        return origins.collect(one, connection)

    target = origin(serve)
    with wire.through_socks5(relay.address, "127.0.0.1", target.port) as client:
        assert client.read(len(block)) == block
        urgent.set()
        assert client.read(len(tail)) == tail
        client.send(b"still here").shut()
        assert client.read_all() == b""
    assert target.result() == b"still here"


# --- ends ---

@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_client_ends_first(relay, origin, size):
    """Half-close: what the client sends arrives, then its end; the answer comes only after that."""
    content = os.urandom(size)
    target = origin(origins.digest)
    with wire.through_socks5(relay.address, "127.0.0.1", target.port) as client:
        client.send(content).shut()
        assert client.read_all().decode() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_upstream_ends_first(relay, origin, size):
    content = os.urandom(size)

    def serve(one, connection):
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return origins.collect(one, connection)

    target = origin(serve)
    with wire.through_socks5(relay.address, "127.0.0.1", target.port) as client:
        assert client.read_all() == content
        time.sleep(0.05)
        client.send(b"still here").shut()
    assert target.result() == b"still here"


def test_half_closed_connection_lives_on(relay, origin):
    """Minutes are not needed to see it: two seconds are beyond every timer of the relay's end."""
    target = origin(origins.hold)
    with wire.through_socks5(relay.address, "127.0.0.1", target.port) as client:
        client.shut()
        connection = target.connection()
        assert connection.recv(1) == b""
        for i in range(5):
            time.sleep(0.5)
            connection.sendall(b"%d" % i)
            assert client.read(1) == b"%d" % i
        connection.close()
        assert client.ends_with() == "end"


# --- resets ---

def open_pair(relay, origin):
    target = origin(origins.hold)
    client = wire.through_socks5(relay.address, "127.0.0.1", target.port)
    return client, target.connection()


def assert_reset_after_end(connection, timeout=20):
    """On a connection whose end was read before, the kernel has no other way to tell than these events."""
    poll = select.poll()
    poll.register(connection, 0)
    assert poll.poll(timeout * 1000 * process.SLOW), "no reset"
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.EPIPE, errno.ECONNRESET)


def assert_reset(connection):
    with pytest.raises(ConnectionResetError):
        while connection.recv(1 << 20):
            pass


def test_client_resets(relay, origin):
    client, connection = open_pair(relay, origin)
    client.reset()
    assert_reset(connection)
    assert relay.flat()


def test_upstream_resets(relay, origin):
    client, connection = open_pair(relay, origin)
    origins.reset(connection)
    assert client.ends_with() == "reset"
    assert relay.flat()


def warm(client, connection, size=8 << 20):
    """Enough to have made the flow bulk."""
    sender = threading.Thread(target=client.send, args=(bytes(size),))
    sender.start()
    while size > 0:
        size -= len(connection.recv(min(size, 1 << 20)))
    sender.join()


def test_client_resets_after_bulk(relay, origin):
    client, connection = open_pair(relay, origin)
    warm(client, connection)
    client.reset()
    assert_reset(connection)
    assert relay.flat()


def test_upstream_resets_after_bulk(relay, origin):
    client, connection = open_pair(relay, origin)
    warm(client, connection)
    origins.reset(connection)
    assert client.ends_with() == "reset"


def fill(connection):
    """Sends until nothing is taken any more."""
    connection.settimeout(0.3)
    total = 0
    try:
        while True:
            total += connection.send(bytes(1 << 20))
    except TimeoutError:
        connection.settimeout(15)
        return total


def test_client_resets_while_much_is_held(relay, origin):
    client, connection = open_pair(relay, origin)
    fill(client.socket)
    client.reset()
    assert_reset(connection)
    assert relay.flat()


def test_reader_resets_while_much_is_held(relay, origin):
    client, connection = open_pair(relay, origin)
    fill(client.socket)
    origins.reset(connection)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for _ in range(200):
            client.send(bytes(1 << 16))
            time.sleep(0.01)
    assert relay.flat()


def test_upstream_resets_after_the_clients_end(relay, origin):
    client, connection = open_pair(relay, origin)
    client.shut()
    assert connection.recv(1) == b""
    origins.reset(connection)
    assert client.ends_with() == "reset"


def test_client_resets_after_its_end(relay, origin):
    """Nothing is read from it any more; the relay notices all the same, within a second or two."""
    client, connection = open_pair(relay, origin)
    client.shut()
    assert connection.recv(1) == b""
    client.reset()
    assert_reset_after_end(connection)
    assert relay.flat()


# --- back-pressure ---

def rests(value, seconds=0.4):
    """Whether a number stays what it is."""
    before = value()
    time.sleep(seconds)
    return value() == before


def test_slow_readers_do_not_cost_memory(relay, origin):
    target = origin(origins.flood)
    clients = [wire.through_socks5(relay.address, "127.0.0.1", target.port) for _ in range(process.stuck_streams(40, 25))]
    before = relay.rss()
    assert process.wait_until(lambda: rests(lambda: target.sent), 20), "nobody reads, and still it flows"
    for client in clients:  # a little of each: the others stay full
        assert len(client.read(100000)) == 100000
    time.sleep(0.3)
    if not process.SANITIZED:
        assert relay.rss() < before + (24 << 20)
    with wire.through_socks5(relay.address, "127.0.0.1", origin().port) as other:  # and others are served
        other.send(b"x" * 50000)
        assert other.read(50000) == b"x" * 50000
    for client in clients:
        client.close()


def test_reader_that_starts_late_gets_everything(relay, origin):
    content = os.urandom(40 << 20)

    def serve(_origin, connection):
        connection.sendall(content)

    target = origin(serve)
    with wire.through_socks5(relay.address, "127.0.0.1", target.port) as client:
        time.sleep(0.5)
        assert hashlib.sha256(client.read_all()).digest() == hashlib.sha256(content).digest()


# --- idleness ---

def test_idle_timeout(sluice, origin):
    proxy, target = sluice("--idle-timeout", "4"), origin()
    start = time.monotonic()
    idle = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    busy = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    one_way = wire.through_socks5(proxy.address, "127.0.0.1", origin(origins.collect).port)
    while time.monotonic() - start < 10 or not select.select([idle.socket], [], [], 0)[0]:
        busy.send(b"x")
        assert busy.read(1) == b"x"
        one_way.send(b"y")
        time.sleep(0.25)
        assert time.monotonic() - start < 60
    assert idle.ends_with() in ("end", "reset")
    one_way.send(b"y")
    for client in (idle, busy, one_way):
        client.close()


def test_idle_session_uses_no_cpu(relay, origin):
    target = origin()
    clients = [wire.through_socks5(relay.address, "127.0.0.1", target.port) for _ in range(50)]

    def used():
        before = relay.cpu()
        time.sleep(1)
        return relay.cpu() - before

    assert any(used() < 0.1 * process.SLOW for _ in range(3))  # what they began with is over in the end
    for client in clients:
        client.close()


def test_sockets_have_the_congestion_control_of_the_system(sluice, origin):
    """Both legs are on loopback, as a listener for TPROXY is, whose clients are far away all the same."""
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as setting:
        wanted = setting.read().strip()
    proxy, target = sluice(), origin()
    with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
        client.send(b"x")
        assert client.read(1) == b"x"
        listed = subprocess.run(["ss", "-tinpH"], capture_output=True, text=True, check=True).stdout
        legs = [detail for owner, detail in zip(listed.splitlines()[::2], listed.splitlines()[1::2]) if f"pid={proxy.pid}," in owner]
        assert len(legs) == 2 and all(wanted in detail.split() for detail in legs), listed
