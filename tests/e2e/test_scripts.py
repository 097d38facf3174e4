"""Scripts that run by themselves: --script, /scripts, and the SOCKS4 proxy in Lua with real clients.

SLUICE_SCRIPT_CONNECTIONS says how many connections it serves in search of leaks (default: 3000 in each mode)."""
import json
import os
import re
import signal
import struct
import subprocess

import pytest
import yaml

import origins
import process
import scripts
import wire
from conftest import ROOT, require
from test_api import disagreements

CONNECTIONS = int(os.environ.get("SLUICE_SCRIPT_CONNECTIONS", 3000 // process.SLOW))
MODES = ["script", "relay"]
SLEEPER = "while true do await.sleep(60) end"
ESTABLISHED_OR_HALF = [1, 3, 8]  # of TCP_ESTABLISHED, TCP_SYN_RECV, TCP_CLOSE_WAIT


class Scripted:
    """One sluice with an API, whose scripts are looked at over it."""

    def __init__(self, sluice, *args, **options):
        port = process.free_port()
        self.sluice = sluice("--api", f"127.0.0.1:{port}", *args, listen=options.pop("listen", None), ready=False, **options)
        self.api = scripts.Api(("127.0.0.1", port))
        self.ports = [port]
        assert process.wait_until(lambda: "API on" in self.sluice.log() or not self.sluice.alive(), 15), self.sluice.log()
        assert self.sluice.alive(), self.sluice.log()
        assert process.wait_until(self.answers)
        self.sluice.sockets_at_start = self.at_start()

    def answers(self):
        try:
            return self.api.get("/healthy").status == 200
        except OSError:
            return False

    def at_start(self, *ports):
        """Sockets that are there to stay: connections to the API, and to ports of scripts, have been closed."""
        self.ports += ports
        assert process.wait_until(lambda: not connections(self.ports))
        return self.sluice.sockets()

    def all(self):
        return {row["name"]: row for row in self.api.get("/scripts").json()["scripts"]}

    def post(self, name, source):
        return self.api.post("/scripts?name=" + name, source)

    def delete(self, name):
        return self.api.ask("DELETE", "/scripts/" + name)

    def becomes(self, name, state):
        """The row of a script when it is in that state."""
        assert process.wait_until(lambda: self.all()[name]["state"] == state), self.all()
        assert process.wait_until(lambda: state == "running" or self.all()[name]["memory"] == 0)
        return self.all()[name]


def connections(ports):
    """How many the servers at these ports have not closed yet: neither listening, nor waiting for the other side alone."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(int(row[1].split(":")[1], 16) in ports and int(row[3], 16) in ESTABLISHED_OR_HALF for row in rows)


@pytest.fixture
def scripted(sluice):
    return lambda *args, **options: Scripted(sluice, *args, **options)


def socks4_source(mode, port):
    """The shipped example, with this test's port."""
    with open(os.path.join(ROOT, "lua", "examples", "socks4_proxy.lua"), encoding="utf-8") as source:
        text = source.read()
    for old, new in [('"127.0.0.1", 8080', f'"127.0.0.1", {port}'), ('mode = "script"', f'mode = "{mode}"')]:
        assert old in text
        text = text.replace(old, new)
    return text


def listens(address):
    try:
        wire.Client(address).close()
        return True
    except OSError:
        return False


@pytest.fixture(params=MODES)
def socks4(request, scripted, tmp_path):
    """The SOCKS4 proxy in one of its modes, started with --script: (what runs it, its address)."""
    address = ("127.0.0.1", process.free_port())
    (tmp_path / "socks4.lua").write_text(socks4_source(request.param, address[1]))
    run = scripted("--script", str(tmp_path / "socks4.lua"), "--workers", "2")
    assert process.wait_until(lambda: listens(address))
    run.sluice.sockets_at_start = run.at_start(address[1])
    return run, address


def at_rest(run, name="socks4"):
    """Nothing but the listener is left, in the script, among the sessions, and among the descriptors."""
    def quiet():
        row = run.all()[name]
        return row["sockets"] == 1 and row["coroutines"] == 1 and not run.api.get("/sessions").json()["sessions"]
    assert process.wait_until(quiet), (run.all(), run.api.get("/sessions").text)
    assert run.sluice.flat(), (run.sluice.sockets(), run.sluice.sockets_at_start)
    return run.all()[name]


# --- the SOCKS4 proxy ---

def test_curl(origin, socks4):
    run, address = socks4
    curl, target = require("curl", "curl"), origin(origins.pages)
    for way, host in [("--socks4", "127.0.0.1"), ("--socks4a", "127.0.0.1"), ("--socks4a", "localhost")]:
        done = subprocess.run([curl, "-sS", "-m", "20", way, "%s:%d" % address, f"http://{host}:{target.port}/{way}"],
                              capture_output=True, check=False)
        assert done.stdout == b"page /" + way.encode(), (way, host, done.stderr)
    at_rest(run)


def test_every_octet_arrives(load, load_origin, socks4):
    run, address = socks4
    for way in ["socks4", "socks4a"]:
        subprocess.run([load, "verify", "--target", f"127.0.0.1:{load_origin + 5}", "--via", way, "--proxy", "%s:%d" % address,
                        "--flows", "8", "--bytes", str(2 << 20)], check=True, stdout=subprocess.DEVNULL, timeout=120)
    at_rest(run)


def test_a_thousand_clients(load_origin, socks4):
    run, address = socks4
    count = 1000 // process.SLOW
    clients = [wire.through_socks4a(address, "127.0.0.1", load_origin, timeout=60) for _ in range(count)]
    process.becomes(lambda: run.all()["socks4"]["sockets"], 1 if is_relayed(run) else 2 * count + 1)
    assert run.all()["socks4"]["state"] == "running"
    for number, client in enumerate(clients):
        client.send(b"%6d" % number)
    for number, client in enumerate(clients):
        assert client.read(6) == b"%6d" % number
    for client in clients:
        client.close()
    at_rest(run)


def is_relayed(run):
    return bool(run.api.get("/sessions?limit=1").json()["sessions"])


MALFORMED = [
    b"\5\1\0", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 9, b"\4\1\0\0\x7f\0\0\1\0",  # not SOCKS4; no port
    b"\4\2\0\x50\x7f\0\0\1\0", b"\4\x63\0\x50\x7f\0\0\1\0",  # BIND, and what is no command
    b"\4\1\0\x50\0\0\0\0\0", b"\4\1\0\x50\0\0\0\1\0\0",  # no address, no name
    b"\4\1\0\x50\x7f\0\0\1" + b"u" * 300, b"\4\1\0\x50\0\0\0\1\0" + b"n" * 300,  # without an end
    b"\4\1\0\x50\0\0\0\1\0no such name\0", os.urandom(1).replace(b"\4", b"\3") + os.urandom(5000),
]


def test_malformed_requests_are_refused_in_order(socks4):
    run, address = socks4
    for request in MALFORMED:
        client = wire.Client(address).send(request)
        assert client.read_all() == wire.SOCKS4_REJECTED, request
        client.close()
    refused = ("127.0.0.1", process.free_port())  # nobody listens there
    client = wire.Client(address).send(wire.socks4(*refused))
    assert client.read_all() == wire.SOCKS4_REJECTED
    client.close()
    for request in [b"", b"\4", wire.socks4(*refused)[:-1]]:  # the client goes in the middle
        wire.Client(address).send(request).close()
        wire.Client(address).send(request).reset()
    at_rest(run)
    assert run.all()["socks4"]["last_error"] is None


def test_nothing_leaks(load, load_origin, socks4):
    run, address = socks4

    def connect(at_least, how):
        """Complete connections, one octet there and back each; clients that fail are an error."""
        count = 0
        while count < at_least:
            done = subprocess.run(
                [load, "connect", "--target", f"127.0.0.1:{load_origin}", "--via", "socks4a", "--proxy", "%s:%d" % address,
                 "--flows", "64", "--seconds", str(min(20.0, max(0.2, (at_least - count) / 5000))), "--warmup", "0", "--close", how],
                check=True, capture_output=True, timeout=120)
            result = json.loads(done.stdout.splitlines()[-1])
            assert result.get("errors", 0) == 0 and result.get("failed", 0) == 0, result
            count += result["count"]
        return count

    connect(CONNECTIONS // 4, "reset")
    warm, resident = at_rest(run), run.sluice.rss()
    count = connect(CONNECTIONS // 2, "reset") + connect(CONNECTIONS // 2, "orderly")
    row = at_rest(run)
    print(f"{count} connections: script {warm['memory']} to {row['memory']} octets, process {resident} to {run.sluice.rss()},",
          f"{run.sluice.sockets()} sockets, {run.sluice.descriptors()} descriptors")
    assert row["memory"] < 2 * warm["memory"] + (1 << 20), (warm, row)  # garbage is collected when as much has gathered
    assert process.SANITIZED or run.sluice.rss() < resident + (8 << 20)
    assert row["last_error"] is None


def test_deleted_while_clients_are_connected(load_origin, socks4):
    run, address = socks4
    clients = [wire.through_socks4(address, "127.0.0.1", load_origin) for _ in range(20)]
    half = [wire.Client(address).send(b"\4\1") for _ in range(5)]
    for client in clients:
        client.send(b"x")
        assert client.read(1) == b"x"
    assert run.delete("socks4").status == 204
    for client in clients + half:
        assert client.ends_with() in ("end", "reset")
        client.close()
    assert process.wait_until(lambda: not listens(address)) and run.all() == {}
    assert process.wait_until(lambda: not run.api.get("/sessions").json()["sessions"])
    run.sluice.sockets_at_start -= 1  # its listener
    assert run.sluice.flat()
    # Again, over the API this time.
    assert run.post("socks4", socks4_source("script", address[1])).status == 201
    client = wire.through_socks4(address, "127.0.0.1", load_origin).send(b"y")
    assert client.read(1) == b"y"
    client.close()
    assert run.delete("socks4").status == 204


# --- the API ---

def test_posted_scripts(scripted):
    run = scripted()
    assert run.all() == {}
    answer = run.post("broken", "local x = = 1")
    assert answer.status == 400 and answer.text == "broken:1: unexpected symbol near '='" and run.all() == {}
    answer = run.post("raises", "\n\nsocket.new('i', 't'):bind('192.0.2.1', 5)")
    assert answer.status == 500 and answer.text == "raises:3: bind: EADDRNOTAVAIL (Cannot assign requested address)"
    row = run.becomes("raises", "failed")
    assert row["last_error"] == answer.text and row["sockets"] == row["coroutines"] == 0
    assert run.post("raises", "return 1").status == 201  # a failed one does not hold its name
    assert run.becomes("raises", "finished")["last_error"] is None
    assert run.post("sleeps", SLEEPER).status == 201
    row = run.all()["sleeps"]
    assert row["state"] == "running" and row["coroutines"] == 1 and 10000 < row["memory"] < 1000000
    answer = run.post("sleeps", SLEEPER)
    assert answer.status == 409 and "is running" in answer.text
    for bad in ["", "?name=", "?name=..", "?name=a%2Fb", "?name=" + "n" * 65, "?name=a%20b"]:
        assert run.api.post("/scripts" + bad, SLEEPER).status == 400
    assert run.api.ask("PUT", "/scripts").status == 405
    assert run.api.ask("PUT", "/scripts").headers["allow"] == "GET, HEAD, POST"
    assert run.delete("sleeps").status == 204 and run.delete("sleeps").status == 404
    assert run.delete("a%2Fb").status == 404
    assert list(run.all()) == ["raises"]
    with open(os.path.join(ROOT, "docs", "openapi.yaml"), encoding="utf-8") as text:
        schemas = yaml.safe_load(text)["components"]["schemas"]
    assert list(disagreements(run.api.get("/scripts").json(), schemas["Scripts"], schemas, "Scripts")) == []
    log = run.sluice.log()
    assert re.search(r"api: 127\.0\.0\.1:\d+: /scripts start sleeps, sha256 [0-9a-f]{64}", log)
    assert re.search(r"api: 127\.0\.0\.1:\d+: /scripts end sleeps, sha256 ", log)
    assert log.count("script raises: failed: raises:3: bind: EADDRNOTAVAIL") == 1


def test_metrics(scripted):
    run = scripted()
    assert "sluice_script" not in run.api.get("/metrics").text
    run.post("sleeps", "s = socket.new('i', 'u')\n" + SLEEPER)
    run.post("a.b-c", "error()")
    run.becomes("a.b-c", "failed")
    text = run.api.get("/metrics").text
    samples = dict(re.findall(r"^sluice_script_(\S+) (\d+)$", text, re.MULTILINE))
    memory = int(samples.pop('memory_bytes{script="sleeps"}'))
    assert 10000 < memory < 1000000 and samples == {
        'running{script="sleeps"}': "1", 'running{script="a.b-c"}': "0", 'failed{script="sleeps"}': "0",
        'failed{script="a.b-c"}': "1", 'memory_bytes{script="a.b-c"}': "0", 'sockets{script="sleeps"}': "1",
        'sockets{script="a.b-c"}': "0"}
    assert run.delete("sleeps").status == 204
    done = subprocess.run([require("promtool", "prometheus"), "check", "metrics"], input=text, text=True, capture_output=True,
                          check=False)
    assert done.returncode == 0 and not [line for line in done.stdout.splitlines() if "sluice_script" in line], done.stdout


def test_profiles_see_all_scripts(scripted):
    """Whoever asks: the API, or another script, which may be ended meanwhile."""
    run = scripted()
    work = """
        local function spin() local till = time.monotonic() + 0.02 while time.monotonic() < till do end end
        while true do spin() await.sleep(0.005) end"""
    assert run.post("busy", work).status == 201
    assert re.search(r"\bspin busy:2[ ;]", run.api.post("/profile?seconds=1").text, re.MULTILINE)
    assert run.post("asks", "error(sluice.profile(1), 0)").status == 201
    assert re.search(r"\bspin busy:2[ ;]", run.becomes("asks", "failed")["last_error"], re.MULTILINE)
    assert run.post("asks", "sluice.profile(60)").status == 201
    assert run.api.post("/profile?seconds=1").status == 409
    assert run.delete("asks").status == 204
    assert run.delete("busy").status == 204
    assert "spin busy" not in run.api.post("/profile?seconds=1").text


def test_ended_and_started_again(scripted):
    """The same port, one call after the other: nothing of the one that was ended holds it."""
    run, port = scripted(), process.free_port()
    source = f"""
        local server <close> = socket.new("inet", "tcp")
        server:bind("127.0.0.1", {port})
        server:listen(5)
        while true do server:accept() end"""
    for _ in range(50):
        answer = run.post("server", source)
        assert answer.status == 201, answer.text
        assert listens(("127.0.0.1", port))
        assert run.delete("server").status == 204


def test_scopes(sluice, tmp_path):
    (tmp_path / "tokens").write_text("reader read\nboss admin\n")
    os.chmod(tmp_path / "tokens", 0o600)
    port = process.free_port()
    sluice("--api", f"127.0.0.1:{port}", "--api-token-file", str(tmp_path / "tokens"))
    api = scripts.Api(("127.0.0.1", port))

    def ask(method, path, token, body=None):
        return api.ask(method, path, body, {"Authorization": "Bearer " + token} if token else {}).status

    assert [ask("GET", "/scripts", token) for token in ("", "reader", "boss")] == [401, 200, 200]
    assert [ask("POST", "/scripts?name=s", token, SLEEPER) for token in ("", "reader", "boss")] == [401, 403, 201]
    assert [ask("DELETE", "/scripts/s", token) for token in ("", "reader", "boss")] == [401, 403, 204]


# --- the command line ---

def test_what_cannot_start(tmp_path):
    (tmp_path / "broken.lua").write_text("x = 1\nlocal = 2\n")
    (tmp_path / "good.lua").write_text(SLEEPER)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "good.lua").write_text(SLEEPER)
    missing, broken, good = (str(tmp_path / name) for name in ("missing.lua", "broken.lua", "good.lua"))
    wrong = [([missing], f"--script {missing}: cannot read {missing}: No such file or directory"),
             ([str(tmp_path)], "Is a directory"),
             ([good, broken], "broken.lua:2: <name> expected near '='"),
             ([good, str(tmp_path / "more" / "good.lua")], "there is a script named good already, rename the file")]
    for files, words in wrong:
        args = [word for file in files for word in ("--script", file)]
        for check in ([], ["--check"]):
            code, output, errors = process.run(*args, *check)
            assert code == 1 and words in errors and len(errors.splitlines()) == 1 and output == "", (args, errors)
    assert process.run("--script", good, "--check") == (0, "configuration is valid\n", "")
    assert process.run("--script", "", "--check")[0] == 1


def test_one_that_raises_ends_alone(scripted, tmp_path):
    (tmp_path / "raises.lua").write_text("local function deep() error('too deep') end\nawait.sleep(0.05)\ndeep()\nreturn 1\n")
    (tmp_path / "sleeps.lua").write_text(SLEEPER)
    args = [word for name in ("raises", "sleeps") for word in ("--script", str(tmp_path / f"{name}.lua"))]
    run = scripted(*args, "--traceback")
    row = run.becomes("raises", "failed")
    assert "/raises.lua:1: too deep\nstack traceback:\n" in row["last_error"]
    assert "/raises.lua:3: in main chunk" in row["last_error"]
    assert run.all()["sleeps"]["state"] == "running" and run.api.get("/healthy").status == 200
    assert len(re.findall("script raises: failed: .*/raises.lua:1: too deep$", run.sluice.log(), re.MULTILINE)) == 1
    assert re.search("script raises:   .*/raises.lua:3: in main chunk", run.sluice.log())


def test_a_long_error_takes_32_lines_of_the_log(scripted, tmp_path):
    (tmp_path / "long.lua").write_text("error(('line\\n'):rep(50), 0)")
    run = scripted("--script", tmp_path / "long.lua")
    assert run.becomes("long", "failed")["last_error"].count("line") == 50
    assert process.wait_until(lambda: len(re.findall("script long: (failed: | *)line$", run.sluice.log(), re.MULTILINE)) == 32)


def test_alone_and_stopped(sluice, tmp_path):
    """Neither a listener nor an API; a script that waits does not hold up the stop, nor does one that wants to go on."""
    port = process.free_port()
    (tmp_path / "echo.lua").write_text(f"""
        local server <close> = socket.new("inet", "tcp")
        server:bind("127.0.0.1", {port})
        server:listen(9)
        local stubborn <close> = setmetatable({{}}, {{__close = function() await.sleep(60) end}})
        while true do
            local client = server:accept()
            neosocksd.async(function() client:close() end, function() while client:send(client:receive(1)) do end end)
        end""")
    proxy = sluice("--script", str(tmp_path / "echo.lua"), listen=None, ready=False)
    assert process.wait_until(lambda: listens(("127.0.0.1", port))), proxy.log()
    client = wire.Client(("127.0.0.1", port)).send(b"hello")
    assert client.read(5) == b"hello"
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0 and client.ends_with() in ("end", "reset")


def test_updates_and_reloads_do_not_touch_it(scripted, tmp_path, load_origin):
    address, rules = ("127.0.0.1", process.free_port()), "return {route = function(a) return a end}"
    (tmp_path / "rules.lua").write_text(rules)
    (tmp_path / "socks4.lua").write_text(socks4_source("script", address[1]))
    run = scripted("-r", str(tmp_path / "rules.lua"), "--script", str(tmp_path / "socks4.lua"), listen="127.0.0.1")
    client = wire.through_socks4(address, "127.0.0.1", load_origin)
    for number in range(50):
        assert run.api.update(rules) and (number % 10 or run.api.post("/ruleset/gc").status == 200)
        if number % 10 == 0:
            run.sluice.signal(signal.SIGHUP)
        client.send(struct.pack("!I", number))
        assert client.read(4) == struct.pack("!I", number)
    other = wire.through_socks5(run.sluice.address, "127.0.0.1", load_origin).send(b"by the ruleset")
    assert other.read(14) == b"by the ruleset"
    assert run.all()["socks4"]["state"] == "running"
    client.close()
    other.close()


def test_what_they_may_use(scripted):
    budget = 500 * process.SLOW  # the memory is filled long before
    run = scripted("--memlimit", "16", "--lua-budget", str(budget))
    answer = run.post("greedy", "local all = {} while true do all[#all + 1] = ('x'):rep(100000) .. #all end")
    assert answer.status == 500 and "not enough memory" in answer.text
    answer = run.post("loops", "await.sleep(0)\nwhile true do end")
    assert answer.status == 201
    assert f"loops:2: time budget of {budget} ms exceeded" in run.becomes("loops", "failed")["last_error"]
    assert run.post("modest", SLEEPER).status == 201
