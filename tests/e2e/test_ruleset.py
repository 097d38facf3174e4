"""Rulesets: what they are asked, what they may answer, and what becomes of those that misbehave."""
import gzip
import os
import select
import signal
import threading

import pytest

import origins
import process
import scripts
import wire
from conftest import ROOT
from test_limits import is_refused, serves

DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end, route6 = function(a) return a end }"
# Answers every callback by redirecting to the echo origin, and remembers what it was asked.
RECORDER = """
_G.asked = {}
local function handler(name)
    return function(addr, user, password)
        table.insert(_G.asked, table.concat({ name, addr, tostring(user), tostring(password) }, " "))
        return "127.0.0.1:%d"
    end
end
return { resolve = handler("resolve"), route = handler("route"), route6 = handler("route6") }
"""


def hello(origin, connection):
    origins.read_http_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def echoes(client):
    client.send(b"through the rules")
    assert client.read(17) == b"through the rules"
    client.close()


def refused(proxy, host="192.0.2.1", port=80, code=1):
    client = wire.greet(wire.Client(proxy.address)).send(wire.socks5(host, port))
    assert client.read_all() == wire.socks5_failure(code)
    client.close()


# --- callbacks ---

NO_NAMES = [b"a b", b"a/b", b"a\0b", b"a:80", b"[::1]", b"user@host", b"tab\there", b"unix:/run/x", b"#", b""]


@pytest.mark.parametrize("script", [None, RECORDER % 9], ids=["without", "with"])
def test_names_that_no_host_has_are_refused_unasked(ruled, script):
    """The host was not found, in each protocol's words; HTTP's grammar has no place for them, so that there it is a
    malformed request. A ruleset hears nothing, and an attacker cannot fill the log."""
    proxy, api = ruled(script, "--loglevel", "4")
    assert api.get("/healthy").status == 200  # it has said all that it says at the start
    before = len(proxy.log().splitlines())
    for name in NO_NAMES:
        refused(proxy, name, 80, 4)
        if b"\0" not in name:
            assert wire.Client(proxy.address).send(wire.socks4a(name, 80)).read_all() == wire.SOCKS4_REJECTED
        if not name.startswith(b"["):
            connect = wire.Client(proxy.address).send(b"CONNECT " + name + b":80 HTTP/1.1\r\n\r\n")
            assert wire.status_of(connect.read_all())[0] == 400
    assert len(proxy.log().splitlines()) == before
    failures = api.get("/stats?format=json").json()["failures"]
    assert failures["resolve"] == 2 * len(NO_NAMES) - 1
    if script:
        assert api.call("return #_G.asked") == "return true,0"


def test_what_callbacks_are_asked(ruled, origin):
    proxy, api = ruled(RECORDER % origin().port)
    echoes(wire.through_socks4(proxy.address, "192.0.2.9", 81))
    echoes(wire.through_socks4a(proxy.address, "Name.Example", 82))
    echoes(wire.through_socks5(proxy.address, "192.0.2.9", 83))
    echoes(wire.through_socks5(proxy.address, "2001:db8::1", 84))
    echoes(wire.through_socks5(proxy.address, b"Name.Example", 85))
    echoes(wire.through_socks5(proxy.address, b"192.0.2.9", 86))  # a name that reads as an address
    echoes(wire.through_socks5_auth(proxy.address, b"x", 87))
    echoes(wire.through_http(proxy.address, "192.0.2.9", 88))
    client = wire.Client(proxy.address).send(wire.http_connect("h", 89, wire.basic(b"u", b"p:q")))
    assert client.read(len(wire.HTTP_ESTABLISHED)) == wire.HTTP_ESTABLISHED
    echoes(client)
    assert api.call("return table.concat(asked, '\\n')") == 'return true,"' + "\\\n".join([
        "route 192.0.2.9:81  nil", "resolve Name.Example:82 someone nil", "route 192.0.2.9:83 nil nil",
        "route6 [2001:db8::1]:84 nil nil", "resolve Name.Example:85 nil nil", "resolve 192.0.2.9:86 nil nil",
        "resolve x:87 user secret", "resolve 192.0.2.9:88 nil nil", "resolve h:89 u p:q"]) + '"'


def test_forwarders_ask(ruled, origin):
    target, ports = origin(), [process.free_port() for _ in range(3)]
    proxy, api = ruled(RECORDER % target.port, "-l", f"127.0.0.1:{ports[0]}", "-f", ":", "-l", f"127.0.0.1:{ports[1]}",
                       "-f", "name:9", "-l", f"127.0.0.1:{ports[2]}", "-f", "192.0.2.1:8")
    for port in ports:
        echoes(wire.Client(("127.0.0.1", port)))
    assert api.call("return table.unpack(asked)") == (
        'return true,"resolve :0 nil nil","resolve name:9 nil nil","route 192.0.2.1:8 nil nil"')
    assert proxy.alive()


@pytest.mark.parametrize("decision", ["nil", "", "false", "{}", "'no port'", "'a:b'", "':1'", "'a:1', 'ftp://b:1'", "'a:1', 5",
                                      "'a:99999'", "('x'):rep(2000) .. ':1'"])
def test_bad_decisions_refuse(ruled, decision):
    proxy, _ = ruled(f"return {{ route = function(a) return {decision} end }}")
    refused(proxy)


def test_numbers_become_text(ruled, origin):
    proxy, _ = ruled(f"return {{ route = function(a) return setmetatable({{}}, {{}}) and '127.0.0.1:' .. {origin().port} end }}")
    echoes(wire.through_socks5(proxy.address, "192.0.2.1", 1))


@pytest.mark.parametrize("script,part", [
    ("return { route = function() error('on purpose') end }", "on purpose"),
    ("return { route = function() error({}) end }", "error object is not a string"),
    ("return { resolve = function(a) return a end }", "no function route"),
    ("return { route = 5 }", "attempt to call"),
    ("return { route = function() coroutine.yield() end }", "abandoned"),
])
def test_failing_callbacks_refuse(ruled, script, part):
    proxy, api = ruled(script)
    client = wire.greet(wire.Client(proxy.address)).send(wire.socks5("192.0.2.1", 80))
    collect = (lambda: api.post("/ruleset/gc")) if "yield" in script else (lambda: None)
    assert process.wait_until(lambda: (collect(), part in proxy.log())[1]), proxy.log()
    assert client.read_all() == wire.socks5_failure(1)
    if "yield" not in script:
        assert part in api.call("return neosocksd.stats().lasterror")


@pytest.mark.parametrize("way,reply", [
    ("http", lambda c: wire.status_of(c.read_all())[0] == 403), ("socks4", lambda c: c.read_all() == wire.SOCKS4_REJECTED)])
def test_refusals_of_other_protocols(ruled, way, reply):
    proxy, _ = ruled("return { resolve = function() end, route = function() end }")
    request = wire.http_connect("a", 1) if way == "http" else wire.socks4("192.0.2.1", 1)
    assert reply(wire.Client(proxy.address).send(request))


def test_chains(ruled, sluice, origin):
    target, hops = origin(), [sluice() for _ in range(2)]
    proxy, api = ruled(f"return {{ route = function(a) return a, 'http://127.0.0.1:{hops[1].port}', "
                       f"'socks5://127.0.0.1:{hops[0].port}' end }}", "--loglevel", "6")
    echoes(wire.through_socks5(proxy.address, "127.0.0.1", target.port))
    for hop in hops:
        assert process.wait_until(lambda hop=hop: not hop.sockets() > hop.sockets_at_start)
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    assert api.get("/sessions").json()["sessions"][0]["hops"] == 2
    client.close()


def test_dash_x_comes_first(ruled, sluice, origin):
    target, hops = origin(), [sluice() for _ in range(2)]
    proxy, _ = ruled(f"return {{ route = function(a) return a, 'socks5://127.0.0.1:{hops[1].port}' end }}", "-x",
                     f"socks4a://127.0.0.1:{hops[0].port}")
    echoes(wire.through_socks5(proxy.address, "127.0.0.1", target.port))


# --- await ---

def test_sleeping_decisions(ruled, origin):
    """Hundreds that wait cost memory alone, and nobody else notices them."""
    target = origin()
    proxy, api = ruled("return { route = function(a) if a:find('^192') then await.sleep(50) return nil end return a end }")
    crowd = [wire.greet(wire.Client(proxy.address)).send(wire.socks5("192.0.2.1", 9)) for _ in range(300)]
    for _ in range(20):
        assert serves(proxy, target)
    assert not select.select([client.socket for client in crowd], [], [], 0)[0], "they have waited for the others"
    for client in crowd:
        client.reset()  # who ends its side alone may still wait for the answer
    assert proxy.flat()
    assert process.wait_until(lambda: api.call("return neosocksd.stats().num_thread_active") == "return true,1")


def test_client_that_goes_away_cancels(ruled):
    proxy, api = ruled("_G.ended = 0\nreturn { route = function(a)\n"
                       "local c <close> = setmetatable({}, { __close = function() ended = ended + 1 end })\nawait.sleep(60) end }")
    client = wire.greet(wire.Client(proxy.address)).send(wire.socks5("192.0.2.1", 9))
    assert process.wait_until(lambda: api.call("return neosocksd.stats().num_thread_active") == "return true,2")
    client.reset()
    assert process.wait_until(lambda: api.call("return ended") == "return true,1")
    assert proxy.flat()


def test_await_resolve(ruled, dns, origin):
    names, target = dns(), origin()
    names.add("six.test", "2001:db8::7")
    names.add("here.test", "127.0.0.1")
    proxy, api = ruled("return { resolve = function(a) local h, p = neosocksd.splithostport(a)\n"
                       "local ip = await.resolve(h) return ip and ip .. ':' .. p end }", "--nameserver", names.text)
    echoes(wire.through_socks5(proxy.address, b"here.test", target.port))
    refused(proxy, b"unknown.test")
    assert api.call("return await.resolve('six.test'), await.resolve('192.0.2.1'), await.resolve('::1')") == (
        'return true,"2001:db8::7","192.0.2.1","::1"')
    assert api.call("return select('#', await.resolve('unknown.test')), select('#', await.resolve(''))") == "return true,0,0"


def test_await_execute(ruled, tmp_path):
    _, api = ruled(DIRECT)
    assert api.call("return await.execute('exit 7')") == 'return true,nil,"exit",7'
    assert api.call("return await.execute('true')") == 'return true,true,"exit",0'
    assert api.call("return await.execute('kill -9 $$')") == 'return true,nil,"signal",9'
    mark = tmp_path / "mark"
    assert api.call(f"return (await.execute('echo x > {mark}'))") == "return true,true"
    assert mark.read_text() == "x\n"


def test_forward_and_failover(ruled, origin):
    target, dead = origin(), process.free_port()
    proxy, api = ruled(f"""
        _G.seen = {{}}
        return {{ route = function(a)
            table.insert(seen, {{ await.forward(a, 'socks5://127.0.0.1:{dead}') }})
            table.insert(seen, {{ await.forward() }})
            local ok = await.forward('127.0.0.1:{target.port}')
            table.insert(seen, {{ ok, pcall(await.forward, a) }})
            return 'ignored'
        end }}""")
    echoes(wire.through_socks5(proxy.address, "192.0.2.1", 1))
    process.becomes(lambda: api.call("return table.unpack(seen)"),
                    'return true,{false,"connection failed","refused",},{},{true,false,"await.forward: the request is not forwardable",}')
    assert "must be called from a ruleset request handler" in api.call("return pcall(await.forward, 'a:1')")


def test_another_try_reads_its_proxy_from_the_front(ruled, origin):
    """The first proxy goes in the middle of a long head, the second one answers with a short one."""
    asked = []

    def hop(_origin, connection):
        origins.read_http_head(connection)
        asked.append(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"X-Fill: " + b"x" * 500 if len(asked) == 1 else b"\r\n"))
        if len(asked) > 1:
            origins.echo(_origin, connection)

    one = f"http://127.0.0.1:{origin(hop).port}"
    proxy, _ = ruled(f"""return {{ route = function(a)
        return not await.forward(a, '{one}') and await.forward(a, '{one}') and a or nil
    end }}""")
    echoes(wire.through_socks5(proxy.address, "192.0.2.1", 1))
    assert len(asked) == 2


def test_failed_forward_tells_the_client_why(ruled):
    proxy, _ = ruled(f"return {{ route = function(a) await.forward('127.0.0.1:{process.free_port()}') end }}")
    refused(proxy, code=5)


def test_forward_that_never_ends(ruled, blackhole):
    proxy, api = ruled(f"_G.seen = {{}} return {{ route = function(a) seen[1], seen[2] = await.forward('127.0.0.2:{blackhole().port}') end }}",
                       "-t", "5")
    client = wire.greet(wire.Client(proxy.address, timeout=30)).send(wire.socks5("192.0.2.1", 9))
    assert client.read_all() == wire.socks5_failure(6)
    assert process.wait_until(lambda: api.call("return table.unpack(seen)") == 'return true,false,"timeout"')


def test_plain_http_and_forward(ruled, origin):
    target = origin(hello)
    proxy, _ = ruled("return { resolve = function(a) assert(await.forward(a)) end }")
    client = wire.Client(proxy.address).send(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n" % target.port)
    assert client.read_all().endswith(b"\r\n\r\nhello")


# --- scripts that misbehave ---

def test_endless_loop_is_aborted(ruled, origin):
    target = origin()
    proxy, api = ruled("return { route = function(a) if a:find('^192') then while true do pcall(function() while true do end end) "
                       "end end return a end }", "--lua-budget", "300")
    running = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    refused(proxy)
    assert "ruleset:1: time budget of 300 ms exceeded" in proxy.log()
    echoes(running)
    assert serves(proxy, target)


def test_memory_limit(ruled, origin):
    target = origin()
    proxy, api = ruled("return { route = function(a) if a:find('^192') then local t = {} while true do t[#t + 1] = ('x'):rep(1000) "
                       ".. #t end end return a end }", "--memlimit", "16")
    refused(proxy)
    assert "not enough memory" in proxy.log()
    assert serves(proxy, target)
    assert api.call("return neosocksd.stats().bytes_allocated < 16 << 20") == "return true,true"


@pytest.mark.parametrize("script,part", [
    ("return 5", "ruleset: expected table, got number"), ("syntax error", "syntax error"), ("error('at load')", "at load"),
    ("\x1bLua", "binary chunk"), ("while true do end", "time budget")])
def test_bad_rulesets_do_not_start(tmp_path, script, part):
    (tmp_path / "r.lua").write_bytes(script.encode("latin-1"))
    for check in [["--check"], []]:
        code, out, err = process.run("-l", f"127.0.0.1:{process.free_port()}", "-r", str(tmp_path / "r.lua"), "--lua-budget", "200",
                                     *check)
        assert code == 1 and part in err and out == "", (code, out, err)


def test_missing_ruleset(tmp_path):
    code, _, err = process.run("-l", "127.0.0.1:1", "-r", str(tmp_path / "none.lua"), "--check")
    assert code == 1 and "No such file" in err


def test_check_of_a_good_one(tmp_path):
    (tmp_path / "r.lua").write_text(DIRECT)
    assert process.run("-l", "127.0.0.1:1", "-r", str(tmp_path / "r.lua"), "--check")[:2] == (0, "configuration is valid\n")


def test_forms_of_files(ruled, origin):
    target = origin()
    for script in [gzip.compress(DIRECT.encode()), b"\xef\xbb\xbf" + DIRECT.encode(), b"#!/usr/bin/lua\n" + DIRECT.encode()]:
        proxy, _ = ruled(script)
        assert serves(proxy, target)


# --- reload ---

def test_sighup(ruled, origin, tmp_path):
    target = origin()
    proxy, _ = ruled(DIRECT)
    running = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    (tmp_path / "rules.lua").write_text("return { route = function() end }")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "ruleset successfully reloaded" in proxy.log())
    refused(proxy)
    (tmp_path / "rules.lua").write_text("return nonsense(")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "the old one stays" in proxy.log())
    refused(proxy)
    echoes(running)


def test_updates_under_load(ruled, origin):
    """200 updates while clients come: none of them fails."""
    target = origin()
    proxy, api = ruled(DIRECT)
    failures, stop = [], threading.Event()

    def churn():
        while not stop.is_set():
            if not serves(proxy, target):
                failures.append(1)

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        api.update(DIRECT + f" -- {turn}")
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert api.get("/stats?format=json").json()["ruleset"]["revision"] == 201


# --- remembered verdicts ---

def test_cache(ruled, origin):
    target = origin()
    proxy, api = ruled(f"_G.n = 0 return {{ route = function(a) n = n + 1 sluice.cache(60) return '127.0.0.1:{target.port}' end }}",
                       "--workers", "1")
    for _ in range(5):
        echoes(wire.through_socks5(proxy.address, "192.0.2.1", 1))
    assert api.call("return n") == "return true,1"
    echoes(wire.through_socks5(proxy.address, "192.0.2.1", 2))
    assert api.call("return n") == "return true,2"
    api.update(f"return {{ route = function(a) n = n + 10 return '127.0.0.1:{target.port}' end }}")
    echoes(wire.through_socks5(proxy.address, "192.0.2.1", 1))
    assert api.call("return n") == "return true,12"
    decisions = api.get("/stats?format=json").json()["decisions"]
    assert decisions == {"asked": 3, "remembered": 4}
    assert "must be called from a ruleset request handler" in api.call("return pcall(sluice.cache, 1)")


# --- users ---

AUTH = "_G.libruleset = require('libruleset') _G.secrets = { alice = 'right', open = true } return libruleset"


def test_authentication(ruled, origin):
    target = origin()
    proxy, _ = ruled(AUTH, "--auth-required")
    client = wire.greet(wire.Client(proxy.address), b"alice", b"right").send(wire.socks5("127.0.0.1", target.port))
    assert wire.read_socks5_reply(client)[0] == 0
    echoes(client)
    client = wire.Client(proxy.address).send(b"\5\1\2" + wire.socks5_auth(b"alice", b"wrong"))
    assert client.read_all() == b"\5\2\1\1"
    assert wire.Client(proxy.address).send(b"\5\1\0").read_all() == b"\5\xff"
    client = wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, b"open"))
    assert client.read(8) == wire.SOCKS4_GRANTED
    echoes(client)
    for user in [b"alice", b""]:
        assert wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, user)).read_all() == wire.SOCKS4_REJECTED
    for fields, status in [(b"", 407), (wire.basic(b"alice", b"wrong"), 407), (b"Proxy-Authorization: Digest x\r\n", 407)]:
        answer = wire.Client(proxy.address).send(wire.http_connect("127.0.0.1", target.port, fields)).read_all()
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert (b"Proxy-Authenticate: Basic" in answer) == (status == 407)
    client = wire.Client(proxy.address).send(wire.http_connect("127.0.0.1", target.port, wire.basic(b"alice", b"right")))
    assert client.read(len(wire.HTTP_ESTABLISHED)) == wire.HTTP_ESTABLISHED
    echoes(client)


def test_a_copy_of_the_settings_opens_nothing(sluice, origin, tmp_path):
    """`_G.config = neosocksd.config()` stood in documents; in a -c script it is made before auth_required is in force."""
    target, port = origin(), process.free_port()
    (tmp_path / "c.lua").write_text(f"""
        _G.libruleset = require("libruleset")
        _G.config = neosocksd.config()
        assert(not config.auth_required)
        _G.secrets = {{ u = "p" }}
        return {{ listen = "127.0.0.1:{port}", auth_required = true, ruleset = libruleset }}""")
    proxy = sluice("-c", str(tmp_path / "c.lua"), listen=None)
    proxy.address = ("127.0.0.1", port)
    client = wire.greet(wire.Client(proxy.address), b"u", b"p").send(wire.socks5("127.0.0.1", target.port))
    assert wire.read_socks5_reply(client)[0] == 0
    client = wire.Client(proxy.address).send(b"\5\1\2" + wire.socks5_auth(b"u", b"wrong"))
    assert client.read_all() == b"\5\2\1\1"
    assert wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, b"u")).read_all() == wire.SOCKS4_REJECTED


def test_rulesets_that_read_decisions(ruled, origin):
    """Up to 1.5 libruleset.resolve() returned what it had decided; scripts that look at it go on to work."""
    target = origin()
    proxy, api = ruled(f"""
        _G.libruleset = require("libruleset")
        _G.route = {{ {{ inet.subnet("192.0.2.0/24"), rule.redirect("127.0.0.1:{target.port}") }} }}
        local ruleset = setmetatable({{}}, {{ __index = function(_, k) return _G.libruleset[k] end }})
        function ruleset.route(addr, ...)
            local target, proxy = libruleset.route(addr, ...)
            _G.seen = target:match("^127") and tostring(proxy)
            return target, proxy
        end
        return ruleset""")
    echoes(wire.through_socks5(proxy.address, "192.0.2.1", 80))
    assert api.call("return seen") == 'return true,"nil"'


# --- -c ---

def test_boot_config(sluice, origin, tmp_path):
    target, port, api_port = origin(), process.free_port(), process.free_port()
    script = f"""
        _G.mode = ...
        return {{ listen = "127.0.0.1:{port}", restapi = "127.0.0.1:{api_port}", timeout = 7.5, loglevel = 5, auth_required = true,
                 max_sessions = 50, block_multicast = false, tcp_nodelay = false, ruleset = require("libruleset") }}"""
    secrets = '_G.secrets = { u = "p" }\n'
    (tmp_path / "c.lua").write_text(secrets + script)
    proxy = sluice("-c", str(tmp_path / "c.lua"), listen=None)
    proxy.address, api = ("127.0.0.1", port), scripts.Api(("127.0.0.1", api_port))
    client = wire.greet(wire.Client(proxy.address), b"u", b"p").send(wire.socks5("127.0.0.1", target.port))
    assert wire.read_socks5_reply(client)[0] == 0
    assert wire.Client(proxy.address).send(b"\5\1\0").read_all() == b"\5\xff"
    assert api.call("local c = neosocksd.config() return mode, c.timeout, c.max_sessions, c.api, c.block_multicast") == (
        f'return true,"config",0x1.ep+2,50,"127.0.0.1:{api_port}",false')
    (tmp_path / "c.lua").write_text(secrets + script.replace("max_sessions = 50", "max_sessions = 1"))
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "config successfully reloaded" in proxy.log())
    assert process.wait_until(lambda: is_refused(proxy))  # the workers hear of it by a message
    for bad in ["timeout = 4", "timeout = '9'", "loglevel = 9", "listen = 5"]:
        (tmp_path / "c.lua").write_text(f"return {{ {bad} }}")
        before = proxy.log().count("everything stays as it was")
        proxy.signal(signal.SIGHUP)
        assert process.wait_until(lambda: proxy.log().count("everything stays as it was") == before + 1)
    assert api.call("return neosocksd.config().timeout") == "return true,0x1.ep+2"
    echoes(client)


@pytest.mark.parametrize("script,part", [
    ("return 5", "config: expected table, got number"),
    ("return { timeout = 3 }", "field `timeout' is out of range"),
    ("return { max_sessions = 4.0 }", "field `max_sessions' must be an integer"),
    ("return { timeout = '9' }", "field `timeout' must be a number"),
    ("return { listen = 1080 }", "field `listen' must be a string"),
    ("return { pipe = 1 }", "field `pipe' must be a boolean"),
    ("return { ruleset = 1 }", "`ruleset' must be a table"),
    ("return { listen = 'nowhere' }", "has no port"),
    ("return {}", "listen address is not specified"),
    ("return { listen = '127.0.0.1:1', auth_required = true }", "requires a ruleset"),
    ("return {", "unable to load config"),
])
def test_bad_boot_configs(tmp_path, script, part):
    (tmp_path / "c.lua").write_text(script)
    for check in [["--check"], []]:
        code, _, err = process.run("-c", str(tmp_path / "c.lua"), *check)
        assert code == 1 and part in err, err


# --- libruleset in the server ---

def test_libruleset_rules(ruled, origin, dns):
    target, names = origin(), dns()
    names.add("resolved.test", "127.0.0.1")
    proxy, api = ruled(f"""
        _G.libruleset = require("libruleset")
        neosocksd.setinterval(60)
        _G.hosts = {{ ["known.test"] = "127.0.0.1" }}
        _G.redirect_name = {{
            {{ match.domain{{ "example.com" }}, rule.redirect("127.0.0.1:{target.port}"), "example" }},
            {{ match.host("resolved.test"), rule.resolve() }},
            {{ match.port(25), rule.reject(), "mail" }},
        }}
        _G.route = {{ {{ inet.subnet("192.0.2.0/24"), rule.redirect("127.0.0.1:{target.port}") }} }}
        return libruleset""", "--nameserver", names.text)
    echoes(wire.through_socks5(proxy.address, b"www.Example.com", 443))
    echoes(wire.through_socks5(proxy.address, b"known.test", target.port))
    echoes(wire.through_socks5(proxy.address, b"resolved.test", target.port))
    echoes(wire.through_socks5(proxy.address, "192.0.2.77", 1))
    refused(proxy, b"any.test", 25)
    text = api.post("/stats").text
    assert '[mail] "any.test:25"' in text and '[example] "www.Example.com:443"' in text and "> Request Stats" in text


SUITES = os.path.join(ROOT, "tests", "lua")


def test_libruleset_suite_in_the_server(ruled):
    """The same suite as without a server, with the real modules."""
    _, api = ruled(f"package.path = package.path .. ';{SUITES}/?.lua' {DIRECT}")
    answer = api.post("/ruleset/invoke", f"local saved = {{ neosocksd, await, package.loaded.wakeup }} "
                      f"dofile('{SUITES}/test_libruleset.lua') "
                      "_G.neosocksd, _G.await, package.loaded.wakeup = table.unpack(saved)")
    assert answer.status == 200, answer.text


def test_documents_examples_in_the_server(ruled):
    _, api = ruled(f"package.path = package.path .. ';{SUITES}/?.lua' {DIRECT}")
    result = api.call(f"return dofile('{SUITES}/test_documents.lua') > 40")
    assert result == "return true,true", result


def test_routines_that_wait_in_a_row(ruled):
    """A thousand futures, each waiting for the one before it: none is resumed within the other."""
    _, api = ruled(AUTH)
    assert api.call("""
        local last = async(function() await.sleep(0.05) return 0 end)
        for i = 1, 1000 do
            local before = last
            last = async(function()
                local ok, n = before:get()
                assert(ok and n == i - 1, n)
                if i % 100 == 0 then await.idle() end
                return i
            end)
        end
        return last:get()""") == "return true,true,1000"


def test_waiting_outlives_an_aborted_routine(ruled):
    _, api = ruled(AUTH, "--lua-budget", str(200 * process.SLOW))
    api.call("""
        local first = async(function() await.sleep(0.05) return 0 end)
        async(function() first:get() while true do end end)
        for i = 1, 5000 do async(function() first:get() end) end -- resumed behind it, over the budget""")
    for _ in range(3):
        assert api.call("local f = async(function() await.sleep(0.01) return 7 end) return f:get()") == "return true,true,7"


def test_each_waiter_has_a_budget_of_its_own(ruled):
    """Two thousand wait for one future; some of them use up the budget, or raise: all others go on."""
    _, api = ruled(AUTH, "--lua-budget", str(100 * process.SLOW))
    api.call("""
        woken, tickets = 0, {}
        local first = async(function() await.sleep(0.05) return 0 end)
        for i = 1, 2000 do
            async(function()
                assert(first:get())
                _G.woken = (_G.woken or 0) + 1
                if i % 700 == 10 then while true do end end
                if i % 700 == 20 then error("a waiter that raises") end
            end)
        end
        local function waits(f) async(function() await.callback(function(done) _G.done = done end) f() end) end
        waits(function() while true do end end)""")
    result = api.call("for i = 1, 200 do if _G.woken == 2000 then break end await.sleep(0.05) end return _G.woken")
    assert result == "return true,2000", result
    # what a callback wakes does not run within who calls it
    assert api.call("local ok = pcall(_G.done) return ok, 7") == "return true,true,7"
    # tickets that a script makes up, keeps, or gives twice
    assert api.call("""
        local wakeup, list, n = require("wakeup"), {}, 0
        async(function() wakeup.pause(list) n = n + 1 await.sleep(0.01) n = n + 1 wakeup.pause(list) n = n + 1 end)
        for _, ticket in ipairs{ 0, -1, 1 << 40, math.maxinteger, list[1] + 1, list[1] + (1 << 32) } do wakeup.wake(ticket) end
        await.sleep(0.02)
        local before = n
        wakeup.wake(list[1])
        wakeup.wake(list[1])
        await.sleep(0.05)
        wakeup.wake(list[1])
        await.sleep(0.02)
        local between = n
        wakeup.wake(list[2])
        await.sleep(0.02)
        return before, between, n, #list""") == "return true,0,2,3,2"


def test_sleeps_of_milliseconds_end_in_their_order(ruled):
    """With steps of eight milliseconds they all ended together, in the order of their beginnings. Once is enough: a busy
    machine may pause between two of them."""
    _, api = ruled(DIRECT)
    assert api.call("""
        for _ = 1, 50 do
            local order, left = {}, 4
            for ms = 4, 1, -1 do
                neosocksd.async(function() left = left - 1 end, function() await.sleep(ms / 1000) order[#order + 1] = ms end)
            end
            while left > 0 do await.sleep(0.001) end
            if table.concat(order) == '1234' then return true end
        end
        return false""") == "return true,true"


def test_environment(ruled):
    _, api = ruled(f"package.path = package.path .. ';{SUITES}/?.lua' {DIRECT}")
    result = api.call(f"return dofile('{SUITES}/test_environment.lua') > 150")
    assert result == "return true,true", result


def test_every_name_of_every_version(ruled):
    _, api = ruled(f"package.path = package.path .. ';{SUITES}/?.lua' {DIRECT}")
    result = api.call(f"return dofile('{SUITES}/test_names.lua') > 200")
    assert result == "return true,true", result


def test_calls_between_peers(ruled):
    _, one = ruled(AUTH)
    _, two = ruled(AUTH)
    one.call("function rpc.add(a, b) return a + b, { a, b } end _G.rpc.add = rpc.add function _G.msgh.note(x) _G.noted = x end")
    target = f"{{ '127.0.0.1:{one.address[1]}' }}"
    assert two.call(f"return await.rpcall({target}, 'add', 2, 3)") == "return true,true,5,{2,3,}"
    assert two.call(f"return await.rpcall({target}, 'nothing')").startswith("return true,false,")
    two.call(f"neosocksd.sendmsg({target}, 'note', 'hello')")
    assert process.wait_until(lambda: one.call("return noted") == 'return true,"hello"')
    dead = process.free_port()
    assert two.call(f"return await.invoke('return 1', '127.0.0.1:{dead}')") == 'return true,false,"connection failed"'
    big = "('x'):rep(100000)"
    assert two.call(f"local ok, r = await.rpcall({target}, 'echo', {big}) return ok, #r") == "return true,true,100000"
