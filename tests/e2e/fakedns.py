"""A name server for --nameserver: A and AAAA records, NXDOMAIN for what it does not know, silence on demand."""
import ipaddress
import socket
import struct
import threading

A, AAAA = 1, 28
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


def read_name(data, at):
    labels = []
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode("latin-1"))
        at += 1 + data[at]
    return ".".join(labels).lower(), at + 1


class NameServer:
    def __init__(self, host="127.0.0.1", port=0):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.host, self.port = self.socket.getsockname()
        self.text = f"{host}:{self.port}"
        self.records = {}
        self.queries = []  # (name, type)
        self.silent = set()  # names, (name, type), or "*"
        self.broken = set()  # names that are answered with SERVFAIL
        self.forged = set()  # names for which an answer to another question comes first
        self.ttl = 60
        self.held = None  # answers that wait for release()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def add(self, name, *addresses):
        self.records[name.lower()] = [ipaddress.ip_address(address) for address in addresses]

    def count(self, name, kind=A):
        return self.queries.count((name.lower(), kind))

    def hold(self):
        """Answers wait from now on, until release()."""
        with self.lock:
            self.held = []

    def release(self):
        """In the order of their questions, and none waits any more."""
        with self.lock:
            for answer, peer in self.held:
                self.socket.sendto(answer, peer)
            self.held = None

    def _serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            if len(query) < 13:  # close() wakes us with a short one
                return
            answer = self._answer(query)
            with self.lock:
                if answer and self.held is not None:
                    self.held.append((answer, peer))
                    answer = None
            if answer and read_name(query, 12)[0] in self.forged:
                self.socket.sendto(answer[:13] + b"!" + answer[14:], peer)
            if answer:
                self.socket.sendto(answer, peer)

    def _answer(self, query):
        name, at = read_name(query, 12)
        kind = struct.unpack("!H", query[at:at + 2])[0]
        self.queries.append((name, kind))
        if name in self.silent or (name, kind) in self.silent or "*" in self.silent:
            return None
        code = SERVFAIL if name in self.broken else NOERROR if name in self.records else NXDOMAIN
        version = {A: 4, AAAA: 6}.get(kind)
        found = [address for address in self.records.get(name, []) if address.version == version]
        question = query[12:at + 4]
        records = b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, self.ttl, len(address.packed)) + address.packed
                           for address in found)
        return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(found), 0, 0) + question + records

    def close(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
            wake.sendto(b"", (self.host, self.port))
        self.thread.join(5)
        self.socket.close()
