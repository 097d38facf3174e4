"""The recipes of docs/limits.md: their commands, word for word but for paths, ports and networks."""
import json
import os
import re
import shlex
import subprocess

import pytest

import process
import wire
from conftest import ROOT
from test_auth import sign_in, socks5
from test_usage_redis import redis  # noqa: F401 (a fixture)


def commands(heading):
    with open(os.path.join(ROOT, "docs", "limits.md"), encoding="utf-8") as document:
        part = re.search(rf"^### {heading}\n(.*?)(?=^##)", document.read(), re.MULTILINE | re.DOTALL).group(1)
    found = [line[4:] for line in part.splitlines() if line.startswith("    ")]
    assert len(found) >= 2 and sum(line.startswith("sluice -l") for line in found) == 1
    return found


class Recipe:
    """Its commands in order, in a folder of its own; the one that serves is started beside them."""

    def __init__(self, folder, sluice, heading, *changes):
        self.folder, self.sluice, self.lines, self.proxy = folder, sluice, commands(heading), None
        self.changes = [("/etc/sluice", f"{folder}/etc"), ("/var/lib/sluice", f"{folder}/lib"), ("/run/sluice", f"{folder}/run"), *changes]
        for name in ["bin", "etc", "lib", "run"]:
            (folder / name).mkdir(parents=True)
        os.symlink(os.path.abspath(process.BINARY), folder / "bin" / "sluice")

    def changed(self, line):
        for old, new in self.changes:
            line = line.replace(old, new)
        return line

    def until_served(self):
        """Runs what comes before, and starts the proxy."""
        while not self.lines[0].startswith("sluice -l"):
            self.run()
        port = process.free_port()
        words = shlex.split(self.changed(self.lines.pop(0)).replace(":1080", f"127.0.0.1:{port}"))
        self.proxy = self.sluice(*words[1:], listen=None)
        self.proxy.address = ("127.0.0.1", port)
        return self.proxy

    def run(self):
        """The next command's output."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(["sh", "-c", self.changed(self.lines.pop(0))], capture_output=True, text=True, timeout=60 * process.SLOW, check=False,
                              env={**os.environ, "PATH": path})
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout


@pytest.fixture
def recipe(tmp_path, sluice):
    made = []

    def make(heading, *changes):
        folder = tmp_path / f"recipe{len(made)}"
        made.append(folder)
        return Recipe(folder, sluice, heading, *changes)

    return make


def test_provider(recipe, origin):
    target, box = origin(), recipe("A provider with users in a file", ("loopback,multicast,local", "multicast"))
    proxy = box.until_served()
    assert socks5(proxy, target, b"alice", b"correct horse") == (b"\1\0", 0)
    assert socks5(proxy, target, b"bob", b"battery staple") == (b"\1\1", None)
    assert json.loads(box.run())["groups"] == ["silver"]
    assert socks5(proxy, target, b"bob", b"battery staple") == (b"\1\0", 0)
    assert socks5(proxy, target, b"alice", b"battery staple") == (b"\1\1", None)
    limit = json.loads(box.run())
    assert limit["key"] == "user:alice" and limit["terms"]["quota"] == str(500 << 30) + "B/month" and "connections" not in limit["terms"]
    assert {row["key"] for row in json.loads(box.run())["usage"]} == {"user:alice"}
    assert re.fullmatch(r"alice:\$y\$[^:]+:gold:down=100Mbit/s quota=500GiB/month\nbob:\$y\$[^:]+:silver\n", (box.folder / "etc" / "users").read_text())
    _, client = sign_in(proxy, b"bob", b"battery staple")
    assert client.send(wire.socks5("127.0.0.1", 25)).read_all() == wire.socks5_failure(2)
    assert not box.lines


def test_fleet(recipe, redis, origin):  # noqa: F811
    server, target = redis(), origin()
    boxes = [recipe("A fleet with Redis", ("redis://127.0.0.1:6379", f"redis://127.0.0.1:{server.port}")) for _ in range(2)]
    hashed = subprocess.run([process.BINARY, "--hash-password"], input=b"secret\n", capture_output=True, check=True).stdout.decode()
    for box in boxes:
        (box.folder / "etc" / "users").write_text("alice:" + hashed)
        status, client = sign_in(box.until_served(), b"alice", b"secret")
        assert status == b"\1\0" and wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", target.port)))[0] == 0
        assert client.send(b"x" * 1000).read(1000) == b"x" * 1000
        client.close()
    for box in boxes:
        line = box.lines[0]

        def used(box=box, line=line):
            box.lines = [line]
            return json.loads(box.run())["used"]["quota"]

        assert process.wait_until(lambda: used() == 4000, 30), used()


def test_fair_use(recipe, origin):
    target = origin()
    box = recipe("Fair use per source", ("10.0.0.0/8", "127.0.0.0/8"), ("10.9.9.9", "127.9.9.9"))
    (box.folder / "etc" / "banned").write_text("")
    proxy = box.until_served()

    def come(host):
        client = wire.greet(wire.Client(proxy.address, source=(host, 0)))
        assert wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", target.port)))[0] == 0
        return client

    scanner, other = come("127.9.9.9"), come("127.0.0.1")
    box.run()
    assert json.loads(box.run())["lists"][1]["entries"] == 1
    assert scanner.send(b"ping").read(4) == b"ping"
    assert json.loads(box.run()) == {"judged": 2, "reset": 1}
    assert scanner.ends_with() == "reset" and other.send(b"ping").read(4) == b"ping"
    answer = json.loads(box.run())
    assert answer["verdict"] == "denied" and answer["scopes"][0]["entry"] == "127.9.9.9" and answer["scopes"][0]["line"] == 1
    with pytest.raises(ConnectionResetError):
        wire.Client(proxy.address, source=("127.9.9.9", 0)).socket.recv(1)
    many = [come("127.0.0.1") for _ in range(99)]
    late = wire.greet(wire.Client(proxy.address)).send(wire.socks5("127.0.0.1", target.port))
    assert wire.read_socks5_reply(late)[0] == 2, "a hundred connections of a source"
    assert come("127.0.0.2").send(b"ping").read(4) == b"ping"
    for client in many:
        client.close()
    assert not box.lines
