"""Sessions that live: readers that pause, peers that are gone, ends that only one side has announced.

What takes the kernel minutes is made short on the proxy's own sockets, of which the test gets duplicates."""
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

import namespaces
import origins
import process
import wire

SYS_PIDFD_GETFD = 438
TCP_FIN_WAIT2, TCP_CLOSE_WAIT = 5, 8
KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
_libc = ctypes.CDLL(None, use_errno=True)


def duplicate(proxy, pidfd, name):
    """None: it is no socket, or has been closed meanwhile."""
    try:
        if not os.readlink(f"/proc/{proxy.pid}/fd/{name}").startswith("socket:"):
            return None
    except FileNotFoundError:
        return None
    taken = _libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
    if taken < 0 and ctypes.get_errno() == errno.EBADF:
        return None
    if taken < 0:
        pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    try:
        return socket.socket(fileno=taken)
    except OSError:  # another file has the number by now
        os.close(taken)
        return None


def is_connected(one):
    if one.family != socket.AF_INET or one.type != socket.SOCK_STREAM:
        return False
    try:
        one.getpeername()
    except OSError:
        return False
    return True


def tcp_sockets(proxy):
    """Duplicates of its connections."""
    pidfd = os.pidfd_open(proxy.pid)
    try:
        for name in os.listdir(f"/proc/{proxy.pid}/fd"):
            one = duplicate(proxy, pidfd, name)
            if one and is_connected(one):
                yield one
            if one:
                one.close()
    finally:
        os.close(pidfd)


def hurry(proxy):
    """Every time that the proxy has set on its connections is divided by 60. How many it found."""
    count = 0
    for one in tcp_sockets(proxy):
        count += 1
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT):
            value = one.getsockopt(socket.IPPROTO_TCP, option)
            if value:
                one.setsockopt(socket.IPPROTO_TCP, option, max(1, value // 60))
    return count


def settled(proxy):
    """Both ends of a session have what the proxy sets after a few seconds."""
    return process.wait_until(lambda: all(
        one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for one in tcp_sockets(proxy)), 10, 0.2)


# --- readers that pause ---

CONTENT = os.urandom(1 << 20) * 24


def serve_content(_origin, connection):
    connection.sendall(CONTENT)


def serve_page(_origin, connection):
    origins.read_http_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT)


def ask(way, proxy, port):
    if way != "plain":
        return wire.through_socks5(proxy.address, "127.0.0.1", port, timeout=30)
    client = wire.Client(proxy.address, timeout=30)
    client.send(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n" % port)
    assert b"200 OK" in client.read_head()
    return client


@pytest.mark.parametrize("way", ["copy", "splice", "plain"])
def test_reader_that_pauses(sluice, origin, way):
    """For longer than the time in which a peer that is gone is noticed: it gets every octet."""
    proxy = sluice("--relay", way if way != "plain" else "auto")
    client = ask(way, proxy, origin(serve_page if way == "plain" else serve_content).port)
    first = client.read(100000)
    assert hurry(proxy) == 2
    time.sleep(4.5)
    assert first + client.read(len(CONTENT) - len(first)) == CONTENT
    assert client.ends_with() == "end"
    client.close()


@pytest.mark.parametrize("way", ["copy", "splice"])
def test_upstream_that_pauses(sluice, origin, way):
    """The same in the other direction."""
    proxy, target = sluice("--relay", way), origin(origins.hold)
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port, timeout=30)
    sender = threading.Thread(target=lambda: client.send(CONTENT).shut())
    sender.start()
    connection = target.connection()
    assert settled(proxy)
    hurry(proxy)
    time.sleep(4.5)
    received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    sender.join()
    assert received == CONTENT
    client.close()


# --- peers that are gone ---

@pytest.fixture
def cable(namespace):
    """Two namespaces, the proxy's and the other's, and how to cut them apart."""
    near, far = namespace("n"), namespace("f")
    tag = str(os.getpid() % 100000)
    namespaces.connect(near, f"n{tag}", far, f"f{tag}")
    near.ip("addr", "add", "10.92.1.1/24", "dev", f"n{tag}")
    far.ip("addr", "add", "10.92.1.2/24", "dev", f"f{tag}")
    return near, far, lambda: far.ip("link", "set", f"f{tag}", "down")


@pytest.mark.parametrize("gone", ["client", "upstream"])
def test_peer_that_is_gone_without_a_word(sluice, cable, gone):
    """Keepalive finds it, also where no idle timeout would ever end the session: in relays, and in plain HTTP."""
    near, far, cut = cable
    door = ("10.92.1.1" if gone == "client" else "127.0.0.1", 1080)  # in a namespace of its own every port is free
    proxy = sluice("-l", "%s:%d" % door, "--idle-timeout", "0", listen=None, prefix=near.prefix)
    server = (far if gone == "upstream" else near).call(
        origins.Origin, origins.hold, host="10.92.1.2" if gone == "upstream" else "127.0.0.1")
    try:
        connect = (far if gone == "client" else near).call
        relayed = connect(wire.Client, door).send(wire.socks4(server.host, server.port))
        assert relayed.read(8) == wire.SOCKS4_GRANTED
        server.connection()
        plain = connect(wire.Client, door)
        plain.send(b"GET http://%s:%d/ HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n" % (server.host.encode(), server.port))
        connection = server.connection(1)
        origins.read_http_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        plain.read_head()
        assert settled(proxy)
        assert hurry(proxy) == 4
        cut()
        assert proxy.flat(30), proxy.log()
    finally:
        server.close()


# --- ends that one side has announced ---

@pytest.mark.parametrize("first", ["client", "upstream"])
def test_half_close_timeout(sluice, origin, first):
    """Only where one direction has ended, only when nothing moves in the other."""
    proxy, target = sluice("--half-close-timeout", "4", "--idle-timeout", "0"), origin(origins.hold)
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(3)]
    ends = target.wait("connections", 3)
    for i in (1, 2):  # the first stays whole
        (clients[i].socket if first == "client" else ends[i]).shutdown(socket.SHUT_WR)
    start = time.monotonic()
    waiting = clients[1].socket if first == "client" else ends[1]
    while time.monotonic() - start < 9 or not select.select([waiting], [], [], 0)[0]:  # the last one moves
        ends[2].sendall(b"x") if first == "client" else clients[2].send(b"x")
        assert (clients[2].socket if first == "client" else ends[2]).recv(1) == b"x"
        time.sleep(0.3)
        assert time.monotonic() - start < 60
    with pytest.raises(ConnectionResetError):
        waiting.recv(1)
    ends[0].sendall(b"whole")
    assert clients[0].read(5) == b"whole"
    for client in clients:
        client.close()


# --- closing ---

TAIL = os.urandom(400000)


def send_tail(_origin, connection):
    connection.recv(1 << 16)
    connection.sendall(TAIL)


def send_page(_origin, connection):
    origins.read_http_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(TAIL) + TAIL)


@pytest.mark.parametrize("way", ["relay", "half-closed", "plain"])
def test_a_close_waits_for_what_is_not_acknowledged(sluice, origin, way):
    """A client with a small window that has not read the end yet: were its socket closed now, the kernel would own it
    alone, and might drop it together with the octets."""
    proxy, target = sluice(), origin(send_page if way == "plain" else send_tail)
    client = wire.Client(proxy.address, timeout=20)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    if way == "plain":
        client.send(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n" % target.port)
    else:
        client.send(wire.socks4("127.0.0.1", target.port) + b"go")
    if way == "half-closed":
        client.shut()
    target.result()  # the upstream has sent everything and is gone
    if way == "relay":
        client.shut()
    time.sleep(3.5)
    process.becomes(proxy.sockets, proxy.sockets_at_start + 1)  # its socket is still ours
    if way == "plain":
        client.read_head()
    else:
        assert client.read(8) == wire.SOCKS4_GRANTED
    assert client.read_all() == TAIL
    client.close()
    assert proxy.flat()


def test_a_parting_client_does_not_hold_a_stop(sluice, origin):
    proxy, target = sluice(), origin(send_tail)
    client = wire.Client(proxy.address, timeout=20)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(wire.socks4("127.0.0.1", target.port) + b"go").shut()
    target.result()
    process.becomes(proxy.sockets, proxy.sockets_at_start + 1)  # all of it is with the kernel, and the upstream's side is closed
    proxy.process.terminate()
    assert proxy.wait() == 0
    assert client.read(8) == wire.SOCKS4_GRANTED
    assert client.read_all() == TAIL  # the kernel goes on with it
    client.close()


# --- resets behind an orderly end ---

def tcp_state(one):
    return one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def stays(condition):
    """Whether it holds, and still does a moment later: nobody is at work on it."""
    return condition() and not process.wait_until(lambda: not condition(), 1.2 / process.SLOW, 0.02)


def unread_by(proxy, port, state=None):
    """Octets that the proxy has not read yet of what its upstream at this port has sent. -1: it is in another state."""
    for one in tcp_sockets(proxy):
        with one:
            if one.getpeername()[1] == port:
                unread = struct.unpack("i", fcntl.ioctl(one, termios.FIONREAD, b"0000"))[0]
                return unread if state in (None, tcp_state(one)) else -1
    return -1


def paused_client_of_an_ended_upstream(sluice, origin, way, taken=True):
    """(proxy, client, the upstream's socket, what it has sent with its end behind it): the client reads nothing. `taken`:
    the proxy has read all of it, the end too. Otherwise the end waits in its kernel behind octets that it has no room for."""
    proxy, target = sluice("--relay", way, *([] if taken else ["--socket-buffer", "32K"])), origin(origins.hold)
    client = wire.Client(proxy.address, timeout=20)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    client.send(wire.socks4("127.0.0.1", target.port))
    assert client.read(8) == wire.SOCKS4_GRANTED
    upstream = target.connection()
    content = TAIL if taken else TAIL[:0]
    upstream.sendall(content)
    while not taken and not stays(lambda: unread_by(proxy, target.port) > 0):
        upstream.sendall(TAIL[len(content):len(content) + 4096])
        content = TAIL[:len(content) + 4096]
        assert len(content) < len(TAIL)
    upstream.shutdown(socket.SHUT_WR)
    assert process.wait_until(lambda: tcp_state(upstream) == TCP_FIN_WAIT2, 10, 0.05)
    if taken:
        assert process.wait_until(lambda: unread_by(proxy, target.port, TCP_CLOSE_WAIT) == 0, 10, 0.05)
    else:
        assert unread_by(proxy, target.port, TCP_CLOSE_WAIT) > 0
    return proxy, client, upstream, content


@pytest.mark.parametrize("way", ["copy", "splice"])
@pytest.mark.parametrize("taken", [True, False])
def test_upstream_that_is_gone_after_its_end(sluice, origin, way, taken):
    """An upstream closes, and a minute later its system answers our keepalive with a reset: what a reader that pauses
    has not read yet is still its own."""
    proxy, client, upstream, content = paused_client_of_an_ended_upstream(sluice, origin, way, taken)
    time.sleep(1.5)  # the proxy looks after such a side each second
    origins.reset(upstream)
    if taken:
        assert process.wait_until(lambda: proxy.sockets() == proxy.sockets_at_start + 1, 10, 0.1), "it has not been seen"
    received = b""
    while len(received) < len(content):
        time.sleep(1.3)
        part = client.read(min(len(content) // 6, len(content) - len(received)))
        assert part
        received += part
    assert received == content and client.ends_with() == "end"
    client.close()
    assert proxy.flat()


@pytest.mark.parametrize("way", ["copy", "splice"])
@pytest.mark.parametrize("taken", [True, False])
def test_upload_to_an_upstream_that_is_gone_after_its_end(sluice, origin, way, taken):
    """What the client sends after the reset meets an error, and that error says nothing about what the upstream had sent
    before its end."""
    proxy, client, upstream, content = paused_client_of_an_ended_upstream(sluice, origin, way, taken)
    origins.reset(upstream)
    assert process.wait_until(lambda: len(list(tcp_sockets(proxy))) == 1, 10, 0.05), "it is not connected any more"
    client.send(b"x" * 50000)
    time.sleep(1.5)
    assert client.read_all() == content
    with pytest.raises(OSError):
        process.wait_until(lambda: client.send(b"y") is None, 10, 0.1)
    client.close()
    assert proxy.flat()


@pytest.mark.parametrize("way", ["copy", "splice"])
def test_answer_of_an_upstream_that_refuses_the_rest(sluice, origin, way):
    """A server answers before it has read the whole request, and closes: the client gets the answer, and then learns
    that what it goes on to send arrives nowhere."""
    proxy, client, upstream, content = paused_client_of_an_ended_upstream(sluice, origin, way)
    upstream.close()
    client.send(b"x" * 1000)  # its system answers with a reset
    time.sleep(2.5)
    assert client.read_all() == content
    with pytest.raises(OSError):
        process.wait_until(lambda: client.send(b"y") is None, 10, 0.1)
    client.close()
    assert proxy.flat()


# --- many that pause ---

def test_paused_readers_cost_a_buffer_each_at_most(sluice, origin, load, load_origin):
    """What they do not take waits in the kernel; and none is reset, whatever the others do."""
    proxy = sluice("--workers", "1", "--relay", "copy", "--socket-buffer", "64K")
    target = origin(origins.flood)
    before = proxy.rss()
    crowd = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(process.stuck_streams(150, 7))]
    sent = -1
    while sent != target.sent:  # until nothing moves any more
        sent = target.sent
        time.sleep(0.5)
    if not process.SANITIZED and KERNEL >= (6, 17):  # older ones take all that there is when the first octets come
        assert proxy.rss() - before < (20 << 20) + len(crowd) * 16384, f"{(proxy.rss() - before) / len(crowd):.0f} octets each"
    verify = [load, "verify", "--via", "socks5", "--proxy", proxy.url, "--target", f"127.0.0.1:{load_origin + 5}", "--flows",
              "4", "--bytes", str(8 << 20)]
    assert subprocess.run(verify, stdout=subprocess.DEVNULL, timeout=100).returncode == 0
    for client in crowd:
        assert client.read(200000) == b"f" * 200000
        client.close()
