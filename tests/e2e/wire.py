"""The client side, octet by octet: what the contract says about the wire is asserted on sockets that nobody helps."""
import base64
import ipaddress
import os
import socket
import struct
import time
import weakref

# How many times longer than usual everything takes here: machines that are emulated.
PATIENCE = int(os.environ.get("SLUICE_TEST_SLOW", "1"))
OPEN = weakref.WeakSet()  # every client socket of the running test, closed before descriptors are counted

SOCKS4_GRANTED = bytes([0, 0x5A, 0, 0, 0, 0, 0, 0])
SOCKS4_REJECTED = bytes([0, 0x5B, 0, 0, 0, 0, 0, 0])
HTTP_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def socks5_failure(code):
    return bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0])


class Client:
    """A socket that reads exactly, and tells an orderly end from a reset. `timeout`: seconds after which nothing comes any more
    on the busiest of machines."""

    def __init__(self, address, timeout=60.0, family=None, source=None):
        if family is None:
            family = socket.AF_UNIX if isinstance(address, str) else (
                socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        OPEN.add(self)
        self.socket.settimeout(timeout * PATIENCE)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            self.socket.bind(source)
        self.socket.connect(address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def send_slowly(self, data, pause=0.002):
        """One octet per segment."""
        for i in range(len(data)):
            self.socket.sendall(data[i:i + 1])
            time.sleep(pause)
        return self

    def read(self, size):
        """Exactly so many octets, fewer only if the end comes before."""
        parts = []
        while size > 0:
            part = self.socket.recv(min(size, 1 << 20))
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read_all(self):
        """Everything until the orderly end; a reset raises ConnectionResetError."""
        parts = []
        while True:
            part = self.socket.recv(1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)

    def read_head(self):
        """An HTTP head, octet by octet, so that nothing behind it is taken."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            octet = self.socket.recv(1)
            if not octet:
                raise EOFError(head)
            head += octet
        return head

    def shut(self):
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def close(self):
        OPEN.discard(self)
        self.socket.close()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def ends_with(self):
        """'end' or 'reset', whichever comes; octets before it are an error."""
        try:
            data = self.socket.recv(1 << 16)
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
        assert data == b"", data
        return "end"


def text(host):
    return host.encode() if isinstance(host, str) else host


def socks4(host, port, user=b"", command=1):
    return struct.pack("!BBH", 4, command, port) + socket.inet_aton(host) + user + b"\0"


def socks4a(host, port, user=b"", command=1):
    return struct.pack("!BBH", 4, command, port) + b"\0\0\0\1" + user + b"\0" + text(host) + b"\0"


def socks5_address(host, port):
    """A text that is an address goes as one; octets go as a name, whatever they look like."""
    try:
        address = ipaddress.ip_address(host if isinstance(host, str) else "")
        packed = bytes([1 if address.version == 4 else 4]) + address.packed
    except ValueError:
        packed = bytes([3, len(text(host))]) + text(host)
    return packed + struct.pack("!H", port)


def socks5(host, port, command=1):
    return bytes([5, command, 0]) + socks5_address(host, port)


def socks5_auth(user, password):
    return bytes([1, len(user)]) + user + bytes([len(password)]) + password


def authority(host, port):
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


def basic(user, password):
    return b"Proxy-Authorization: Basic " + base64.b64encode(user + b":" + password) + b"\r\n"


def http_connect(host, port, fields=b""):
    return b"CONNECT " + authority(host, port) + b" HTTP/1.1\r\n" + fields + b"\r\n"


def read_socks5_reply(client):
    """(REP, host, port) of a reply, its form asserted."""
    head = client.read(4)
    assert len(head) == 4 and head[0] == 5 and head[2] == 0, head
    size = {1: 4, 4: 16}[head[3]]
    rest = client.read(size + 2)
    assert len(rest) == size + 2
    return head[1], str(ipaddress.ip_address(rest[:size])), struct.unpack("!H", rest[size:])[0]


def greet(client, user=None, password=None):
    """SOCKS5 up to the request, both octets of every answer asserted."""
    if user is None:
        client.send(b"\5\1\0")
        assert client.read(2) == b"\5\0"
        return client
    client.send(b"\5\1\2")
    assert client.read(2) == b"\5\2"
    client.send(socks5_auth(user, password))
    assert client.read(2) == b"\1\0"
    return client


def through_socks4(proxy, host, port, **options):
    client = Client(proxy, **options).send(socks4(host, port))
    assert client.read(8) == SOCKS4_GRANTED
    return client


def through_socks4a(proxy, host, port, **options):
    client = Client(proxy, **options).send(socks4a(host, port, b"someone"))
    assert client.read(8) == SOCKS4_GRANTED
    return client


def through_socks5(proxy, host, port, **options):
    client = greet(Client(proxy, **options)).send(socks5(host, port))
    assert read_socks5_reply(client)[0] == 0
    return client


def through_socks5_auth(proxy, host, port, **options):
    client = greet(Client(proxy, **options), b"user", b"secret").send(socks5(host, port))
    assert read_socks5_reply(client)[0] == 0
    return client


def through_http(proxy, host, port, **options):
    client = Client(proxy, **options).send(http_connect(host, port))
    assert client.read(len(HTTP_ESTABLISHED)) == HTTP_ESTABLISHED
    return client


WAYS = {
    "socks4": through_socks4,
    "socks4a": through_socks4a,
    "socks5": through_socks5,
    "socks5-auth": through_socks5_auth,
    "http": through_http,
}


def status_of(reply):
    """The status of a complete refusal of the proxy's own, its form asserted."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    version, code, reason = lines[0].split(" ", 2)
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    assert fields["proxy-status"].startswith("sluice; error=")
    assert version == "HTTP/1.1" and fields["connection"] == "close" and fields["content-type"] == "text/html"
    assert int(fields["content-length"]) == len(body) > 0
    assert f"{code} {reason}".encode() in body
    time.strptime(fields["date"], "%a, %d %b %Y %H:%M:%S GMT")
    return int(code), reason
