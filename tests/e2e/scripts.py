"""Rulesets and the API, as tests use them: scripts in files, a small HTTP client, calls of peers."""
import http.client
import json
import socket
import zlib

import process

RPC_TYPE = "application/x-neosocksd-rpc; version=1"


def bomb(mebibytes):
    """So many of zeros, deflated: one of them, again and again, since to deflate them all takes half a second."""
    writer, one = zlib.compressobj(9, wbits=-15), bytes(1 << 20)
    block = writer.compress(one) + writer.flush(zlib.Z_FULL_FLUSH)
    check = 1
    for _ in range(mebibytes):
        check = zlib.adler32(one, check)
    return b"\x78\xda" + block * mebibytes + writer.flush() + check.to_bytes(4, "big")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.raw = response.read()
        coding = self.headers.get("content-encoding")
        self.body = zlib.decompress(self.raw, 47) if coding else self.raw  # 47: zlib or gzip, by its header

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)


class Api:
    """One request per connection; `address` is (host, port) or the path of a Unix socket."""

    def __init__(self, address, timeout=20):
        self.address, self.timeout = address, timeout * process.SLOW

    def connect(self):
        if isinstance(self.address, str):
            return UnixConnection(self.address, self.timeout)
        return http.client.HTTPConnection(*self.address, timeout=self.timeout)

    def ask(self, method, path, body=None, headers=None):
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path, body="", headers=None):
        return self.ask("POST", path, body.encode() if isinstance(body, str) else body, headers)

    def call(self, code, **headers):
        """The text that a peer would read, of code that runs in a coroutine."""
        answer = self.post("/ruleset/rpcall", code, {"Content-Type": RPC_TYPE, **headers})
        assert answer.status == 200 and answer.headers["content-type"] == RPC_TYPE, (answer.status, answer.body)
        return answer.body.decode("latin-1")

    def update(self, code, query=""):
        answer = self.post("/ruleset/update" + query, code)
        assert answer.status == 200, (answer.status, answer.text)
        return answer
