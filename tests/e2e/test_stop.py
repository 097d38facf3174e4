"""Stopping, and being asked how it is, whatever scripts and callers of the API are doing at that moment."""
import contextlib
import ctypes
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

import origins
import process
import scripts
import wire

DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end }"
FOR_EVER = ("--lua-budget", "60000")  # no test lasts as long
LOOP = "while true do end"
DRAIN = 2 + process.SLOW  # seconds: what is to happen meanwhile has time enough
GRACEFUL = "server shutdown gracefully"


def invoke_and_leave(api, code):
    """Whoever asks does not wait: the answer may never come."""
    client = wire.Client(api.address)
    client.send(b"POST /ruleset/invoke HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(code), code.encode()))
    return client


def hold(api, code):
    """Returns when Lua is stuck in that code."""
    client = invoke_and_leave(api, code)
    assert process.wait_until(lambda: api.get("/ready").status == 503), "Lua is not held"
    return client


def stops_within(proxy, seconds):
    start = time.monotonic()
    proxy.signal(signal.SIGTERM)
    assert proxy.wait(seconds + 10) == 0
    took = time.monotonic() - start
    assert took < seconds + 5, f"{took:.2f} s\n" + proxy.log()


@contextlib.contextmanager
def started(*words, **options):
    """The program by itself; killed at the end, whatever came of it."""
    child = subprocess.Popen([process.BINARY, *map(str, words)], **options)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


# --- a script that does not return ---

# A loop of the virtual machine, a C function, a read that waits for the kernel, a finalizer.
HELD = {"loop": LOOP, "c": "io.popen('exec sleep 1000'):read()", "fifo": "io.open(FIFO):read()",
        "gc": "setmetatable({}, {__gc = function() while true do end end}) collectgarbage()"}


@pytest.mark.parametrize("kind", HELD)
def test_stop_while_lua_is_held(ruled, tmp_path, kind):
    os.mkfifo(tmp_path / "fifo")
    proxy, api = ruled(f"FIFO = '{tmp_path}/fifo' " + DIRECT, *FOR_EVER)
    client = hold(api, HELD[kind])
    for path in ("/healthy", "/ready"):
        answer = api.get(path)
        assert answer.status == 503
        assert re.fullmatch(r"Lua is stuck: the ruleset has been running for \d+\.\d s", answer.text), answer.text
    stops_within(proxy, 1)
    assert re.search(r"stopped by force: the ruleset did not return for \d+\.\d s;.* 0 sessions were reset", proxy.log())
    assert "gracefully" not in proxy.log()
    client.close()


def test_the_stuck_script_is_named(sluice, tmp_path):
    (tmp_path / "spins.lua").write_text(f"await.sleep(0.2) io.open('{tmp_path}/begun', 'w'):close() " + LOOP)
    proxy = sluice("--script", tmp_path / "spins.lua", *FOR_EVER)
    assert process.wait_until((tmp_path / "begun").exists)
    stops_within(proxy, 1)
    assert "stopped by force: script spins did not return" in proxy.log()


def test_sessions_are_drained_while_lua_is_held(ruled, origin, tmp_path):
    """Relays run on, nobody new gets in, what is left is reset in time: none of it waits for the coordinator."""
    proxy, api = ruled("sluice.cache = nil " + DIRECT, "-l", f"unix:{tmp_path}/socks", "--drain", str(DRAIN), *FOR_EVER)
    target = origin()
    first, second = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(2)]
    client = hold(api, LOOP)
    start = time.monotonic()
    proxy.signal(signal.SIGTERM)
    assert process.wait_until(lambda: "stopping: no new connections" in proxy.log())
    assert api.get("/ready").text == "stopping"
    assert process.wait_until(lambda: socket.socket().connect_ex(proxy.address) != 0), "it still accepts"
    for one in (first, second):
        one.send(b"x")
        assert one.read(1) == b"x"
    first.shut()
    assert first.read_all() == b""
    assert second.ends_with() == "reset"
    assert proxy.wait() == 0
    assert DRAIN - 0.2 < time.monotonic() - start < DRAIN + 6
    assert "did not return" in proxy.log() and "1 sessions were reset" in proxy.log()
    assert not os.path.exists(tmp_path / "socks")
    client.close()


def test_a_second_signal_does_not_wait_for_the_drain(ruled, origin):
    proxy, api = ruled(DIRECT, "--drain", "60", *FOR_EVER)
    session = wire.through_socks5(proxy.address, "127.0.0.1", origin().port)
    client = hold(api, LOOP)
    proxy.signal(signal.SIGTERM)
    assert process.wait_until(lambda: "stopping" in proxy.log())
    stops_within(proxy, 1)
    assert session.ends_with() == "reset"
    client.close()


@pytest.mark.parametrize("option", ["-r", "-c", "--script"])
def test_stop_while_a_script_starts(tmp_path, option):
    (tmp_path / "boot.lua").write_text(f"io.open('{tmp_path}/begun', 'w'):close() " + LOOP)
    words = ["-l", f"127.0.0.1:{process.free_port()}", option, tmp_path / "boot.lua", *FOR_EVER]
    with started(*words, stderr=subprocess.PIPE, text=True) as child:
        assert process.wait_until((tmp_path / "begun").exists)
        start = time.monotonic()
        child.terminate()
        assert child.wait(20) == 0
        assert time.monotonic() - start < 6
        assert "stopped by force" in child.stderr.read()


def test_stop_while_a_reload_waits_for_the_tokens(sluice, tmp_path):
    """Their file is a pipe that nobody writes to, or on a server that does not answer."""
    tokens, port = tmp_path / "tokens", process.free_port()
    tokens.write_text("secret\n")
    proxy = sluice("--api", f"127.0.0.1:{port}", "--api-token-file", tokens)
    api = scripts.Api(("127.0.0.1", port))
    tokens.unlink()
    os.mkfifo(tokens)
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: api.get("/ready").status == 503), "the coordinator is not held"
    assert "the coordinator has been running" in api.get("/healthy").text
    stops_within(proxy, 1)


@pytest.mark.parametrize("option", ["-r", "-c"])
def test_stop_before_the_workers_run(tmp_path, option):
    """The script returns in time: the workers start, find that they are to stop, and do. Where the machine gave them no time
    within the grace they were cut: once in order is enough."""
    begun, script, logs = tmp_path / "begun", tmp_path / "slow.lua", []
    script.write_text(f"io.open('{begun}', 'w'):close() os.execute('sleep 0.2') "
                      f"return {{ listen = '127.0.0.1:0' }}")
    listen = ("-l", "127.0.0.1:0") if option == "-r" else ()
    while not (logs and logs[-1].endswith(GRACEFUL + "\n")):
        assert len(logs) < 5, logs[-1]
        begun.unlink(missing_ok=True)
        with started(*listen, option, script, stderr=subprocess.PIPE, text=True) as child:
            assert process.wait_until(begun.exists)
            child.send_signal(signal.SIGTERM)
            logs.append(child.communicate(timeout=20)[1])
            assert child.returncode == 0
    assert "stopped by force" not in logs[-1]


def test_stop_with_a_log_that_nobody_reads(tmp_path):
    """stderr is a pipe, and full: the last line cannot be written, and the process ends all the same."""
    (tmp_path / "boot.lua").write_text("await.sleep(0.3) while true do print(('x'):rep(4000)) end")
    reading, writing = os.pipe()
    words = ["-l", f"127.0.0.1:{process.free_port()}", "--script", tmp_path / "boot.lua", *FOR_EVER]
    with started(*words, stdout=writing, stderr=writing) as child:
        assert process.wait_until(lambda: not select.select([], [writing], [], 0)[1]), "it is not full"
        os.close(writing)
        start = time.monotonic()
        child.terminate()
        assert child.wait(20) == 0
        assert time.monotonic() - start < 6
    os.close(reading)


def test_a_forced_end_has_the_status_that_was_asked_for(sluice, tmp_path):
    """The end itself is held, by a finalizer."""
    (tmp_path / "ends.lua").write_text(
        f"kept = setmetatable({{}}, {{__gc = function() {LOOP} end}}) await.sleep(0.2) os.exit(7)")
    proxy = sluice("--script", tmp_path / "ends.lua", *FOR_EVER)
    proxy.expected_exit = 7
    assert proxy.wait() == 7
    assert "script ends did not return" in proxy.log()


PTRACE = ctypes.CDLL(None, use_errno=True).ptrace
PTRACE.argtypes, PTRACE.restype = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p], ctypes.c_long
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000


@contextlib.contextmanager
def standing_still(proxy, name):
    """The thread of that name gets no time at all, as on a very busy machine."""
    folder = f"/proc/{proxy.pid}/task"
    thread = next(int(task) for task in os.listdir(folder) if open(f"{folder}/{task}/comm", encoding="ascii").read() == name + "\n")
    if PTRACE(PTRACE_SEIZE, thread, None, None) < 0:
        pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
    PTRACE(PTRACE_INTERRUPT, thread, None, None)
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        if PTRACE(PTRACE_DETACH, thread, None, None) < 0:
            os.waitpid(thread, WALL)  # it has ended, which is ours to see


def test_an_end_that_no_script_holds_has_time(sluice, origin, tmp_path):
    """A worker comes to its end long behind the grace that scripts have: its sessions' lines are written all the same."""
    proxy, target = sluice("--workers", "1", "--access-log", tmp_path / "log", "--access-log-format", "{command} {up}"), origin()
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    assert client.send(b"12345").read(5) == b"12345"
    with standing_still(proxy, "worker-0"):
        proxy.signal(signal.SIGTERM)
        time.sleep(2)
        assert proxy.alive(), proxy.log()
    assert client.ends_with() == "reset"
    assert proxy.wait() == 0
    assert "by force" not in proxy.log() and (tmp_path / "log").read_text() == "connect 5\n"


def test_an_end_that_takes_for_ever_is_cut(sluice):
    proxy = sluice("--workers", "1")
    with standing_still(proxy, "worker-0"):
        proxy.signal(signal.SIGTERM)
        assert proxy.says("stopped by force: ", 15)
    assert proxy.wait() == 0


def test_a_script_that_returns_in_time_is_waited_for(ruled):
    """Held for less than the grace: everything ends in order, once at least. A busy machine may take longer for it."""
    for _ in range(5):
        proxy, api = ruled(DIRECT)
        begun = os.path.join(os.path.dirname(proxy.log_path), "begun")
        client = invoke_and_leave(api, f"io.open('{begun}', 'w'):close() "
                                  "local t = time.monotonic() while time.monotonic() - t < 0.3 do end")
        assert process.wait_until(lambda: os.path.exists(begun))
        os.unlink(begun)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        client.close()
        if GRACEFUL in proxy.log():
            return
    raise AssertionError(proxy.log())


# --- liveness and readiness ---

def test_ready(ruled, origin, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    tokens.chmod(0o600)
    proxy, api = ruled(DIRECT, "--drain", "20", "--api-token-file", tokens)
    session = wire.through_socks5(proxy.address, "127.0.0.1", origin().port)
    for path in ("/ready", "/healthy"):  # whoever probes has no token
        assert [api.ask(method, path).status for method in ("GET", "HEAD")] == [200, 200]
    assert api.get("/stats").status == 401
    proxy.signal(signal.SIGTERM)
    assert process.wait_until(lambda: api.get("/ready").status == 503)
    assert api.get("/ready").text == "stopping" and api.get("/healthy").status == 200
    assert "gracefully" not in proxy.log()
    session.close()
    assert proxy.wait() == 0
    assert proxy.log().rstrip().endswith("server shutdown gracefully")


def test_ready_while_it_starts(ruled, tmp_path):
    """A script of --script holds the start: the API answers already, and says that nothing is served yet."""
    begun, go, script = tmp_path / "begun", tmp_path / "go", tmp_path / "script.lua"
    script.write_text(f"io.open('{begun}', 'w'):close() repeat local file = io.open('{go}') until file")
    proxy, api = ruled(None, "--script", script, "--lua-budget", "60000", ready=False)
    proxy.check_descriptors = False
    assert process.wait_until(begun.exists)
    answer = api.get("/ready")
    assert (answer.status, answer.text) == (503, "starting")
    go.touch()
    assert process.wait_until(lambda: api.get("/ready").status == 200)
    assert api.get("/ready").text == "ready"


def test_what_a_drain_resets_is_said(sluice, origin):
    proxy, target = sluice("--drain", "0.3", "--loglevel", "5"), origin(origins.hold)
    for client in [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(3)]:
        if proxy.alive():
            proxy.signal(signal.SIGTERM)
        assert client.ends_with() == "reset"
    assert proxy.wait() == 0
    log = proxy.log()
    assert "server stopped: 3 sessions were left when --drain was over, and reset" in log and "gracefully" not in log
    assert len(re.findall(r"\[\d+:\d+\] 127\.0\.0\.1:\d+: reset: the drain is over", log)) == 3


def test_ruleset_that_does_not_say_how_it_is(ruled):
    proxy, api = ruled("return { healthy = function() while hung do end return complaint end }", *FOR_EVER)
    assert api.get("/healthy").status == 200
    assert api.post("/ruleset/invoke", "_G.complaint = 'tired'").status == 200
    assert api.get("/healthy").text == "tired"
    assert api.post("/ruleset/invoke", "_G.hung = true").status == 200
    answer = api.get("/healthy")
    assert answer.status == 503 and answer.text != "tired"
    stops_within(proxy, 1)


def test_names_and_relays_and_the_api_while_lua_computes(ruled, origin):
    """A call that Lua keeps waiting is answered when its time is over, others at once."""
    proxy, api = ruled(DIRECT, "-t", "5", *FOR_EVER)
    session = wire.through_socks5(proxy.address, "127.0.0.1", origin().port)
    client = hold(api, LOOP)
    assert api.get("/nothing").status == 404 and api.get("/").status == 200
    start = time.monotonic()
    answer = api.get("/stats")
    assert answer.status == 504 and "Lua is stuck: the ruleset" in answer.text
    assert 4 < time.monotonic() - start < 30
    session.send(b"x")
    assert session.read(1) == b"x"
    stops_within(proxy, 1)
    client.close()


# --- calls whose clients have left ---

def rpcall(api, code):
    client = wire.Client(api.address)
    client.send(b"POST /ruleset/rpcall HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        scripts.RPC_TYPE.encode(), len(code), code.encode()))
    return client


def test_calls_whose_clients_have_left_hold_nothing(ruled):
    proxy, api = ruled(DIRECT, "-t", "60")
    proxy.check_descriptors = False  # some may be waiting for their answer still
    for _ in range(300):
        rpcall(api, "await.sleep(1000)").close()
    assert api.get("/healthy").status == 200
    assert api.call("return 1") == "return true,1"
    half_closed = rpcall(api, "await.sleep(0.3) return 2").shut()
    assert half_closed.read_all().endswith(b"return true,2")
    assert api.call("return neosocksd.stats().num_thread_active < 150") == "return true,true"  # the rest has been ended


def test_waiting_calls_leave_room(ruled):
    """As many callers as there is room for, all waiting, none gone: the operator and Prometheus get in."""
    proxy, api = ruled(DIRECT, "-t", "60")
    crowd = [rpcall(api, "await.sleep(1000)") for _ in range(128)]
    assert process.wait_until(lambda: api.get("/metrics").status == 200)
    refused = rpcall(api, "return 1")
    assert refused.read_head().startswith(b"HTTP/1.1 503")
    for path in ("/healthy", "/ready", "/stats", "/metrics", "/sessions"):
        assert api.get(path).status == 200
    for client in crowd:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()  # resets
    assert process.wait_until(lambda: api.post("/ruleset/rpcall", "return 1", {"Content-Type": scripts.RPC_TYPE}).status == 200)


# --- a stop in the middle of the API's work ---

def load_metrics(api):
    return api.get("/metrics").status


def load_json(api):
    return api.get("/stats?format=json").status


def load_calls(api):
    return api.post("/ruleset/rpcall", "await.sleep(0.05) return 1", {"Content-Type": scripts.RPC_TYPE}).status


def load_sessions(api):
    return api.get("/sessions").status


@pytest.mark.parametrize("load", [load_metrics, load_json, load_calls, load_sessions])
def test_stop_under_load(ruled, load):
    """No crash, and nothing but answers: 200, or 503 while it closes; connections end when it has. In order once at least:
    where the machine has no time for that within the grace it is cut."""
    logs = []
    for _ in range(3):
        proxy, api = ruled(DIRECT, "--workers", "2")
        statuses, stop = [], threading.Event()

        def client():
            while not stop.is_set():
                try:
                    statuses.append(load(api))
                except OSError:
                    return
                except scripts.http.client.HTTPException:
                    return

        crowd = [threading.Thread(target=client) for _ in range(8)]
        for one in crowd:
            one.start()
        assert process.wait_until(lambda: len(statuses) > 20)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0, proxy.log()
        stop.set()
        for one in crowd:
            one.join()
        assert set(statuses) <= {200, 503}
        logs.append(proxy.log())
    assert any(GRACEFUL in log for log in logs), logs
