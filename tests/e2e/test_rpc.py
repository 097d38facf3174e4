"""The wire format of calls between peers: what each version of neosocksd sends, octet for octet, and what we send."""
import re
import zlib

import pytest

import origins
import process
import wire
from scripts import RPC_TYPE

LIBRARY = """
_G.libruleset = require("libruleset")
function _G.rpc.add(a, b) return a + b, { a, b } end
function _G.msgh.note(x) _G.noted = x end
return libruleset
"""
MIME = f"Content-Type: {RPC_TYPE}\r\n"
# What stands in front of the length, and behind it, in a request of that version.
HEADS = {
    "1.2": ("Accept: application/x-neosocksd-rpc\r\nAccept-Encoding: deflate\r\n", MIME),
    "1.3": ("Accept-Encoding: deflate\r\n", MIME),
    "1.4.2": ("Accept-Encoding: deflate\r\n", MIME),
    "1.4.3": ("Accept-Encoding: deflate\r\n", MIME),
    "1.5": ("Accept-Encoding: deflate\r\nConnection: keep-alive\r\n", MIME),
    "1.5.1": ("Accept-Encoding: deflate\r\nConnection: keep-alive\r\n", MIME),
    "HEAD": ("Accept-Encoding: deflate\r\nConnection: close\r\n", MIME),
}
OLD = ["1.2", "1.3", "1.4.2"]  # these write rpc.name, the others rpc["name"]


def request(version, path, code):
    """As that version writes it; it packs what has 256 octets or more."""
    before, behind = HEADS[version]
    body = code.encode()
    if len(body) >= 256:
        body, behind = zlib.compress(body), behind + "Content-Encoding: deflate\r\n"
    return f"POST {path} HTTP/1.1\r\n{before}Content-Length: {len(body)}\r\n{behind}\r\n".encode() + body


def call_of(version, table, name, arguments):
    return f"{table}.{name}({arguments})" if version in OLD else f'{table}["{name}"]({arguments})'


def read_answer(client):
    """Status line, fields in lower case, body: by its length, the only framing that these clients know."""
    head = client.read_head().decode()
    assert "transfer-encoding" not in head.lower()
    line, *lines = head[:-4].split("\r\n")
    fields = {name.lower(): value for name, value in (field.split(": ", 1) for field in lines)}
    return line, fields, client.read(int(fields["content-length"]))


# --- they call us ---

@pytest.mark.parametrize("version", HEADS)
def test_calls_of_every_version(shared_ruled, version):
    _, api = shared_ruled(LIBRARY)
    client = wire.Client(api.address)
    client.send(request(version, "/ruleset/rpcall", "return " + call_of(version, "rpc", "add", "2,3")))
    line, fields, body = read_answer(client)
    assert (line, body) == ("HTTP/1.1 200 OK", b"return true,5,{2,3,}")
    assert fields["content-type"] == RPC_TYPE and "content-encoding" not in fields and "date" in fields
    assert fields["connection"].lower() == ("close" if version == "HEAD" else "keep-alive")
    if version != "HEAD":
        client.send(request(version, "/ruleset/rpcall", "return 1"))
        assert read_answer(client)[2] == b"return true,1"
    client.close()


@pytest.mark.parametrize("version", HEADS)
def test_errors_and_long_calls_of_every_version(shared_ruled, version):
    _, api = shared_ruled(LIBRARY)
    for code, body in [("error('on purpose',0)", b'return false,"on purpose"'), ("return", b"return true"),
                       ("return " + call_of(version, "rpc", "none", ""), None)]:
        client = wire.Client(api.address)
        client.send(request(version, "/ruleset/rpcall", code))
        line, fields, answer = read_answer(client)
        assert (line, fields["content-type"]) == ("HTTP/1.1 200 OK", RPC_TYPE)  # so that (false, message) comes of it everywhere
        assert answer == body if body else answer.startswith(b'return false,"') and b"nil value" in answer
        client.close()
    client = wire.Client(api.address)
    client.send(request(version, "/ruleset/rpcall", "return " + call_of(version, "rpc", "echo", '"' + "x" * 5000 + '"')))
    line, fields, answer = read_answer(client)
    assert line == "HTTP/1.1 200 OK" and fields["content-encoding"] == "deflate"
    assert zlib.decompress(answer) == b'return true,"' + b"x" * 5000 + b'"'
    client.close()
    client = wire.Client(api.address)
    client.send(request(version, "/ruleset/rpcall", "return ("))
    line, fields, answer = read_answer(client)
    assert line == "HTTP/1.1 500 Internal Server Error" and b"(rpc):1:" in answer
    client.close()


@pytest.mark.parametrize("version", HEADS)
def test_messages_of_every_version(shared_ruled, version):
    """Up to 1.4.3 the client closes when it has sent one, without waiting for the answer."""
    _, api = shared_ruled(LIBRARY)
    client = wire.Client(api.address)
    client.send(request(version, "/ruleset/invoke", call_of(version, "msgh", "note", f'"{version}"')))
    if version in [*OLD, "1.4.3"]:
        client.close()
    else:
        line, _, body = read_answer(client)
        assert (line, body) == ("HTTP/1.1 200 OK", b"")
        client.close()
    assert process.wait_until(lambda: api.call("return noted") == f'return true,"{version}"')


# --- we call ---

SENT = re.compile(rb"POST (/ruleset/\w+) HTTP/1\.1\r\nAccept-Encoding: deflate\r\nConnection: close\r\nContent-Length: (\d+)\r\n"
                  rb"Content-Type: application/x-neosocksd-rpc; version=1\r\n(Content-Encoding: deflate\r\n)?"
                  rb"(Authorization: Bearer \S+\r\n)?\r\n", re.DOTALL)


class Peer:
    """A peer that keeps what it was sent, and gives one answer to all."""

    def __init__(self, origin, answer):
        self.requests, self.answer = [], answer
        self.origin = origin(self.serve)
        self.address = f"127.0.0.1:{self.origin.port}"

    def serve(self, _, connection):
        data = b""
        while True:
            head = SENT.match(data)
            if head and len(data) >= head.end() + int(head.group(2)):
                break
            piece = connection.recv(65536)
            if not piece:
                break
            data += piece
        self.requests.append(data)
        connection.sendall(self.answer)


def answer_of(body, fields=""):
    return f"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 19:36:25 GMT\r\n{fields}{MIME}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def test_what_we_send(shared_ruled, origin):
    peer = Peer(origin, answer_of("return true,5,{2,3,}", "Connection: close\r\n"))
    _, api = shared_ruled(LIBRARY)
    assert api.call(f"return await.rpcall({{ '{peer.address}' }}, 'add', 2, 3)") == "return true,true,5,{2,3,}"
    assert api.call(f"return await.rpcall({{ 'http://tok-en@{peer.address}' }}, 'add', ('x'):rep(300))").startswith("return true,true")
    api.post("/ruleset/invoke", f"neosocksd.sendmsg({{ '{peer.address}' }}, 'note', 'hello')")
    assert process.wait_until(lambda: len(peer.requests) == 3)
    bodies = []
    for data in peer.requests:
        head = SENT.match(data)
        assert head, data
        body = data[head.end():]
        bodies.append((head.group(1), zlib.decompress(body) if head.group(3) else body, head.group(4)))
    assert bodies == [(b"/ruleset/rpcall", b'return rpc["add"](2,3)', None),
                      (b"/ruleset/rpcall", b'return rpc["add"]("' + b"x" * 300 + b'")', b"Authorization: Bearer tok-en\r\n"),
                      (b"/ruleset/invoke", b'msgh["note"]("hello")', None)]


@pytest.mark.parametrize("body", [
    "_G.broken_into = true return true", "return true,(function() broken_into = true end)()", "return true,os.exit(1)",
    "return true,setmetatable({},{__index=_G})", "return true,[[x]]..'y'", "return true;_G.broken_into=1", "\x1bLua"])
def test_answers_are_never_run(shared_ruled, origin, body):
    peer = Peer(origin, answer_of(body))
    _, api = shared_ruled(LIBRARY)
    assert api.call(f"local ok, f = await.invoke('return 1', '{peer.address}') return ok, type(f) == 'function' and f() or f") == (
        'return true,false,"error parsing response"')
    assert api.call("return broken_into") == "return true,nil"


@pytest.mark.parametrize("answer,result", [
    (answer_of("return true,1"), "true,true,1"),  # up to 1.4.3: no Connection
    (answer_of("return true,1", "Connection: keep-alive\r\n"), "true,true,1"),  # 1.5: and it stays open
    (answer_of('return false,"message"'), 'true,false,"message"'),  # 1.3 to 1.5.1
    (b"HTTP/1.1 500 Internal Server Error\r\n" + MIME.encode() + b"Content-Length: 7\r\n\r\nmessage", 'false,"message"'),  # 1.2
    (b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
     b"Content-Length: 21\r\n\r\nrpcall did not return", 'false,"HTTP/1.1 500 Internal Server Error"'),  # HEAD
    (answer_of("return true").replace(b"version=1", b"version=2"), 'false,"unsupported content-type"'),
    (b"nonsense\r\n\r\n", 'false,"error receiving response"'), (b"", 'false,"error receiving response"')])
def test_answers_of_every_version(shared_ruled, origin, answer, result):
    peer = Peer(origin, answer)
    _, api = shared_ruled(LIBRARY)
    assert api.call(f"local ok, f = await.invoke('return 1', '{peer.address}') if ok then return ok, f() end return ok, f") == (
        "return true," + result)


def answer_and_stay(it, connection):
    connection.recv(65536)
    connection.sendall(answer_of("return true,1"))
    return origins.hold(it, connection)


def test_a_call_that_is_over_holds_nothing(shared_ruled, origin):
    """Peers that do not close after their answer, that never answer, and that do not even read what they are sent."""
    over, silent = origin(answer_and_stay), origin(origins.hold)
    proxy, api = shared_ruled(LIBRARY, "-t", 5 * process.SLOW)  # in which the message that is never read must be made, too
    before = proxy.sockets()
    assert api.call(f"return await.rpcall({{ '127.0.0.1:{over.port}' }}, 'add')") == "return true,true,1"
    assert process.wait_until(lambda: proxy.sockets() == before), "after an answer"
    noise = "local random = io.open('/dev/urandom', 'rb') local bytes = random:read(240000) random:close() "
    send = f"for _, size in ipairs {{ 1, 20 }} do neosocksd.sendmsg({{ '127.0.0.1:{silent.port}' }}, 'note', bytes:rep(size)) end"
    assert api.post("/ruleset/invoke", noise + send).status == 200
    assert process.wait_until(lambda: proxy.sockets() >= before + 4)
    assert process.wait_until(lambda: proxy.sockets() == before, 25), "after --timeout"
