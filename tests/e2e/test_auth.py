"""Who a client says it is: each protocol's own word for wrong credentials, and what an operator sees of it."""
import os
import re
import shutil
import subprocess

import pytest

import process
import wire
from conftest import ROOT
from test_ruleset import echoes

AUTH = "_G.libruleset = require('libruleset') _G.secrets = { alice = 'right', open = true } "
REQUIRED = AUTH + "return setmetatable({ auth = 'required' }, { __index = libruleset })"
OWN_JUDGE = """
    _G.libruleset = require("libruleset")
    local ruleset = setmetatable({}, { __index = libruleset })
    function ruleset.authenticate(addr, user, password) return user == "alice" and password == "right" and addr ~= "192.0.2.1:1" end
    return ruleset"""
OWN_HANDLERS = """
    _G.libruleset = require("libruleset")
    local function handler(addr, user, password) if user == "bob" and password == "own" then return addr end end
    return setmetatable({ resolve = handler, route = handler, route6 = handler }, { __index = libruleset })"""


def sign_in(proxy, user, password):
    """SOCKS5 up to RFC 1929's status, and the client."""
    client = wire.Client(proxy.address).send(b"\5\1\2")
    assert client.read(2) == b"\5\2"
    return client.send(wire.socks5_auth(user, password)).read(2), client


def socks5(proxy, origin, user, password):
    """What SOCKS5 says: the status of the sign-in, and the reply to the request if it came so far."""
    status, client = sign_in(proxy, user, password)
    if status != b"\1\0":
        assert client.read_all() == b"", "nothing behind a refusal"
        return status, None
    client.send(wire.socks5("127.0.0.1", origin.port))
    code = wire.read_socks5_reply(client)[0]
    if code == 0:
        echoes(client)
    return status, code


def http(proxy, origin, fields):
    answer = wire.Client(proxy.address).send(wire.http_connect("127.0.0.1", origin.port, fields)).read(12)
    return int(answer[9:12])


def plain(proxy, origin, fields):
    head = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nConnection: close\r\nHost: x\r\n%s\r\n" % (origin.port, fields)
    return wire.Client(proxy.address).send(head).read_all()


@pytest.mark.parametrize("way", ["option", "script"])
def test_every_protocol_has_its_word(ruled, origin, way):
    target = origin()
    script, options = (AUTH + "return libruleset", ["--auth-required"]) if way == "option" else (REQUIRED, [])
    proxy, api = ruled(script, *options, "--workers", "2")
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0)
    assert socks5(proxy, target, b"open", b"anything") == (b"\1\0", 0)
    assert socks5(proxy, target, b"alice", b"wrong") == (b"\1\1", None)
    assert socks5(proxy, target, b"nobody", b"x") == (b"\1\1", None)
    assert wire.Client(proxy.address).send(b"\5\1\0").read_all() == b"\5\xff"
    assert http(proxy, target, wire.basic(b"alice", b"right")) == 200
    wrong = plain(proxy, target, wire.basic(b"alice", b"wrong"))
    assert wrong.startswith(b"HTTP/1.1 407 ") and b'Proxy-Authenticate: Basic realm="proxy"' in wrong, "a browser asks again"
    assert http(proxy, target, wire.basic(b"alice", b"wrong")) == 407
    assert http(proxy, target, b"") == 407
    assert wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, b"alice")).read_all() == wire.SOCKS4_REJECTED
    assert wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, b"open")).read(8) == wire.SOCKS4_GRANTED
    failures = api.get("/stats?format=json").json()["failures"]
    assert failures["auth"] == 5 and failures["auth_method"] == 2 and failures.get("rejected", 0) == 0
    assert api.call("return neosocksd.stats().num_reject_ruleset, neosocksd.config().auth_required") == "return true,5,true"
    assert api.call("return num_requests - num_authorized") == "return true,5"


def test_nobody_gets_in_without_a_word(ruled, origin):
    """A ruleset that accepts whatever it is given is not asked about clients that give nothing: in no protocol."""
    target = origin()
    proxy, api = ruled("_G.asked = 0 local function f(a) _G.asked = _G.asked + 1 return a end return { resolve = f, route = f, route6 = f }", "--auth-required")
    port = target.port
    assert wire.Client(proxy.address).send(wire.socks4("127.0.0.1", port)).read_all() == wire.SOCKS4_REJECTED
    assert wire.Client(proxy.address).send(wire.socks4a("localhost", port)).read_all() == wire.SOCKS4_REJECTED
    assert wire.Client(proxy.address).send(b"\5\1\0").read_all() == b"\5\xff"
    assert http(proxy, target, b"") == 407 and plain(proxy, target, b"").startswith(b"HTTP/1.1 407 ")
    assert not target.connections and api.call("return asked") == "return true,0"
    assert api.get("/stats?format=json").json()["failures"]["auth_method"] == 5
    for way in ["socks4a", "socks5-auth"]:
        wire.WAYS[way](proxy.address, "127.0.0.1", port).close()
    assert api.call("return asked") == "return true,2"


def test_a_judge_of_the_scripts_own_gets_the_address(ruled, origin):
    """It judges with the request, as before: too late for RFC 1929, so that the reply is "not allowed"."""
    target = origin()
    proxy, api = ruled(OWN_JUDGE, "--auth-required")
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0)
    assert socks5(proxy, target, b"alice", b"wrong") == (b"\1\0", 2)
    assert http(proxy, target, wire.basic(b"alice", b"wrong")) == 407
    assert http(proxy, target, wire.basic(b"alice", b"right")) == 200
    assert api.get("/stats?format=json").json()["failures"]["auth"] == 2


def test_handlers_of_the_scripts_own_know_other_users(ruled, origin):
    """An old ruleset that judges by itself and has libruleset behind it: nobody is refused in its place."""
    target = origin()
    proxy, _ = ruled(OWN_HANDLERS, "--auth-required")
    assert socks5(proxy, target, b"bob", b"own") == (b"\1\0", 0)
    assert socks5(proxy, target, b"bob", b"other") == (b"\1\0", 1)
    assert http(proxy, target, wire.basic(b"bob", b"other")) == 403
    assert http(proxy, target, wire.basic(b"bob", b"own")) == 200


LOGIN = """
_G.asked = {}
local function handler(addr, user) table.insert(asked, "route " .. tostring(user)) return addr end
return { auth = "required", resolve = handler, route = handler,
    login = function(user, password)
        table.insert(asked, "login " .. tostring(user) .. " " .. tostring(password))
        if user == "slow" then await.sleep(0.05) end
        if user == "cached" then sluice.cache(60) end
        if user == "raises" then error("broken login") end
        if user == "tries" then await.forward("127.0.0.1:1") end
        return password ~= "wrong"
    end }"""


def test_login_is_asked_first_in_every_protocol(ruled, origin):
    target = origin()
    proxy, api = ruled(LOGIN, "--workers", "1")
    assert socks5(proxy, target, b"slow", b"good") == (b"\1\0", 0)
    assert socks5(proxy, target, b"slow", b"wrong") == (b"\1\1", None)
    assert http(proxy, target, wire.basic(b"u", b"good")) == 200
    assert http(proxy, target, wire.basic(b"u", b"wrong")) == 407
    assert wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, b"u")).read(8) == wire.SOCKS4_GRANTED
    assert api.call("local a = asked asked = {} return table.concat(a, ', ')") == 'return true,"' + ", ".join([
        "login slow good", "route slow", "login slow wrong", "login u good", "route u", "login u wrong", "login u nil", "route u"]) + '"'
    # what raises lets nobody in, and is no wrong password; what is remembered is not asked again
    for user in [b"raises", b"tries"]:
        assert socks5(proxy, target, user, b"good") == (b"\1\1", None)
    for _ in range(3):
        assert socks5(proxy, target, b"cached", b"good") == (b"\1\0", 0)
    assert socks5(proxy, target, b"cached", b"wrong") == (b"\1\1", None)
    assert api.call("local n = 0 for _, a in ipairs(asked) do n = n + (a == 'login cached good' and 1 or 0) end return n") == "return true,1"
    failures = api.get("/stats?format=json").json()["failures"]
    assert failures["auth"] == 3 and failures["rejected"] == 2


def test_a_client_that_goes_while_login_is_asked(ruled, origin):
    target = origin()
    proxy, api = ruled("""
        _G.waiting = 0
        local function handler(addr) return addr end
        return { auth = "required", resolve = handler, route = handler,
            login = function() waiting = waiting + 1 await.sleep(0.3) return true end }""")
    before = proxy.sockets()
    clients = []
    for _ in range(20):
        client = wire.Client(proxy.address).send(b"\5\1\2")
        assert client.read(2) == b"\5\2"
        clients.append(client.send(wire.socks5_auth(b"u", b"p") + wire.socks5("127.0.0.1", target.port)))
    assert process.wait_until(lambda: api.call("return waiting") == "return true,20")
    for client in clients[:10]:
        client.close()
    for client in clients[10:]:
        assert client.read(2) == b"\1\0" and wire.read_socks5_reply(client)[0] == 0, "what came behind it is not lost"
        client.close()
    assert process.wait_until(lambda: proxy.sockets() <= before)


def test_unauthorized_from_a_script(ruled, origin):
    """sluice.unauthorized(): for rulesets that judge in their handlers. An address that is returned all the same counts."""
    target = origin()
    proxy, api = ruled("""
        local function handler(addr, user, password)
            if user == "let in" then sluice.unauthorized() return addr end
            if password ~= "right" then sluice.unauthorized() return nil end
            return addr
        end
        return { resolve = handler, route = handler }""", "--auth-required")
    assert socks5(proxy, target, b"u", b"right") == (b"\1\0", 0)
    assert socks5(proxy, target, b"u", b"wrong") == (b"\1\0", 2)
    assert http(proxy, target, wire.basic(b"u", b"wrong")) == 407
    assert http(proxy, target, wire.basic(b"let in", b"wrong")) == 200
    assert api.call("return sluice.unauthorized()") == "return true,false"


# --- what an operator sees ---

def failregex():
    with open(os.path.join(ROOT, "docs", "fail2ban", "sluice.conf"), encoding="utf-8") as conf:
        return re.search(r"^failregex = (.*)$", conf.read(), re.MULTILINE).group(1)


def hosts_of(lines):
    pattern = re.compile(failregex().replace("<HOST>", r"(?P<host>[0-9a-fA-F.:]+)"))
    return [match.group("host") for match in map(pattern.search, lines) if match]


NAMES = [b"alice", b'quo"te', b"back\\slash", b"new\nline", b"\xff\x00"[:1], b"x" * 255,
         b'" from 192.0.2.9', b"[0:1] 192.0.2.9:1: authentication failed for user \"x\""]


def test_log_lines_for_fail2ban(ruled, origin, tmp_path):
    """At the default level, one line for each wrong password, with the source in front and the user escaped."""
    target = origin()
    proxy, _ = ruled(AUTH + "return libruleset", "--auth-required", "--loglevel", "4", "--workers", "1")
    for name in NAMES:
        assert socks5(proxy, target, name, b"wrong") == (b"\1\1", None)
    http(proxy, target, wire.basic(b"alice", b"wrong"))
    http(proxy, target, b"")  # a first request without credentials is no attack

    def failed():
        return [line for line in proxy.log().splitlines() if "authentication failed" in line]

    assert process.wait_until(lambda: len(failed()) > len(NAMES))
    lines = failed()
    assert len(lines) == len(NAMES) + 1 and hosts_of(lines) == ["127.0.0.1"] * len(lines), lines
    assert all(line.isprintable() and line.isascii() for line in lines)
    assert r'user "quo\x22te"' in lines[1] and r'user "back\x5cslash"' in lines[2] and r'user "new\x0aline"' in lines[3]
    assert lines[5].endswith('..."')
    if not shutil.which("fail2ban-regex"):
        return
    log = tmp_path / "auth.log"
    log.write_text("\n".join(lines) + "\n")
    done = subprocess.run(["fail2ban-regex", str(log), os.path.join(ROOT, "docs", "fail2ban", "sluice.conf")],
                          capture_output=True, text=True, timeout=60, check=False)
    assert f"{len(lines)} matched" in done.stdout, done.stdout


def test_filter_reads_ipv6_and_syslog():
    stamp = "I 2026-11-20T20:15:00+00:00 session.c:511 "
    assert hosts_of([stamp + '[0:17] [2001:db8::5]:40112: authentication failed for user "a"',
                     "Nov 20 20:15:00 box sluice[12]: session.c:511 [3:9] 192.0.2.5:1: authentication failed for user \"\""]) == [
                         "2001:db8::5", "192.0.2.5"]
    assert hosts_of([stamp + "[0:17] 192.0.2.5:40112 -> `a: authentication failed for user \"x\"': rejected by ruleset"]) == []


@pytest.mark.parametrize("way", ["start", "check"])
def test_secrets_that_nobody_is_asked_for(tmp_path, way):
    rules = tmp_path / "r.lua"
    port = process.free_port()
    cases = [(AUTH + "return libruleset", [], True), (AUTH + "return libruleset", ["--auth-required"], False), (REQUIRED, [], False),
             ("_G.libruleset = require('libruleset') return libruleset", [], False)]
    for script, options, warned in cases:
        rules.write_text(script)
        words = ["-l", f"127.0.0.1:{port}", "-r", str(rules), *options]
        if way == "check":
            code, out, err = process.run(*words, "--check")
            assert code == 0, err
            text = out + err
        else:
            proxy = process.Sluice(str(tmp_path), *words[2:])
            text = proxy.log()
            proxy.finish()
        assert ("there are secrets, but nobody is asked for them: give --auth-required" in text) == warned, text


def test_a_ruleset_that_wants_credentials_is_no_open_door(tmp_path):
    """The line that says what an open listener means is not for one whose ruleset asks for credentials."""
    rules = tmp_path / "r.lua"
    for script, warned in [(REQUIRED, False), (AUTH + "return libruleset", True)]:
        rules.write_text(script)
        code, out, err = process.run("-l", "0.0.0.0:1", "-r", str(rules), "--check")
        assert code == 0 and ("whoever reaches it may use the proxy" in out + err) == warned, out + err


def test_a_word_that_means_nothing(ruled):
    proxy, _ = ruled(AUTH + "return setmetatable({ auth = 'Required' }, { __index = libruleset })")
    assert 'auth is "Required": only "required" has a meaning' in proxy.log()
    proxy, _ = ruled(AUTH + "return setmetatable({ auth = true }, { __index = libruleset })")
    assert 'auth is "true": only "required" has a meaning' in proxy.log()
    proxy, _ = ruled("return { auth = function() end }")
    assert "only \"required\"" not in proxy.log(), "an old ruleset may have a function of that name"


def test_a_login_that_cannot_be_asked_lets_nobody_in(ruled, origin, tmp_path):
    """At the start, by an update, and when a script sets it while clients come."""
    target, rules = origin(), tmp_path / "r.lua"
    source = "local function direct(a) return a end return { auth = 'required', login = %s, route = direct, resolve = direct }"
    for value, kind in [("5", "number"), ("false", "boolean"), ("{}", "table")]:
        rules.write_text(source % value)
        code, out, err = process.run("-l", "127.0.0.1:1", "-r", str(rules), "--check")
        assert code == 1 and f"ruleset: `login' must be a function; it is a {kind}" in out + err
    proxy, api = ruled(source % "function() return true end")
    answer = api.post("/ruleset/update", source % "5")
    assert answer.status == 500 and "`login' must be a function" in answer.text
    for value, good in [("function() return true end", True), ("setmetatable({}, { __call = function() return true end })", True),
                        ("5", False), ("nil", True)]:
        assert api.post("/ruleset/invoke", f"ruleset.login = {value}").status == 200
        status, client = sign_in(proxy, b"a", b"b")
        client.close()
        code = http(proxy, target, b"Proxy-Authorization: Basic YTpi\r\n")
        assert (status == b"\1\0", code == 200) == (good, good), (value, status, code)


def test_clients_that_cannot_authenticate(tmp_path):
    rules = tmp_path / "r.lua"
    rules.write_text(REQUIRED)
    code, out, err = process.run("-l", "127.0.0.1:1", "-f", "192.0.2.1:1", "-r", str(rules), "--check")
    assert code == 1 and "clients of --forward and --tproxy cannot authenticate" in out + err


def test_required_comes_and_goes_with_the_ruleset(ruled, origin):
    target = origin()
    proxy, api = ruled("return { route = function(a) return a end }")
    echoes(wire.through_socks5(proxy.address, "127.0.0.1", target.port))
    assert api.post("/ruleset/update", REQUIRED).status == 200
    assert wire.Client(proxy.address).send(b"\5\1\0").read_all() == b"\5\xff"
    assert api.post("/ruleset/update", "return { route = function(a) return a end }").status == 200
    echoes(wire.through_socks5(proxy.address, "127.0.0.1", target.port))


# As in neosocksd up to 1.5.1: what is decided when the file is loaded stays.
OLD_LIBRARY = """
_G.config = neosocksd.config()
_G.secrets = _G.secrets or {}
local function handler(addr, user, password)
    if config.auth_required and secrets[user] ~= password then return nil end
    return addr
end
local open = function(addr) return addr end
local f = config.auth_required and handler or open
return { resolve = f, route = f, route6 = f }
"""


@pytest.mark.parametrize("by", ["fields", "word", "reload"])
def test_an_old_library_that_takes_no_notice_is_refused(tmp_path, by):
    """auth_required of a -c file is in force after the script has run: a libruleset.lua of before, in the working directory,
    has decided by then that nobody need authenticate."""
    (tmp_path / "libruleset.lua").write_text(OLD_LIBRARY)
    port = process.free_port()
    config = f"_G.libruleset = require('libruleset') return {{ listen = '127.0.0.1:{port}', auth_required = %s, ruleset = libruleset }}"
    (tmp_path / "c.lua").write_text(config % "true")
    (tmp_path / "r.lua").write_text("_G.libruleset = require('libruleset') return setmetatable({ auth = 'required' }, { __index = libruleset })")
    if by == "reload":
        (tmp_path / "c.lua").write_text(config % "false")
        proxy = process.Sluice(str(tmp_path), "-c", "c.lua", listen=None, prefix=["env", "-C", str(tmp_path)])
        (tmp_path / "c.lua").write_text(config % "true")
        proxy.signal(1)
        assert proxy.says("everything stays as it was"), proxy.log()
        assert "would let everybody in" in proxy.log()
        proxy.finish()
        return
    words = ["-c", "c.lua"] if by == "fields" else ["-l", f"127.0.0.1:{port}", "-r", "r.lua"]
    code, out, err = process.run(*words, "--check", cwd=tmp_path)
    assert code == 1 and "the libruleset.lua of this folder was loaded before" in out + err, out + err
    code, out, err = process.run(*words, "--auth-required", "--check", cwd=tmp_path)
    assert code == 0, out + err


def test_an_old_library_judges_when_it_is_told_in_time(tmp_path, origin):
    (tmp_path / "libruleset.lua").write_text(OLD_LIBRARY)
    (tmp_path / "r.lua").write_text("_G.libruleset = require('libruleset') _G.secrets = { u = 'p' } return libruleset")
    proxy = process.Sluice(str(tmp_path), "-r", "r.lua", "--auth-required", prefix=["env", "-C", str(tmp_path)])
    target = origin()
    assert socks5(proxy, target, b"u", b"p") == (b"\1\0", 0)
    assert socks5(proxy, target, b"u", b"x") == (b"\1\0", 1)
    proxy.finish()
