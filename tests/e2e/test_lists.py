"""Who may come, and where to: --allow-client, --deny-client, --allow-target, --deny-target, for the process and for one listener."""
import os
import re
import signal
import time
import urllib.parse

import pytest

import origins
import process
import wire
from test_auth import ROOT
from test_bind import ON as BIND
from test_bind import ask, is_reset
from test_keys import failures
from test_ruleset import DIRECT
from test_udp import ON as UDP
from test_udp import Association, Target

DENIED = wire.socks5_failure(2)


def answers(proxy, host, port, address=None):
    """What the four protocols say to a target that is refused: (SOCKS4A, SOCKS5, CONNECT, plain HTTP)."""
    address = address or proxy.address
    name = host.encode()
    authority = wire.authority(host, port)
    said = [wire.Client(address).send(wire.socks4a(name, port)).read_all(),
            wire.greet(wire.Client(address)).send(wire.socks5(name, port)).read_all()]
    for head in (wire.http_connect(host, port), b"GET http://" + authority + b"/ HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n"):
        reply = wire.Client(address).send(head).read_all()
        said.append(wire.status_of(reply)[0])
    return said


REFUSED = [wire.SOCKS4_REJECTED, DENIED, 403, 403]


def code(proxy, host, port, address=None):
    """The answer to a SOCKS5 request."""
    with wire.greet(wire.Client(address or proxy.address)) as client:
        client.send(wire.socks5(host, port))
        return wire.read_socks5_reply(client)[0]


# --- targets ---

def test_targets_that_are_denied(ruled, origin, dns):
    """By name, by the address that a name has, and by port, in each protocol; refusals are counted under a label of their own."""
    target, other, names = origin(), origin(), dns()
    names.add("a.evil.test", "127.0.0.1")
    names.add("inner.test", "127.7.0.1")
    names.add("good.test", "127.0.0.1")
    proxy, api = ruled(None, "--nameserver", names.text, "--deny-target", f".EVIL.test.,127.7.0.0/16,*:{other.port}", "--workers", "1")
    assert answers(proxy, "a.evil.test", target.port) == REFUSED
    assert answers(proxy, "A.Evil.TEST.", target.port) == REFUSED
    assert answers(proxy, "inner.test", target.port) == REFUSED
    assert answers(proxy, "127.7.1.1", target.port) == REFUSED
    assert answers(proxy, "good.test", other.port) == REFUSED
    assert failures(api, "target_denied") == 20
    assert code(proxy, b"good.test", target.port) == 0
    assert code(proxy, "127.0.0.1", target.port) == 0
    assert proxy.flat()


def test_targets_that_are_allowed(sluice, origin, dns):
    """What no entry allows is refused. A name that is allowed may have any address that is not denied."""
    target, names = origin(), dns()
    for name, address in (("x.good.test", "127.0.0.1"), ("rebound.good.test", "127.7.0.1"), ("other.test", "127.0.0.1")):
        names.add(name, address)
    proxy = sluice("--nameserver", names.text, "--allow-target", ".good.test", "--deny-target", "127.7.0.0/16")
    assert code(proxy, b"x.good.test", target.port) == 0
    assert answers(proxy, "rebound.good.test", target.port) == REFUSED
    assert answers(proxy, "other.test", target.port) == REFUSED
    assert answers(proxy, "127.0.0.1", target.port) == REFUSED


def test_each_address_of_a_name_is_judged(sluice, origin, dns):
    """The allowed one of two is dialled."""
    target, names = origin(), dns()
    names.add("both.test", "127.7.0.1", "127.0.0.1")
    proxy = sluice("--nameserver", names.text, "--deny-target", "127.7.0.0/16")
    assert code(proxy, b"both.test", target.port) == 0


def test_requests_on_a_kept_connection(sluice, origin):
    """Plain HTTP: each request is judged, whatever went before on that connection."""
    target, other = origin(origins.pages), origin(origins.pages)
    proxy = sluice("--deny-target", f"*:{other.port}")
    with wire.Client(proxy.address) as client:
        for to in (target, target, other):
            authority = wire.authority("127.0.0.1", to.port)
            client.send(b"GET http://" + authority + b"/ HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n")
            if to is other:
                break
            head = client.read_head()
            assert head.startswith(b"HTTP/1.1 200"), head
            assert client.read(6) == b"page /"
        assert wire.status_of(client.read_all())[0] == 403


def test_behind_a_chain_the_target_is_judged(sluice, origin):
    """Not the hops; and where only addresses are allowed, a name that nobody here resolves is not."""
    target, hop = origin(), sluice()
    chain = ["-x", f"socks5://127.0.0.1:{hop.port}"]
    proxy = sluice(*chain, "--deny-target", f"127.0.0.1:{hop.port},127.7.0.0/16")
    assert code(proxy, "127.0.0.1", target.port) == 0
    assert answers(proxy, "127.7.0.1", target.port) == REFUSED
    assert answers(proxy, "127.0.0.1", hop.port) == REFUSED
    proxy = sluice(*chain, "--allow-target", "127.0.0.0/8")
    assert code(proxy, "127.0.0.1", target.port) == 0
    assert answers(proxy, "localhost", target.port) == REFUSED


def test_a_ruleset_cannot_lead_around_them(ruled, origin):
    """What it names is judged, too: the target that was asked for, and the one that it turns it into."""
    target, other = origin(), origin()
    proxy, _ = ruled(f"""return {{ resolve = function(a) return "127.0.0.1:{other.port}" end,
                                   route = function(a) return a end }}""", "--deny-target", f"*:{other.port},.asked.test")
    assert answers(proxy, "any.test", target.port) == REFUSED
    proxy, _ = ruled(f"""return {{ resolve = function(a) return "127.0.0.1:{target.port}" end,
                                   route = function(a) return a end }}""", "--deny-target", ".asked.test", name="other.lua")
    assert code(proxy, b"any.test", 80) == 0
    assert answers(proxy, "x.asked.test", 80) == REFUSED


def test_bind_and_its_peer(sluice, dns):
    names = dns()
    names.add("evil.test", "127.0.0.1")
    proxy = sluice(BIND, "--nameserver", names.text, "--deny-target", "127.0.0.9,evil.test")
    for host in ("127.0.0.9", b"evil.test"):
        with wire.greet(wire.Client(proxy.address)) as client:
            assert client.send(wire.socks5(host, 80, 2)).read_all() == DENIED
    client, bound = ask(proxy, "0.0.0.0")
    assert is_reset(bound, source=("127.0.0.9", 0))
    with wire.Client(bound, source=("127.0.0.8", 0)):
        assert wire.read_socks5_reply(client)[0] == 0


def test_datagrams(sluice, dns):
    """Each by itself: those that are denied are dropped, the association goes on."""
    names = dns()
    names.add("evil.test", "127.0.0.1")
    names.add("inner.test", "127.7.0.1")
    names.add("good.test", "127.0.0.1")
    one, other, inner = Target(), Target(), Target("127.7.0.1")
    proxy = sluice(UDP, "--nameserver", names.text, "--deny-target", f"evil.test,127.7.0.0/16,*:{other.port}")
    try:
        with Association(proxy) as client:
            client.send(b"no", "127.0.0.1", other.port).send(b"no", b"good.test", other.port)
            client.send(b"no", b"evil.test", one.port)
            client.send(b"no", b"inner.test", inner.port).send(b"no", "127.7.0.1", inner.port)
            client.send(b"yes", b"good.test", one.port)
            assert client.receive() == (b"yes", "127.0.0.1", one.port)
            client.send(b"also", "127.0.0.1", one.port)
            assert client.receive() == (b"also", "127.0.0.1", one.port)
        assert [payload for payload, _ in one.seen] == [b"yes", b"also"] and not other.seen and not inner.seen
    finally:
        for target in (one, other, inner):
            target.close()


def test_scripts_ask(ruled):
    _, api = ruled(DIRECT, "--deny-client", "192.0.2.0/24", "--deny-target", "10.0.0.0/8,.evil.test,*:25", "--allow-target", ".good.test,10.0.0.0/8")
    asked = [("'client', '192.0.2.7'", False), ("'client', '192.0.3.7'", True), ("'target', 'x.good.test', 80", True),
             ("'target', 'x.good.test', 25", True), ("'target', 'x.good.test', 80, '10.0.0.1'", False),
             ("'target', 'x.good.test', 80, '192.0.2.1'", True), ("'target', 'other.test', 80", True),
             ("'target', 'other.test', 80, '192.0.2.1'", False), ("'target', 'x.evil.test', 80", False), ("'target', '10.0.0.1', 80", False)]
    for words, expected in asked:
        assert api.call(f"return sluice.list({words})") == f"return true,{str(expected).lower()}", words
    for words in ("'client', 'name'", "'target', 'a b', 1", "'target', 'a', 70000", "'target', 'a', 1, 'b'", "'nobody', 'a'", ""):
        assert "bad argument" in api.call(f"return select(2, pcall(sluice.list, {words}))".replace(", )", ")")), words


# --- clients ---

def test_clients_that_are_denied(ruled, origin):
    """They are reset before anything is read of them, and counted; the log has a line for fail2ban at the default level."""
    target = origin()
    proxy, api = ruled(None, "--deny-client", "127.1.0.0/16", "--workers", "1", "--loglevel", "4")
    for _ in range(3):
        assert is_reset(proxy.address, source=("127.1.2.3", 0))
    assert code(proxy, "127.0.0.1", target.port) == 0
    assert failures(api, "client_denied") == 3
    assert process.wait_until(lambda: proxy.log().count("denied by a list") == 3)
    with open(os.path.join(ROOT, "docs", "fail2ban", "sluice.conf"), encoding="utf-8") as conf:
        lines = re.search(r"^failregex = (.*\n(?: +.*\n)*)", conf.read(), re.MULTILINE).group(1).split("\n")
    patterns = [re.compile(line.strip().replace("<HOST>", r"(?P<host>[0-9a-fA-F.:]+)")) for line in lines if line.strip()]
    hosts = [match.group("host") for line in proxy.log().splitlines() for match in (p.search(line) for p in patterns) if match]
    assert hosts == ["127.1.2.3"] * 3
    assert proxy.flat()


def test_clients_that_are_allowed(sluice, origin, tmp_path):
    """A Unix socket's clients have no address: its permissions say who they are."""
    target = origin()
    path = str(tmp_path / "proxy")
    proxy = sluice("--allow-client", "127.1.0.0/16,::1", "--deny-client", "127.1.6.0/24", "-l", f"unix:{path}")
    assert is_reset(proxy.address)
    assert is_reset(proxy.address, source=("127.1.6.1", 0))
    with wire.greet(wire.Client(proxy.address, source=("127.1.7.1", 0))) as client:
        assert wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", target.port)))[0] == 0
    assert code(proxy, "127.0.0.1", target.port, path) == 0


def test_one_process_with_an_inner_and_an_outer_port(sluice, origin):
    """Lists of a listener are its own, and hold beside those of the process."""
    target, other = origin(), origin()
    port = process.free_port()
    outer = ("127.0.0.1", port)
    proxy = sluice("-l", f"127.0.0.1:{port},allow-client=127.1.0.0/16,allow-target=127.0.0.1:{target.port},"
                         f"allow-target=127.0.0.1:{other.port},deny-target=127.0.0.1:{other.port},protocol=socks",
                   "--deny-client", "127.1.9.9")
    assert code(proxy, "127.0.0.1", other.port) == 0
    assert is_reset(outer)
    assert is_reset(outer, source=("127.1.9.9", 0)) and is_reset(proxy.address, source=("127.1.9.9", 0))
    for to, expected in ((target, 0), (other, 2)):
        with wire.greet(wire.Client(outer, source=("127.1.0.1", 0))) as client:
            assert wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", to.port)))[0] == expected
    with wire.Client(outer, source=("127.1.0.1", 0)) as client:
        assert client.send(b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n").read_all() == b""


# --- files ---

@pytest.mark.parametrize("way", ["alone", "ruleset", "config"])
def test_files_are_read_again(sluice, origin, tmp_path, way):
    """At SIGHUP, in place: relays go on. A file with a fault changes nothing, and its line is named."""
    target = origin()
    path = tmp_path / "denied"
    path.write_text("# nobody yet\n")
    words = ["--deny-target", f"@{path}"]
    if way == "ruleset":
        (tmp_path / "rules.lua").write_text("return { resolve = function(a) return a end, route = function(a) return a end }")
        words += ["-r", str(tmp_path / "rules.lua")]
    if way == "config":
        (tmp_path / "boot.lua").write_text(f"return {{ deny_target = '@{path}' }}")
        words = ["-c", str(tmp_path / "boot.lua")]
    proxy = sluice(*words)

    def reload(text, said):
        before = proxy.log().count(said)
        path.write_text(text)
        proxy.signal(signal.SIGHUP)
        assert process.wait_until(lambda: proxy.log().count(said) > before), proxy.log()

    taken = "config successfully reloaded" if way == "config" else "the lists have"
    with wire.greet(wire.Client(proxy.address)) as client:
        assert wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", target.port)))[0] == 0
        reload("127.0.0.0/8\n", taken)
        assert process.wait_until(lambda: code(proxy, "127.0.0.1", target.port) == 2)
        reload("10.0.0.0/8\n\n10.0.0.1/8 # no network\n", f'{path}:3: "10.0.0.1/8": this is no network')
        assert code(proxy, "127.0.0.1", target.port) == 2
        path.unlink()
        proxy.signal(signal.SIGHUP)
        assert process.wait_until(lambda: f"{path}: No such file or directory" in proxy.log())
        assert code(proxy, "127.0.0.1", target.port) == 2
        reload("", taken)
        assert process.wait_until(lambda: code(proxy, "127.0.0.1", target.port) == 0)
        assert client.send(b"still there").read(11) == b"still there"
    assert proxy.flat()


def test_reload_under_load(sluice, origin, tmp_path):
    """A list of many entries is replaced again and again while clients come: each gets an answer, and the right one."""
    target = origin()
    path = tmp_path / "denied"
    entries = "".join(f"10.{i >> 8}.{i & 255}.0/24\nhost{i}.denied.test\n" for i in range(20_000))
    path.write_text(entries)
    proxy = sluice("--deny-target", f"@{path}", "--workers", "3")
    for i in range(12):
        path.with_suffix(".new").write_text(entries + f"198.51.100.{i}\n")
        os.replace(path.with_suffix(".new"), path)  # the reload of before may still be reading
        proxy.signal(signal.SIGHUP)
        for _ in range(10):
            assert code(proxy, "127.0.0.1", target.port) == 0
            assert code(proxy, "10.77.3.4", target.port) == 2
            assert code(proxy, b"host19999.denied.test", target.port) == 2
    assert process.wait_until(lambda: "the lists have 40001 entries" in proxy.log())


def refuses(*words, said):
    status, _, errors = process.run(*words)
    lines = errors.strip().splitlines()
    assert status == 1 and len(lines) == 1 and said in lines[0], (status, errors)


def test_faults(tmp_path):
    listen = ["-l", f"127.0.0.1:{process.free_port()}"]
    path = tmp_path / "list"
    path.write_text("example.com\n*.example.com\n")
    os.mkfifo(tmp_path / "fifo")
    refuses(*listen, "--deny-target", f"@{path}", said=f'--deny-target {path}:2: "*.example.com": a name with all below it')
    refuses(*listen, "--deny-client", f"@{path}", said=f'--deny-client {path}:1: "example.com": this is no address')
    refuses("-l", f"{listen[1]},allow-target=@{path}", said=f'listener "{listen[1]}": allow-target={path}:2: ')
    refuses(*listen, "--deny-target", f"@{tmp_path}/fifo", said="this is no regular file")
    refuses(*listen, "--deny-target", f"@{tmp_path}", said="this is no regular file")
    refuses(*listen, "--deny-target", f"@{tmp_path}/none", said=f"{tmp_path}/none: No such file or directory")
    refuses(*listen, "--deny-target", "@", said="the path of the file is missing")
    refuses(*listen, "--deny-target", "a.test,,b.test", said='"": the entry is empty')
    refuses(*listen, "--allow-client", "192.0.2.1:80", said="clients have no ports here")
    refuses(*listen, "--check", "--deny-target", f"@{path}", said=f"{path}:2: ")


def test_dump_is_read_again(tmp_path):
    path = tmp_path / "boot.lua"
    words = ["-l", "127.0.0.1:1080,deny-client=10.0.0.0/8,deny-target=@/tmp/x", "-l", "127.0.0.1:1081", "--allow-client", "10.0.0.0/8,::1",
             "--deny-target", "*:25", "--deny-target", ".evil.test"]
    dump = process.run(*words, "--dump-config")[1]
    assert 'allow_client = "10.0.0.0/8,::1"' in dump and 'deny_target = "*:25,.evil.test"' in dump
    path.write_text(dump)
    assert process.run("-c", str(path), "--dump-config")[1] == dump


# --- by the API ---

def question(api, subject, **words):
    answer = api.get(f"/lists/{subject}?" + urllib.parse.urlencode(words)).json()
    return [answer["verdict"], *([scope[key] for key in ("verdict", "list", "entry", "line")] for scope in answer["scopes"])]


def test_which_entry_decides(ruled, tmp_path):
    """The verdict is that of the tables; the entry is the one that a reader of the files would name."""
    path, inner = tmp_path / "denied", f"127.0.0.1:{process.free_port()}"
    path.write_text("# inner\n10.0.0.0/8\n\nEvil.test  # alone\n.evil.test:8000-8999\n2001:db8::/32\n.b\u00fccher.example\n10.1.0.0/16:25\n")
    _, api = ruled(None, "--deny-target", f"@{path},*:25", "--allow-client", "127.0.0.0/8,2001:db8::7", "--deny-client", "127.9.0.0/16",
                   "-l", f"{inner},allow-target=.good.test,allow-target=192.0.2.0/24,deny-target=x.good.test")
    file, option = "deny-target", "deny-target"
    nothing = ["allowed", None, None, None]
    for words, said in [
            ({"address": "10.1.2.3"}, ["denied", file, "10.0.0.0/8", 2]), ({"address": "10.1.2.3", "port": 25}, ["denied", file, "10.1.0.0/16:25", 8]),
            ({"address": "::ffff:10.1.2.3"}, ["denied", file, "10.0.0.0/8", 2]), ({"address": "64:ff9b::10.1.2.3"}, ["denied", file, "10.0.0.0/8", 2]),
            ({"address": "2001:db8:1::"}, ["denied", file, "2001:db8::/32", 6]), ({"address": "11.0.0.1"}, nothing),
            ({"name": "evil.test"}, ["denied", file, "Evil.test", 4]), ({"name": "EVIL.test.", "port": 8080}, ["denied", file, "Evil.test", 4]),
            ({"name": "a.evil.test", "port": 8999}, ["denied", file, ".evil.test:8000-8999", 5]), ({"name": "a.evil.test", "port": 9000}, nothing),
            ({"name": "notevil.test"}, nothing), ({"name": "a.b\u00fccher.example"}, ["denied", file, ".b\u00fccher.example", 7]),
            ({"name": "any.test", "port": 25}, ["denied", option, "*:25", None])]:
        assert question(api, "targets", **words) == [said[0], said], words
    listener = {"listener": inner}
    assert question(api, "targets", name="a.good.test", **listener) == ["allowed", nothing, ["allowed", "allow-target", ".good.test", None]]
    assert question(api, "targets", name="x.good.test", **listener)[1:] == [nothing, ["denied", "deny-target", "x.good.test", None]]
    assert question(api, "targets", name="a.test", **listener) == ["by-address", nothing, ["by-address", None, None, None]]
    assert question(api, "targets", address="192.0.3.1", **listener) == ["denied", nothing, ["denied", None, None, None]]
    assert question(api, "targets", address="10.0.0.1", **listener)[0] == "denied"
    assert question(api, "clients", address="127.8.0.1") == ["allowed", ["allowed", "allow-client", "127.0.0.0/8", None]]
    assert question(api, "clients", address="127.9.0.1") == ["denied", ["denied", "deny-client", "127.9.0.0/16", None]]
    assert question(api, "clients", address="192.0.2.1") == ["denied", ["denied", None, None, None]]
    assert question(api, "clients", address="2001:db8::7")[0] == "allowed"
    for wrong in ["targets", "targets?name=a&address=192.0.2.1", "targets?address=a.test", "targets?name=192.0.2.1", "targets?name=a&port=65536",
                  "targets?name=a&port=x", "clients?name=a", "clients?address=192.0.2.1&port=1", "others?address=192.0.2.1", "targets?name=a&listener=:9"]:
        assert api.get(f"/lists/{wrong}").status == 400, wrong
    assert api.get("/lists").json()["denied"] == [{"subject": "clients", "listener": None, "count": 0}, {"subject": "targets", "listener": None, "count": 0},
                                                  {"subject": "targets", "listener": inner, "count": 0}], "questions are not counted"


def test_lists_are_shown_counted_and_read_again(ruled, tmp_path):
    path = tmp_path / "denied"
    path.write_text("10.0.0.0/8\nevil.test\n")
    proxy, api = ruled(None, "--deny-target", f"@{path},*:25", "--deny-client", "127.9.0.0/16", "--workers", "2")
    first = api.get("/lists").json()
    assert first["revision"] == 1 and abs(first["loaded"] - time.time()) < 3600
    assert first["lists"] == [{"name": "deny-client", "listener": None, "entries": 1, "files": []},
                              {"name": "deny-target", "listener": None, "entries": 3, "files": [{"path": str(path), "entries": 2}]}]
    assert code(proxy, "10.1.1.1", 80) == code(proxy, b"evil.test", 80) == code(proxy, "127.0.0.1", 25) == 2
    with pytest.raises(ConnectionResetError):
        wire.Client(proxy.address, source=("127.9.0.1", 0)).socket.recv(1)
    denied = [{"subject": "clients", "listener": None, "count": 1}, {"subject": "targets", "listener": None, "count": 3}]
    assert process.wait_until(lambda: api.get("/lists").json()["denied"] == denied)
    path.write_text("127.0.0.0/8\n")
    again = api.post("/lists/reload").json()
    assert again["revision"] == 2 and again["denied"] == denied, "it goes on counting"
    assert again["lists"][1]["entries"] == 2
    assert process.wait_until(lambda: proxy.log().count("the lists have 3 entries") == 1)
    assert process.wait_until(lambda: code(proxy, "127.0.0.1", 9) == 2)
    path.write_text("127.0.0.0/8\n127.0.0.1/8\n")
    answer = api.post("/lists/reload")
    assert answer.status == 409 and f"--deny-target {path}:2: " in answer.text and "no network" in answer.text
    assert api.get("/lists").json()["revision"] == 2 and code(proxy, "127.0.0.1", 9) == 2
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: proxy.log().count("the old lists stay") == 2)


def test_without_lists(ruled):
    _, api = ruled(None)
    assert api.get("/lists").json() == {"revision": 0, "loaded": None, "lists": [], "denied": []}
    assert question(api, "targets", name="a.test") == ["allowed", ["allowed", None, None, None]]
    assert api.post("/lists/reload").status == 404
    assert api.post("/sessions/judge").json()["reset"] == 0


def test_sessions_are_judged_again_when_asked(ruled, origin, tmp_path):
    """A reload leaves them alone; the call resets those whose clients are denied by now, in every state, and no others."""
    target, path = origin(), tmp_path / "denied"
    path.write_text("")
    proxy, api = ruled(None, "--deny-client", f"@{path}", "--workers", "2")

    def come(host):
        relay = wire.greet(wire.Client(proxy.address, source=(host, 0)))
        assert wire.read_socks5_reply(relay.send(wire.socks5("127.0.0.1", target.port)))[0] == 0
        return relay, wire.greet(wire.Client(proxy.address, source=(host, 0)))

    gone, stay = [come("127.0.0.2") for _ in range(3)], [come("127.0.0.3") for _ in range(3)]
    path.write_text("127.0.0.2\n")
    assert api.post("/lists/reload").json()["revision"] == 2
    assert all(relay.send(b"ping").read(4) == b"ping" for relay, _ in gone + stay)
    assert api.post("/sessions/judge").json() == {"judged": 12, "reset": 6}
    for relay, handshake in gone:
        assert relay.ends_with() == handshake.ends_with() == "reset"
    for relay, handshake in stay:
        assert relay.send(b"ping").read(4) == b"ping"
        assert wire.read_socks5_reply(handshake.send(wire.socks5("127.0.0.1", target.port)))[0] == 0
    assert failures(api, "client_denied") == 6
    assert api.post("/sessions/judge").json()["reset"] == 0
    assert process.wait_until(lambda: proxy.log().count("client denied by a list") == 6)
