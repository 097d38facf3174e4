"""-c FILE: what is wrong is said with file, line and key; --check and --dump-config know it; SIGHUP never claims what it has not done."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile

import pytest

import process
import scripts
import wire

RULES = "ruleset = { request = function(a) return a end, resolve = function(a) return a end, route = function(a) return a end }"


def written(folder, text, name="c.lua"):
    path = folder / name
    path.write_text(text)
    return str(path)


def reload(proxy, path, text, part):
    """The new text, and the line of the log that tells what has become of it."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    before = proxy.log().count("reload: ")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: proxy.log().count("reload: ") > before), proxy.log()
    line = [line for line in proxy.log().splitlines() if "reload: " in line][before]
    assert part in line, line
    return line


# --- before anything starts ---

@pytest.mark.parametrize("field,part", [
    ("max_sesions = 5", "there is no field `max_sesions'; is `max_sessions' meant?"),
    ("Timeout = 50", "is `timeout' meant?"), ("block_lokal = true", "is `block_local' meant?"),
    ("startup_limit_rat = 1", "is `startup_limit_rate' meant?"), ("listne = ':1'", "is `listen' meant?"),
    ("['max-sessions'] = 5", "is `max_sessions' meant?"), ("api = '127.0.0.1:1'", "is `restapi' meant?"),
    ("user = 'nobody'", "is `user_name' meant?"), ("Ruleset = {}", "is `ruleset' meant?"),
    ("timeout = 4.5", "field `timeout' is out of range, give 5 to 86400"),
    ("loglevel = 9", "field `loglevel' is out of range, give 0 to 8"),
    ("startup_limit_rate = -1", "field `startup_limit_rate' is out of range, give 0 to 100"),
    ("resolve_pf = 3", "field `resolve_pf' is out of range, give 0, 2 or 10"),
    ("lua_budget = 5", "field `lua_budget' is out of range, give 10 to 60000"),
    ("timeout = '9'", "field `timeout' must be a number"), ("pipe = 1", "field `pipe' must be a boolean"),
    ("proxy = 'ftp://x'", "field `proxy': proxy 1: unknown scheme"), ("nameserver = 'x'", "field `nameserver': \"x\" is no name server"),
    ("forward = 'x'", "field `forward': \"x\" is no target"), ("http_listen = 'x'", "field `http_listen': \"x\" has no port"),
    ("http_listen = ':1,'", "field `http_listen': \"\" has no port"), ("http_listen = ':1,,:2'", "field `http_listen': \"\" has no port"),
    ("forward = 'localhost:1,localhost:2'", "field `forward' has more targets than `listen' has addresses"),
    ("nameserver = '192.0.2.1,'", "field `nameserver': \"\" is no name server"),
    ("relay = 'fast'", "field `relay': \"fast\" is unknown, give one of auto, splice, copy")])
def test_what_is_wrong_and_where(tmp_path, field, part):
    path = written(tmp_path, f"-- {field}\nlocal timeout, loglevel = 1, 2\nreturn {{\n  listen = '127.0.0.1:{process.free_port()}',\n\n  {field},\n}}\n")
    for mode in [[], ["--check"], ["--dump-config"]]:
        code, out, err = process.run("-c", path, *mode)
        assert code == 1 and "valid" not in out and "return" not in out
        assert re.search(r"config load: .*" + re.escape(f"{path}:6: "), err) and part in err, err
        assert f"unable to load config: {path}" in err


def test_lines_of_other_forms(tmp_path):
    for text in ["local c = {}\nc.timeout = 4\nreturn c", "local c = {}\nc['timeout'] = 4\nreturn c", "\nreturn { timeout\n= 4 }",
                 "local c = { timeout = 9 }\nc.timeout\t=\t3 return c"]:
        code, _, err = process.run("-c", written(tmp_path, text), "--check")
        assert code == 1 and ("c.lua:2: " in err) == ("\n= 4" not in text), err
    code, _, err = process.run("-c", written(tmp_path, "local c = {} c['time' .. 'out'] = 4 return c"), "--check")
    assert code == 1 and "c.lua: boot: field `timeout' is out of range" in err, err


def test_other_keys_are_no_mistake(tmp_path):
    """The contract ignores them: a line says so."""
    path = written(tmp_path, f"return {{ listen = '127.0.0.1:{process.free_port()}', my_own_notes = {{}}, [5] = 1, [{{}}] = 2 }}")
    code, out, err = process.run("-c", path, "--check")
    assert code == 0 and out == "configuration is valid\n"
    assert err.count("\n") == 1 and "c.lua:1: there is no field `my_own_notes', it is ignored" in err


def test_dump_and_check(tmp_path):
    """What a -c script says is in the dump, the command line's part too; and the dump is a -c script that says the same."""
    path = written(tmp_path, f"""
        return {{ listen = "127.0.0.1:{process.free_port()},127.0.0.1:{process.free_port()}", forward = ",localhost:80", timeout = 7.5,
                 block_local = true, tcp_nodelay = false, {RULES} }}""")
    code, out, err = process.run("-c", path, "--max-sessions", "50", "--dump-config")
    assert (code, err) == (0, "")
    for part in ["timeout = 7.5,", "block_local = true,", "tcp_nodelay = false,", "max_sessions = 50,", 'forward = ",localhost:80",']:
        assert f"    {part}\n" in out, out
    again = written(tmp_path, out, "dump.lua")
    assert process.run("-c", again, "--dump-config") == (0, out, "")
    assert process.run("-c", path, "--check") == process.run("-c", again, "--check") == (0, "configuration is valid\n", "")
    alone = ["--script", written(tmp_path, "return", "one.lua"), "--script", written(tmp_path, "return", "two.lua")]  # without a listener
    code, out, err = process.run(*alone, "--dump-config")
    assert (code, err) == (0, "") and f'    scripts = "{alone[1]},{alone[3]}",\n' in out
    again = written(tmp_path, out, "alone.lua")
    assert process.run("-c", again, "--dump-config") == (0, out, "")
    assert process.run("-c", again, "--check") == (0, "configuration is valid\n", "")
    code, out, _ = process.run("-c", written(tmp_path, "return {}"), "--dump-config")
    assert code == 1 and out == ""
    code, out, err = process.run("-c", str(tmp_path / "nowhere.lua"), "--dump-config")
    assert code == 1 and out == "" and "cannot read" in err


def test_what_a_dump_cannot_hold(tmp_path):
    """Commas separate listeners and scripts there."""
    for words in [["-l", f"unix:{tmp_path}/a,b"], ["--script", written(tmp_path, "return", "a,b.lua")], ["-l", f"127.0.0.1:{process.free_port()}", "-f", f"unix:{tmp_path}/a,b"]]:
        assert process.run(*words, "--check")[0] == 0
        code, out, err = process.run(*words, "--dump-config")
        assert code == 1 and out == "" and err.count("\n") == 1 and "comma" in err


@pytest.mark.parametrize("quiet", [["--loglevel", "0"], ["--log", "discard"]])
@pytest.mark.parametrize("mode", ["--check", "--dump-config", None])
def test_a_silent_log_hides_no_failure(tmp_path, quiet, mode):
    for words in [["-c", written(tmp_path, "return { timeout = 1 }")], ["-c", written(tmp_path, "return {}", "empty.lua")],
                  ["-l", f"127.0.0.1:{process.free_port()}", "-r", str(tmp_path / "nowhere")]]:
        if mode == "--dump-config" and "-r" in words:
            continue  # that script is not read for it
        code, out, err = process.run(*quiet, *words, *([mode] if mode else []))
        assert code == 1 and out == "" and err.startswith("sluice: ") and err.count("\n") == 1, (words, err)


@pytest.mark.parametrize("option", ["-c", "-r"])
def test_tracebacks_keep_their_lines(tmp_path, option):
    path = written(tmp_path, "local function inner()\n  error('broken')\nend\nlocal function outer()\n  inner()\nend\nouter()\n")
    code, _, err = process.run("-l", f"127.0.0.1:{process.free_port()}", option, path, "--traceback", "--check")
    lines = err.splitlines()
    assert code == 1 and "?" not in err.replace("in ?", "") and len(lines) >= 6, err
    assert lines[0].endswith(":2: broken") and "stack traceback:" in lines[1]
    assert re.search(r"^E \S+ \S+ .*:2: in (upvalue|local|function) '?inner", lines[3]), lines[3]
    assert all(re.match(r"[EF] \d{4}-\S+ \S+:\d+ ", line) for line in lines)


def test_tracebacks_of_running_scripts_keep_their_lines(ruled):
    proxy, api = ruled("return { resolve = function(a) error('no way') end, tick = function() error('tock') end }", "--traceback")
    assert wire.Client(proxy.address).send(b"CONNECT a.test:80 HTTP/1.1\r\n\r\n").read_all().startswith(b"HTTP/1.1 403")
    api.post("/ruleset/invoke", "neosocksd.setinterval(0.05)")
    assert process.wait_until(lambda: "tock" in proxy.log())
    api.post("/ruleset/invoke", "neosocksd.setinterval(0)")
    for word in ["no way", "tock"]:
        line = next(line for line in proxy.log().splitlines() if word in line)
        assert "?" not in line and proxy.log().splitlines()[proxy.log().splitlines().index(line) + 1].endswith("stack traceback:")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("option", ["-c", "-r"])
def test_a_script_that_only_root_can_read(option):
    """It starts, but SIGHUP would fail some day: said at once."""
    port = process.free_port()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        os.chmod(folder, 0o755)
        only_root_can_read(option, port, written(pathlib.Path(folder), f"return {{ listen = '127.0.0.1:{port}', {RULES} }}"))


def only_root_can_read(option, port, path):
    words = [option, path, *(["-l", f"127.0.0.1:{port}"] if option == "-r" else []), "-u", "nobody:", "--check"]
    os.chmod(path, 0o600)
    code, _, err = process.run(*words)
    assert code == 0 and err.count("\n") == 1 and f"{path}: Permission denied for the user of -u" in err, err
    os.chmod(path, 0o644)
    assert process.run(*words) == (0, "configuration is valid\n", "")


# --- SIGHUP ---

def test_reload_refuses_what_is_fixed(sluice, origin, tmp_path):
    """A changed listener was called `successfully reloaded', and nothing listened there."""
    ports = [process.free_port() for _ in range(2)]
    base = f"listen = '127.0.0.1:{ports[0]}', restapi = '127.0.0.1:{ports[1]}', max_sessions = 20, timeout = 30, {RULES}"
    path = written(tmp_path, f"return {{ {base} }}")
    proxy = sluice("-c", path, "--workers", "1", listen=None)
    api = scripts.Api(("127.0.0.1", ports[1]))
    for change in [(str(ports[0]), str(process.free_port())), ("listen =", "http_listen ="), ("sessions = 20", "sessions = 21"), ("sessions = 20", "sessions = 0"),
                   ("timeout", "workers = 7, timeout"), ("timeout", "reuseport = true, timeout"),
                   ("timeout", f"scripts = '{written(tmp_path, 'return', 'more.lua')}', timeout"),
                   ("timeout", "tcp_fastopen = false, timeout"), ("timeout", "user_name = 'nobody', timeout"),
                   (f"'127.0.0.1:{ports[1]}'", f"'127.0.0.1:{process.free_port()}'"),
                   ("timeout", f"http_listen = '127.0.0.1:{process.free_port()}', timeout")]:
        text = f"return {{ {base.replace(*change).replace('timeout = 30', 'timeout = 40')} }}"
        line = reload(proxy, path, text, "; everything stays as it was")
        assert "restart to apply it" in line and "`" in line, (change, line)
        assert "return true,0x1.ep+4" == api.call("return neosocksd.config().timeout")
    assert "successfully" not in proxy.log()
    reload(proxy, path, f"return {{ {base.replace('timeout = 30', 'timeout = 40').replace('sessions = 20', 'sessions = 19')} }}", "config successfully reloaded")
    assert api.call("return neosocksd.config().timeout, neosocksd.config().max_sessions") == "return true,0x1.4p+5,19"
    client = wire.through_socks5(("127.0.0.1", ports[0]), "127.0.0.1", origin().port)
    client.close()


def test_reload_changes_where_it_forwards(sluice, origin, tmp_path):
    one, two = origin(lambda _, s: s.sendall(b"one")), origin(lambda _, s: s.sendall(b"two"))
    port = process.free_port()
    text = "return {{ listen = '127.0.0.1:%d', forward = '127.0.0.1:{}' }}" % port
    path = written(tmp_path, text.format(one.port))
    proxy = sluice("-c", path, listen=None)
    assert wire.Client(("127.0.0.1", port)).read_all() == b"one"
    reload(proxy, path, text.format(two.port), "config successfully reloaded")
    assert process.wait_until(lambda: wire.Client(("127.0.0.1", port)).read_all() == b"two")


def test_reload_says_what_is_wrong_and_where(sluice, tmp_path):
    port = process.free_port()
    path = written(tmp_path, f"return {{ listen = '127.0.0.1:{port}' }}")
    proxy = sluice("-c", path, "--traceback", listen=None)
    line = reload(proxy, path, f"return {{\n listen = '127.0.0.1:{port}',\n timeout = 3 }}", "is out of range, give 5 to 86400")
    assert f"{path}:3: " in line
    reload(proxy, path, f"return {{\n listen = '127.0.0.1:{port}',\n proxy = 'x' }}", f"{path}:3: field `proxy': ")
    reload(proxy, path, f"return {{\n listen = '127.0.0.1:{port}',\n idel_timeout = 3 }}", f"{path}:3: boot: there is no field `idel_timeout'")
    reload(proxy, path, "error('late')", "reload: config error: config:1: late")
    assert process.wait_until(lambda: proxy.log().endswith("  everything stays as it was\n")), proxy.log()
    assert "successfully" not in proxy.log()


def test_reload_refuses_a_circle(sluice, tmp_path):
    """-x that leads to a listener of this process, as at the start; and a target that is left to a ruleset which has gone."""
    port = process.free_port()
    path = written(tmp_path, f"return {{ listen = '127.0.0.1:{port}' }}")
    proxy = sluice("-c", path, listen=None)
    for chain in [f"socks5://127.0.0.1:{port}", f"http://localhost:{port},socks5://127.0.0.2", f"socks4a://[::ffff:127.0.0.1]:{port}"]:
        reload(proxy, path, f"return {{ listen = '127.0.0.1:{port}', proxy = '{chain}' }}", "see above; everything stays as it was")
    assert proxy.log().count("so that connections would run in a circle") == 3 and "successfully" not in proxy.log()
    reload(proxy, path, f"return {{ listen = '127.0.0.1:{port}', proxy = 'socks5://127.0.0.2:{port}' }}", "config successfully reloaded")


def test_reload_reads_the_ruleset_that_the_table_names(sluice, origin, tmp_path):
    """Both files, or neither; a new table may name another one, or bring its own."""
    port, one, two = process.free_port(), origin(lambda _, s: s.sendall(b"one")), origin(lambda _, s: s.sendall(b"two"))

    def rules(target, name="r.lua"):
        return written(tmp_path, f"local function f() return '127.0.0.1:{target.port}' end return {{ resolve = f, route = f }}", name)

    def seen():
        with wire.greet(wire.Client(("127.0.0.1", port))) as client:
            client.send(wire.socks5("192.0.2.1", 80))
            assert wire.read_socks5_reply(client)[0] == 0
            return client.read_all()

    text = f"return {{ listen = '127.0.0.1:{port}', ruleset = '{rules(one)}' }}"
    path = written(tmp_path, text)
    proxy = sluice("-c", path, listen=None)
    assert seen() == b"one"
    rules(two)
    reload(proxy, path, text, "config successfully reloaded")
    assert seen() == b"two"
    written(tmp_path, "return 5", "r.lua")
    reload(proxy, path, text.replace("}", ", timeout = 9 }"), "ruleset: expected table, got number; everything stays as it was")
    assert seen() == b"two"
    reload(proxy, path, text.replace("r.lua", "nowhere.lua"), "everything stays as it was")
    reload(proxy, path, text.replace(str(tmp_path / "r.lua"), rules(one, "other.lua")), "config successfully reloaded")
    assert seen() == b"one"
    table = f"{{ resolve = function() return '127.0.0.1:{two.port}' end, route = function() return '127.0.0.1:{two.port}' end }}"
    reload(proxy, path, f"return {{ listen = '127.0.0.1:{port}', ruleset = {table} }}", "config successfully reloaded")
    assert seen() == b"two"


@pytest.mark.parametrize("option", ["-r", "-c"])
def test_reload_of_standard_input(tmp_path, option):
    """It has been read to its end: nothing can be read again, and that is said."""
    port = process.free_port()
    log = open(tmp_path / "log", "w+", encoding="utf-8")
    child = subprocess.Popen([process.BINARY, "-l", f"127.0.0.1:{port}", option, "-"], stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        child.stdin.write(b"return { route = function(a) return a end }" if option == "-r" else b"return {}")
        child.stdin.close()

        def said():
            log.seek(0)
            return log.read()

        assert process.wait_until(lambda: "listening on" in said())
        child.send_signal(signal.SIGHUP)
        assert process.wait_until(lambda: "reload: the script came from standard input" in said()), said()
        child.terminate()
        assert child.wait(20 * process.SLOW) == 0
    finally:
        child.kill()
        child.wait()
        log.close()


def test_reload_takes_another_token_file(sluice, tmp_path):
    for name, text in [("one", "first\n"), ("two", "second\n"), ("bad", "a b c\n")]:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    ports = [process.free_port() for _ in range(2)]
    base = f"listen = '127.0.0.1:{ports[0]}', restapi = '127.0.0.1:{ports[1]}'"
    path = written(tmp_path, f"return {{ {base} }}")
    proxy = sluice("-c", path, listen=None)
    api = scripts.Api(("127.0.0.1", ports[1]))

    def allowed(token):
        return api.ask("GET", "/metrics", headers={"Authorization": f"Bearer {token}"} if token else {}).status == 200

    assert allowed("")
    for name, token, old in [("one", "first", ""), ("two", "second", "first")]:
        reload(proxy, path, f"return {{ {base}, api_token_file = '{tmp_path / name}' }}", "config successfully reloaded")
        assert process.wait_until(lambda: "1 token in force" in proxy.log() and allowed(token)) and not allowed(old)
    for name in ["bad", "nowhere"]:
        reload(proxy, path, f"return {{ {base}, api_token_file = '{tmp_path / name}', timeout = 9 }}", "see above; everything stays as it was")
        assert allowed("second") and f"--api-token-file {tmp_path / name}" in proxy.log()
    (tmp_path / "two").write_text("third\n")
    proxy.signal(signal.SIGHUP)  # the file of the settings in force is read again, though the script still names another one
    assert process.wait_until(lambda: allowed("third")) and not allowed("second")
