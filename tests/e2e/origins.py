"""Servers that the proxy connects to: one thread per connection, all of them ended with the test."""
import hashlib
import socket
import struct
import threading
import time


class Origin:
    """Listens on a free port (or path) and runs handler(origin, socket) for each connection."""

    def __init__(self, handler, host="127.0.0.1", port=0, path=None, backlog=1024):
        family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in host else socket.AF_INET
        self.handler = handler
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        if not path:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(path if path else (host, port))
        self.listener.listen(backlog)
        self.host = host
        self.path = path
        self.port = None if path else self.listener.getsockname()[1]
        self.address = path if path else (host, self.port)
        self.changed = threading.Condition()
        self.connections = []  # sockets, in the order of their arrival
        self.peers = []  # addresses of their other ends
        self.results = []  # what handlers have returned
        self.sent = 0  # by flood, on all connections
        self.closing = False
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            if self.listener.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(60)
            with self.changed:
                self.connections.append(connection)
                self.peers.append(peer)
                self.changed.notify_all()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            result = self.handler(self, connection)
        except OSError as error:
            result = error
        with self.changed:
            self.results.append(result)
            self.changed.notify_all()
        if result is not KEEP:
            connection.close()

    def wait(self, what, count=1, timeout=60):
        """The first `count` entries of 'connections' or 'results'."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(getattr(self, what)) >= count, timeout), (
                f"{len(getattr(self, what))} of {count} {what}")
            return list(getattr(self, what))

    def connection(self, index=0):
        return self.wait("connections", index + 1)[index]

    def result(self, index=0):
        return self.wait("results", index + 1)[index]

    def close(self):
        self.closing = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            pass
        self.listener.close()
        self.thread.join(5)
        with self.changed:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                if connection.fileno() >= 0:
                    connection.close()


KEEP = object()  # a handler's result: the test itself goes on with the connection


def hold(_origin, _connection):
    return KEEP


def echo(_origin, connection):
    total = 0
    while True:
        data = connection.recv(1 << 16)
        if not data:
            connection.shutdown(socket.SHUT_WR)
            return total
        connection.sendall(data)
        total += len(data)


def digest(_origin, connection):
    """Reads to the end, then answers with the hex SHA-256 of what came."""
    seen = hashlib.sha256()
    while True:
        data = connection.recv(1 << 20)
        if not data:
            break
        seen.update(data)
    connection.sendall(seen.hexdigest().encode())
    return seen.hexdigest()


def collect(_origin, connection):
    """Reads to the end and keeps it; answers nothing."""
    parts = []
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return b"".join(parts)
        parts.append(data)


def flood(origin, connection):
    """Sends for ever; the result is the number of octets that were taken."""
    sent = 0
    block = b"f" * 65536
    connection.settimeout(0.2)
    while not origin.closing:
        try:
            taken = connection.send(block)
            sent += taken
            with origin.changed:
                origin.sent += taken
        except socket.timeout:
            continue
        except OSError:
            break
    return sent


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_http_head(connection):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        octet = connection.recv(1)
        if not octet:
            return head
        head += octet
    return head


def pages(origin, connection):
    """The simplest web server: any GET is answered with a body that names the path; one request per connection."""
    head = read_http_head(connection)
    with origin.changed:
        origin.heads = getattr(origin, "heads", []) + [head]
    if not head:
        return None
    path = head.split(b" ")[1]
    body = b"page " + path
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                       % len(body) + body)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass
    return head


class Blackhole:
    """An address where connecting hangs: the listener's queue is full, so that the kernel drops every further SYN."""

    def __init__(self, host="127.0.0.2", port=0):
        self.host = host
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(0)
        self.port = self.listener.getsockname()[1]
        self.fillers = [self._fill() for _ in range(4)]
        time.sleep(0.05)
        self._assert_hangs()

    def _fill(self):
        filler = socket.socket(self.listener.family, socket.SOCK_STREAM)
        filler.setblocking(False)
        filler.connect_ex((self.host, self.port))
        return filler

    def _assert_hangs(self):
        probe = socket.socket(self.listener.family, socket.SOCK_STREAM)
        probe.settimeout(0.15)
        try:
            probe.connect((self.host, self.port))
        except socket.timeout:
            return
        finally:
            probe.close()
        raise AssertionError("connecting to a full listener did not hang")

    def close(self):
        for filler in self.fillers:
            filler.close()
        self.listener.close()
