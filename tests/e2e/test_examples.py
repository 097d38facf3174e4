"""Every script of lua/examples/ with real traffic."""
import os
import re
import shutil

import process
import scripts
import wire
from conftest import ROOT
from test_limits import serves
from test_ruleset import refused

EXAMPLES = os.path.join(ROOT, "lua", "examples")


def example(tmp_path, name, *changes):
    """A copy of the example in which addresses are those of this test."""
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as source:
        text = source.read()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (tmp_path / name).write_text(text)
    return text


def echoes(client, message=b"by example"):
    client.send(message)
    assert client.read(len(message)) == message
    client.close()


def test_all_are_tested():
    """Each is read by a test, here or in test_scripts.py."""
    used = set()
    for name in ["test_examples.py", "test_scripts.py"]:
        with open(os.path.join(ROOT, "tests", "e2e", name), encoding="utf-8") as source:
            used.update(re.findall(r'example\((?:tmp_path(?: / name)?, )?"(\w+\.lua)"|"lua", "examples", "(\w+\.lua)"', source.read()))
    assert {name for name in os.listdir(EXAMPLES) if name.endswith(".lua")} == {one or other for one, other in used}


def test_simple(ruled, origin, tmp_path):
    target = origin()
    proxy, api = ruled(example(tmp_path, "simple.lua", ("192.168.1.20:631", f"127.0.0.1:{target.port}")))
    echoes(wire.through_socks5(proxy.address, b"printer.home", 80))
    assert serves(proxy, target)
    refused(proxy, b"x.ads.example", 80)
    refused(proxy, "169.254.1.1", 80)
    assert '[ads] "x.ads.example:80"' in api.post("/stats").text


def test_ingress(ruled, origin, tmp_path):
    target = origin()
    proxy, api = ruled(example(tmp_path, "ingress.lua", ("127.0.0.1:8000", f"127.0.0.1:{target.port}")), "--auth-required")
    client = wire.greet(wire.Client(proxy.address), b"alice", b"change me").send(wire.socks5(b"wiki", 80))
    assert wire.read_socks5_reply(client)[0] == 0
    echoes(client)
    client = wire.greet(wire.Client(proxy.address), b"alice", b"change me").send(wire.socks5("127.0.0.1", target.port))
    assert client.read_all() == wire.socks5_failure(1)
    assert api.post("/ruleset/invoke", "_G.secrets = { alice = 'new' }").status == 200
    client = wire.Client(proxy.address).send(b"\5\1\2" + wire.socks5_auth(b"alice", b"change me"))
    assert client.read_all() == b"\5\2\1\1"


def test_egress(ruled, dns, origin, tmp_path):
    names, target = dns(), origin()
    names.add("inner.test", "127.0.0.1")
    names.add("mapped.test", "::ffff:127.0.0.1")
    proxy, api = ruled(example(tmp_path, "egress.lua", ("match.port({ 80, 443 })", f"match.port({{ 80, 443, {target.port} }})")),
                       "--nameserver", names.text)
    for host in [b"inner.test", b"mapped.test", b"localhost", b"127.0.0.1", "127.0.0.1", "::1", "100.64.0.1", "::ffff:127.0.0.1"]:
        refused(proxy, host, target.port)
    refused(proxy, b"example.com", 22)
    text = api.post("/stats").text
    assert "[inner]" in text and "[port]" in text


def test_balancer(sluice, origin, tmp_path):
    targets, port, api_port = [origin() for _ in range(2)], process.free_port(), process.free_port()
    example(tmp_path, "balancer.lua", ("127.0.0.1:8001", f"127.0.0.1:{targets[0].port}"),
            ("127.0.0.1:8002", f"127.0.0.1:{targets[1].port}"))
    proxy = sluice("-l", f"127.0.0.1:{port}", "-f", "backend:1", "-r", str(tmp_path / "balancer.lua"), "--api",
                   f"127.0.0.1:{api_port}", listen=None)
    api = scripts.Api(("127.0.0.1", api_port))
    for _ in range(9):
        echoes(wire.Client(("127.0.0.1", port)))
    assert process.wait_until(lambda: [len(target.connections) for target in targets] == [6, 3])
    dead = process.free_port()
    assert api.post("/ruleset/invoke", f"msgh.set_backends({{ {{ 5, '127.0.0.1:{dead}' }}, {{ 1, '127.0.0.1:{targets[1].port}' }} }})"
                    ).status == 200
    for _ in range(6):
        echoes(wire.Client(("127.0.0.1", port)))
    assert f"backend 127.0.0.1:{dead} is dead" in api.post("/stats").text
    assert proxy.alive()


def test_config(sluice, origin, tmp_path):
    port, api_port = process.free_port(), process.free_port()
    example(tmp_path, "config.lua", ('"127.0.0.1:1080"', f'"127.0.0.1:{port}"'), ('"127.0.0.1:9080"', f'"127.0.0.1:{api_port}"'))
    proxy = sluice("-c", str(tmp_path / "config.lua"), listen=None)
    proxy.address = ("127.0.0.1", port)
    assert serves(proxy, origin())
    assert scripts.Api(("127.0.0.1", api_port)).get("/stats?format=json").json()["ruleset"]["loaded"]


def test_the_working_directory_wins(ruled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "libruleset.lua").write_text("return { mine = true }")
    _, api = ruled("_G.library = require('libruleset') return library")
    assert api.call("return library.mine") == "return true,true"
    shutil.rmtree(tmp_path / "none", ignore_errors=True)


def test_overlay_of_three(sluice, origin, tmp_path):
    """office - middle - home: the ends know each other through the middle, and reach each other's services."""
    target = origin()
    ports, apis, proxies = {}, {}, {}
    names = ["office", "middle", "home"]
    for name in names:
        ports[name], apis[name] = process.free_port(), process.free_port()
    ways = {"office": ["middle"], "middle": ["office", "home"], "home": ["middle"]}
    for name in names:
        conns = ", ".join(f'{other} = {{ "socks5://127.0.0.1:{ports[other]}" }}' for other in ways[name])
        (tmp_path / name).mkdir()
        example(tmp_path / name, "overlay.lua", ('"office"', f'"{name}"'), ('wiki = "127.0.0.1"', f'["at-{name}"] = "127.0.0.1"'),
                ('home = { "socks5://192.0.2.1:1080" },', conns), ("127.0.0.1:9080", f"127.0.0.1:{apis[name]}"),
                ("relay_cost = nil", "relay_cost = " + ("1" if name == "middle" else "nil")))
        proxies[name] = sluice("-l", f"127.0.0.1:{ports[name]}", "-r", str(tmp_path / name / "overlay.lua"), "--api",
                               f"127.0.0.1:{apis[name]}", listen=None)
    calls = {name: scripts.Api(("127.0.0.1", apis[name])) for name in names}

    def knows(name):
        calls[name].call("agent.wake()")
        return all(f'"{other}"' in calls[name].post("/stats").text for other in names if other != name) and (
            "unreachable" not in calls[name].post("/stats").text)

    assert process.wait_until(lambda: all(knows(name) for name in names), 30, 0.3), calls["office"].post("/stats").text
    address = ("127.0.0.1", ports["office"])
    for name in ["middle", "home", "office"]:
        echoes(wire.through_socks5(address, f"at-{name}.internal".encode(), target.port), name.encode())
    client = wire.greet(wire.Client(address)).send(wire.socks5(b"nobody.internal", 80))
    assert client.read_all() == wire.socks5_failure(1)
    assert calls["office"].call("return agent.rpcall('at-home.internal:%d', 'echo', 1)" % apis["home"]).startswith("return true,")
