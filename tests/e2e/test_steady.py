"""Rulesets under load: updates while thousands of clients come, decisions that wait, clients that do not."""
import json
import os
import resource
import subprocess
import time

import pytest

import origins
import process
import wire
from test_limits import serves
from test_ruleset import DIRECT, refused

# Decisions of all kinds, so that updates meet some that are under way.
KINDS = [
    DIRECT,
    "local function f(a) await.sleep(0) return a end return { resolve = f, route = f, route6 = f }",
    "local function f(a) await.forward(a) end return { resolve = f, route = f, route6 = f }",
    "_G.libruleset = require('libruleset') return libruleset",
]
BROKEN = ["return nonsense(", "error('on purpose')", "return 5", "while true do end"]


def churn(load, proxy, target, seconds):
    return subprocess.Popen([load, "connect", "--via", "socks5", "--proxy", proxy.url, "--target", f"127.0.0.1:{target}",
                             "--flows", "32", "--seconds", str(seconds), "--timeout", "30"], stdout=subprocess.PIPE, text=True)


def update_while(running, api):
    """Updates one after the other until it ends; each fifth is a broken one, which is refused."""
    good = bad = 0
    while running.poll() is None:
        if (good + bad) % 5 == 4:
            answer = api.post("/ruleset/update", BROKEN[bad % len(BROKEN)])
            assert answer.status == 500, answer.text
            bad += 1
        else:
            api.update(KINDS[good % len(KINDS)] + f" -- {good}")
            good += 1
    return good, bad


def test_200_updates_under_load(ruled, load, load_origin):
    """Connections as fast as they can be made, and not one of them fails. How many, bench/ measures."""
    proxy, api = ruled(DIRECT, "--lua-budget", str(10 * process.SLOW))
    updates = count = rounds = 0
    while updates < 200 or count < 1000:
        rounds += 1
        assert rounds <= 30, (updates, count)
        with churn(load, proxy, load_origin, 4) as running:
            good, bad = update_while(running, api)
            result = json.loads(running.stdout.read().splitlines()[-1])
        assert result["errors"] == result["timeouts"] == 0, result
        assert good > 0 and bad > 0
        updates += good
        count += result["count"]
    assert api.get("/stats?format=json").json()["ruleset"]["revision"] == updates + 1


def test_thousands_that_wait(ruled, origin):
    """Decisions that sleep cost memory alone; others are served meanwhile as if they were not there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 300 if process.SANITIZED else min(10000, hard // 2 - 1100)  # what descriptors suffice for, of both workers
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        target = origin()
        proxy, api = ruled("_G.over = false return { route = function(a) if a:find('^192') then "
                           "repeat await.sleep(0.5) until over return nil end return a end }", "--no-conn-cache",  # descriptors for sessions alone
                           "-t", "600")  # nobody is late, however long the thousands take to come
        before = proxy.rss()
        # Sources by the hundred: none of them may have more than its share.
        crowd = [wire.greet(wire.Client(proxy.address, timeout=60, source=(f"127.1.{i // 60}.1", 0))).send(
            wire.socks5("192.0.2.1", 9)) for i in range(count)]
        assert process.wait_until(lambda: api.call("return neosocksd.stats().num_thread_active") == f"return true,{count + 1}")
        if not process.SANITIZED:  # two pages of a head, one for the chain, and the coroutine
            assert proxy.rss() - before < count * 20480 + (8 << 20), f"{(proxy.rss() - before) / count:.0f} octets each"
        start = time.monotonic()
        for _ in range(20):
            assert serves(proxy, target)
        assert time.monotonic() - start < 20
        start, used = time.monotonic(), proxy.cpu()
        time.sleep(1)
        used = proxy.cpu() - used
        assert used < 0.5 * process.SLOW * (time.monotonic() - start)  # each looks twice a second whether it is over
        api.call("_G.over = true")
        for client in crowd:
            assert client.read_all() == wire.socks5_failure(1)
            client.close()
        assert proxy.flat(20)
        assert process.wait_until(lambda: api.call("return neosocksd.stats().num_thread_active") == "return true,1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- clients that go away ---

@pytest.mark.parametrize("operation", ["sleep", "resolve", "invoke", "execute", "future"])
def test_client_that_goes_away_ends_what_is_awaited(ruled, dns, origin, tmp_path, operation):
    names, mark, ends = dns(), tmp_path / "pid", []
    names.silent.add("silent.test")

    def silent_peer(_, connection):
        connection.settimeout(30)
        while connection.recv(65536):
            pass
        ends.append(1)

    await_it = {
        "sleep": "await.sleep(600)",
        "resolve": "await.resolve('silent.test')",
        "invoke": f"await.invoke('return 1', '127.0.0.1:{origin(silent_peer).port}')",
        "execute": f"await.execute('echo $$ > {mark}.new; mv {mark}.new {mark}; sleep 600')",
        "future": "async(await.sleep, 600):get()",
    }[operation]
    proxy, api = ruled(f"""
        _G.libruleset, _G.closed, _G.behind = require("libruleset"), 0, 0
        return {{ route = function(addr)
            local guard <close> = setmetatable({{}}, {{ __close = function() closed = closed + 1 end }})
            {await_it}
            behind = behind + 1
        end }}""", "--nameserver", names.text)
    client = wire.greet(wire.Client(proxy.address)).send(wire.socks5("192.0.2.1", 9))
    waiting = 3 if operation == "future" else 2  # the call itself is one
    assert process.wait_until(lambda: api.call("return neosocksd.stats().num_thread_active") == f"return true,{waiting}")
    if operation == "execute":
        assert process.wait_until(mark.exists)
    client.reset()
    assert process.wait_until(lambda: api.call("return closed, behind") == "return true,1,0")
    assert process.wait_until(lambda: api.call("return neosocksd.stats().num_thread_active") == f"return true,{waiting - 1}")
    if operation == "execute":
        assert process.wait_until(lambda: not os.path.exists(f"/proc/{mark.read_text().strip()}"))
    if operation == "invoke":
        assert process.wait_until(lambda: ends)
    assert api.get("/healthy").status == 200
    assert proxy.flat(20)  # the resolver goes on to ask for its ten seconds


def test_client_that_goes_away_while_it_is_dialled(ruled, blackhole):
    """await.forward ends as well, and what is behind it runs on, for nobody."""
    proxy, api = ruled(f"_G.seen = {{}} return {{ route = function(a) seen[1], seen[2] = await.forward('127.0.0.2:{blackhole().port}') "
                       "seen[3] = pcall(await.forward, a) return a end }")
    client = wire.greet(wire.Client(proxy.address)).send(wire.socks5("192.0.2.1", 9))
    assert process.wait_until(lambda: api.call("return neosocksd.stats().num_thread_active") == "return true,2")
    time.sleep(0.3)
    client.reset()
    assert process.wait_until(lambda: api.call("return table.unpack(seen)") == 'return true,false,"request cancelled",false')
    assert proxy.flat()


# --- scripts that misbehave, all at once ---

def test_misbehaving_scripts_side_by_side(ruled, origin):
    """Throws, loops, allocates, yields and is abandoned, while others are served."""
    target = origin()
    proxy, api = ruled("""
        local bad = {}
        function bad.throws() error("thrown") end
        function bad.loops() while true do end end
        function bad.allocates() local t = {} while true do t[#t + 1] = ("x"):rep(100000) .. #t end end
        function bad.recurses() local function f() return 1 + f() end return f() end
        function bad.yields() coroutine.yield("nobody resumes it") end
        function bad.waits() await.sleep(0.2) error("thrown later") end
        return { route = function(a) return a end, resolve = function(a) return bad[a:match("^%w+")]() end }""",
                       "--memlimit", "128", "--lua-budget", "100")
    running = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    kinds = [b"throws", b"loops", b"allocates", b"recurses", b"waits"]
    crowd = [wire.greet(wire.Client(proxy.address, timeout=60)).send(wire.socks5(kind, 80)) for kind in kinds * 2]
    abandoned = [wire.greet(wire.Client(proxy.address, timeout=60)).send(wire.socks5(b"yields", 80)) for _ in range(3)]
    for _ in range(10):
        assert serves(proxy, target)
    for client in crowd:
        assert client.read_all() == wire.socks5_failure(1)
        client.close()
    assert process.wait_until(lambda: api.post("/ruleset/gc").status == 200 and "abandoned" in proxy.log())
    for client in abandoned:
        assert client.read_all() == wire.socks5_failure(1)
        client.close()
    running.send(b"still here")
    assert running.read(10) == b"still here"
    for part in ["thrown", "time budget of 100 ms exceeded", "thrown later"]:  # memory and stack may take longer than that
        assert part in proxy.log(), part
    assert serves(proxy, target)
    running.close()


def test_failover_when_the_first_chain_is_dead(ruled, sluice, origin):
    """libruleset.failover: dead, refusing, then one that works; and none that does."""
    target, hop, dead = origin(), sluice(), process.free_port()
    refusing = sluice("--block-outbound", "loopback")
    proxy, api = ruled(f"""
        _G.libruleset = require("libruleset")
        local ruleset = setmetatable({{}}, {{ __index = function(_, k) return libruleset[k] end }})
        function ruleset.route(addr)
            local chains = {{ {{ "socks5://127.0.0.1:{dead}" }}, {{ "http://127.0.0.1:{refusing.port}" }} }}
            if addr:find(":{target.port}$") then table.insert(chains, {{ "socks5://127.0.0.1:{hop.port}" }}) end
            _G.worked = libruleset.failover(addr, chains)
        end
        return ruleset""")
    for _ in range(5):
        client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
        client.send(b"in the end")
        assert client.read(10) == b"in the end"
        assert api.get("/sessions").json()["sessions"][0]["chain"] == [f"socks5://127.0.0.1:{hop.port}"]
        client.close()
        assert process.wait_until(lambda: api.get("/sessions").json()["sessions"] == [])
    process.becomes(lambda: api.call("return worked"), "return true,true")
    refused(proxy, "127.0.0.1", origin().port, code=2)  # as the last one of them said
    assert api.call("return worked") == "return true,false"
