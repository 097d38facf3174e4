"""--users: who may come is in a file. Each protocol's word for who may not, reloads, and who waits for whom."""
import ctypes
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from http.client import HTTPException

import pytest

import process
import wire
from test_auth import hosts_of, http, plain, sign_in, socks5
from test_ruleset import echoes

CRYPT = ctypes.CDLL("libcrypt.so.1").crypt
CRYPT.restype = ctypes.c_char_p
CHEAP = b"$2b$04$abcdefghijklmnopqrstuu"  # about a millisecond
SLOW = b"$6$rounds=60000$salt"  # some hundredths of a second
SLOWER = b"$6$rounds=600000$salt"  # some tenths


def hashed(password, setting=CHEAP):
    return CRYPT(password, setting).decode()


def write(path, **users):
    """name=password, or name=(password, rest of the line)"""
    lines = ["# who may come", ""]
    for name, what in users.items():
        password, rest = what if isinstance(what, tuple) else (what, "")
        lines.append(f"{name}:{hashed(password.encode())}{rest}")
    path.with_suffix(".new").write_text("\n".join(lines) + "\n")
    os.replace(path.with_suffix(".new"), path)
    return path


@pytest.fixture
def users(tmp_path):
    return write(tmp_path / "users", alice="right", bob="other")


def reload(proxy, line):
    """SIGHUP, until that line stands in the log once more."""
    before = proxy.log().count(line)
    os.kill(proxy.pid, signal.SIGHUP)
    assert process.wait_until(lambda: proxy.log().count(line) > before), proxy.log()


def test_every_protocol_has_its_word(sluice, origin, users):
    target = origin()
    proxy = sluice("--users", users, "--workers", "2")
    for _ in range(3):
        assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0)
        assert http(proxy, target, wire.basic(b"bob", b"other")) == 200
        assert b"502 Bad Gateway" in plain(proxy, target, wire.basic(b"alice", b"right")), "an echo is no response"
    for user, password in [(b"alice", b"wrong"), (b"alice", b"other"), (b"nobody", b"right"), (b"Alice", b"right"), (b"alice", b"right ")]:
        assert socks5(proxy, target, user, password) == (b"\1\1", None)
        assert http(proxy, target, wire.basic(user, password)) == 407
        refusal = plain(proxy, target, wire.basic(user, password))
        assert refusal.startswith(b"HTTP/1.1 407 ") and b'Proxy-Authenticate: Basic realm="proxy"' in refusal
    assert http(proxy, target, b"") == 407
    assert http(proxy, target, b"Proxy-Authorization: Bearer x\r\n") == 407
    assert wire.Client(proxy.address).send(b"\5\1\0").read_all() == b"\5\xff"
    for user in [b"", b"alice", b"alice:right"]:
        assert wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, user)).read_all() == wire.SOCKS4_REJECTED
        assert wire.Client(proxy.address).send(wire.socks4a("localhost", target.port, user)).read_all() == wire.SOCKS4_REJECTED


def test_real_clients(sluice, origin, users):
    def answer(_origin, connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        connection.close()

    target = origin(answer)
    proxy = sluice("--users", users)

    def curl(*words):
        done = subprocess.run(["curl", "-sS", "-m", "30", *words, f"http://127.0.0.1:{target.port}/"], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    for way in [["--socks5", f"alice:right@{proxy.url}"], ["--socks5-hostname", f"bob:other@{proxy.url}"],
                ["-x", f"http://alice:right@{proxy.url}"], ["-p", "-x", f"http://alice:right@{proxy.url}"]]:
        assert curl(*way) == (0, "hello")
    assert curl("--socks5", f"alice:wrong@{proxy.url}")[0] == 97
    assert curl("--socks5", proxy.url)[0] == 97
    assert curl("--socks4", f"alice@{proxy.url}")[0] == 97
    assert curl("-p", "-x", f"http://alice:wrong@{proxy.url}")[0] == 56


def test_pysocks(sluice, origin, users):
    socks = pytest.importorskip("socks")
    target = origin()
    proxy = sluice("--users", users)

    def connect(kind, **credentials):
        client = socks.socksocket()
        client.settimeout(30)
        client.set_proxy(kind, *proxy.address, **credentials)
        with client:
            client.connect(("127.0.0.1", target.port))
            client.sendall(b"ping")
            return client.recv(4)

    assert connect(socks.SOCKS5, username="alice", password="right") == b"ping"
    assert connect(socks.HTTP, username="bob", password="other") == b"ping"
    with pytest.raises(socks.ProxyError):
        connect(socks.SOCKS5, username="alice", password="other")
    with pytest.raises(socks.ProxyError):
        connect(socks.SOCKS4, username="alice")


def test_a_client_that_sends_everything_at_once(sluice, origin, users):
    """And one that sends octet by octet: the check of the password is a wait between messages that are there already."""
    target = origin()
    proxy = sluice("--users", users)
    whole = b"\5\1\2" + wire.socks5_auth(b"alice", b"right") + wire.socks5("127.0.0.1", target.port) + b"ping"
    for send in [wire.Client.send, wire.Client.send_slowly]:
        client = wire.Client(proxy.address)
        send(client, whole)
        assert client.read(4) == b"\5\2\1\0" and wire.read_socks5_reply(client)[0] == 0 and client.read(4) == b"ping"
    head = wire.http_connect("127.0.0.1", target.port, wire.basic(b"bob", b"other"))
    for send in [wire.Client.send, wire.Client.send_slowly]:
        client = wire.Client(proxy.address)
        send(client, head + b"ping")
        assert client.read(len(wire.HTTP_ESTABLISHED) + 4) == wire.HTTP_ESTABLISHED + b"ping"


def test_requests_of_one_connection_are_judged_each(sluice, origin, users):
    def answer(_origin, connection):
        while data := connection.recv(65536):
            for _ in range(data.count(b"\r\n\r\n")):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Saw: %d\r\n\r\n" % (b"uthorization" in data))

    target = origin(answer)
    proxy = sluice("--users", users)
    client = wire.Client(proxy.address)
    request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n%s\r\n"
    for user, password in [(b"alice", b"right"), (b"bob", b"other"), (b"alice", b"right")]:
        head = client.send(request % (target.port, wire.basic(user, password))).read_head()
        assert head.startswith(b"HTTP/1.1 200 ") and b"X-Saw: 0" in head, "credentials for the proxy go no further"
    assert client.send(request % (target.port, wire.basic(b"alice", b"other"))).read_head().startswith(b"HTTP/1.1 407 ")
    client = wire.Client(proxy.address)
    assert client.send(request % (target.port, wire.basic(b"bob", b"other"))).read_head().startswith(b"HTTP/1.1 200 ")
    assert client.send(request % (target.port, b"")).read_head().startswith(b"HTTP/1.1 407 ")


def test_a_ruleset_sees_the_checked_name(ruled, origin, users):
    target = origin()
    proxy, api = ruled("""
        _G.seen = {}
        local function f(addr, user, password)
            seen[#seen + 1] = tostring(user) .. "/" .. tostring(password)
            if user == "bob" then return nil end
            return addr
        end
        return { resolve = f, route = f, login = function() seen[#seen + 1] = "login" return false end }""", "--users", users)
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0)
    assert socks5(proxy, target, b"bob", b"other") == (b"\1\0", 1)
    assert http(proxy, target, wire.basic(b"alice", b"right")) == 200
    assert http(proxy, target, wire.basic(b"bob", b"other")) == 403
    assert socks5(proxy, target, b"alice", b"wrong") == (b"\1\1", None)
    assert http(proxy, target, wire.basic(b"bob", b"wrong")) == 407
    assert api.call("return table.concat(seen, ' ')") == 'return true,"alice/nil bob/nil alice/nil bob/nil"'


def test_bind_and_udp_are_for_users(sluice, users):
    proxy = sluice("--users", users, "--enable-socks5-bind", "--enable-socks5-udp")
    for command in [2, 3]:
        status, client = sign_in(proxy, b"alice", b"wrong")
        assert status == b"\1\1" and client.read_all() == b""
        status, client = sign_in(proxy, b"alice", b"right")
        assert status == b"\1\0"
        assert wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", 0 if command == 3 else 9, command=command)))[0] == 0
        client.close()


def test_reload(sluice, origin, users):
    target = origin()
    proxy = sluice("--users", users, "--workers", "2")
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0)
    status, running = sign_in(proxy, b"alice", b"right")
    wire.read_socks5_reply(running.send(wire.socks5("127.0.0.1", target.port)))
    write(users, alice="new", carol="third")
    reload(proxy, "2 users of")
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\1", None), "what was remembered is forgotten"
    assert socks5(proxy, target, b"alice", b"new") == (b"\1\0", 0)
    assert socks5(proxy, target, b"bob", b"other") == (b"\1\1", None)
    assert socks5(proxy, target, b"carol", b"third") == (b"\1\0", 0)
    assert running.send(b"still here").read(10) == b"still here"
    users.write_text("alice:" + hashed(b"newest") + "\ncarol:third\n")
    reload(proxy, "the users of before stay in force")
    assert re.search(r"--users \S+users:2: this is no hash of .*`sluice --hash-password` makes one; the users of before", proxy.log())
    assert socks5(proxy, target, b"alice", b"new") == (b"\1\0", 0) and socks5(proxy, target, b"carol", b"third") == (b"\1\0", 0)
    users.unlink()
    reload(proxy, "the users of before stay in force")
    assert socks5(proxy, target, b"alice", b"new") == (b"\1\0", 0)


def test_reload_under_load(sluice, origin, users):
    """Nobody who gives the right password is refused while the file changes, and nobody with a wrong one gets in."""
    target = origin()
    proxy = sluice("--users", users, "--workers", "2")
    over, wrong, counts = threading.Event(), [], [0, 0, 0]

    def come(index, user, password, expected):
        while not over.is_set():
            try:
                status, client = sign_in(proxy, user, password)
                client.close()
            except OSError as error:
                status = error
            if status != expected:
                wrong.append((user, status))
            counts[index] += 1

    threads = [threading.Thread(target=come, args=words) for words in
               [(0, b"alice", b"right", b"\1\0"), (1, b"bob", b"other", b"\1\0"), (2, b"bob", b"right", b"\1\1")]]
    for thread in threads:
        thread.start()
    for turn in range(20):
        write(users, alice=("right", f":g{turn}"), bob="other", **{f"user{i}": "x" for i in range(turn % 3)})
        reload(proxy, "users of")
        seen = list(counts)
        assert process.wait_until(lambda: all(now > then for now, then in zip(counts, seen)))
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]


def test_one_source_that_tries_passwords_delays_nobody(sluice, origin, users):
    """1,000 slow hashes of one source would take minutes: others, known or new, do not wait for them."""
    target = origin()
    with open(users, "a", encoding="ascii") as file:
        file.write(f"slow:{hashed(b'right', SLOWER)}\n")
    proxy = sluice("--users", users, "--workers", "2", "--max-sessions", "4000", "--api", "unix:" + str(users) + ".api")
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0)
    crowd = []
    for _ in range(1000):
        client = wire.Client(proxy.address, source=("127.0.0.66", 0))
        crowd.append(client.send(b"\5\1\2" + wire.socks5_auth(b"slow", b"wrong")))

    def refused():
        count = 0
        for client in crowd:
            client.socket.setblocking(False)
            try:
                count += client.socket.recv(8, socket.MSG_PEEK) == b"\5\2\1\1"
            except BlockingIOError:
                pass
        return count

    assert process.wait_until(lambda: refused() >= 1000 - 64 - 16, 60), "most of them are not even tried"
    assert refused() < 1000, "the others still wait for their turn"
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0), "who is known"
    assert socks5(proxy, target, b"bob", b"other") == (b"\1\0", 0), "who has not come before"
    assert socks5(proxy, target, b"slow", b"right") == (b"\1\0", 0)
    assert refused() < 1000, "all of that has passed the line of 127.0.0.66"
    for client in crowd:
        client.reset()


def test_stop_while_passwords_are_checked(sluice, users):
    with open(users, "a", encoding="ascii") as file:
        file.write(f"slow:{hashed(b'right', SLOW)}\n")
    proxy = sluice("--users", users)
    crowd = [wire.Client(proxy.address, source=(f"127.0.0.{i}", 0)) for i in range(2, 42)]
    for client in crowd:
        client.send(b"\5\1\2" + wire.socks5_auth(b"slow", b"wrong"))
    assert process.wait_until(lambda: "wrong password" in proxy.log(), 60)
    proxy.finish()
    assert "server" in proxy.log().splitlines()[-1]


def test_clients_that_leave_while_they_are_checked(sluice, origin, users):
    target = origin()
    with open(users, "a", encoding="ascii") as file:
        file.write(f"slow:{hashed(b'right', SLOW)}\n")
    proxy = sluice("--users", users)
    for way in [wire.Client.reset, wire.Client.close, wire.Client.shut]:
        crowd = [wire.Client(proxy.address, source=("127.0.0.9", 0)).send(b"\5\1\2" + wire.socks5_auth(b"slow", b"wrong")) for _ in range(20)]
        for client in crowd:
            way(client)
    assert socks5(proxy, target, b"slow", b"right") == (b"\1\0", 0)


def test_limit_of_a_user(sluice, origin, users):
    """The line's limit is that of the key user:NAME, over all that the user has; a reload changes it under way."""
    target = origin()
    write(users, alice=("right", ":staff:connections=2"), bob="other")
    proxy = sluice("--users", users, "--limit", "user:bob: connections=1")

    def enter(user, password):
        status, client = sign_in(proxy, user, password)
        assert status == b"\1\0"
        return wire.read_socks5_reply(client.send(wire.socks5("127.0.0.1", target.port)))[0], client

    held = [enter(b"alice", b"right") for _ in range(3)]
    assert [code for code, _ in held] == [0, 0, 2]
    bobs = [enter(b"bob", b"other") for _ in range(2)]
    assert [code for code, _ in bobs] == [0, 2], "a limit of --limit is that of who has none in the file"
    write(users, alice=("right", "::connections=3"), bob=("other", "::connections=2"))
    reload(proxy, "2 users of")
    more = [enter(b"alice", b"right") for _ in range(2)] + [enter(b"bob", b"other") for _ in range(2)]
    assert [code for code, _ in more] == [0, 2, 0, 2]
    write(users, alice="right", bob="other")
    reload(proxy, "2 users of")
    more += [enter(b"alice", b"right") for _ in range(3)]
    assert [code for code, _ in more[4:]] == [0, 0, 0]
    assert enter(b"bob", b"other")[0] == 2, "that of --limit is in force again"


def test_log_lines_for_fail2ban(sluice, origin, users):
    target = origin()
    proxy = sluice("--users", users, "--loglevel", "4", "--workers", "1")
    names = [b"alice", b'quo"te', b"new\nline", b'x" 192.0.2.9: authentication failed for user "y']
    for name in names:
        assert socks5(proxy, target, name, b"wrong") == (b"\1\1", None)
    http(proxy, target, wire.basic(b"bob", b"secret word"))

    def lines():
        return [line for line in proxy.log().splitlines() if "authentication failed" in line]

    assert process.wait_until(lambda: len(lines()) > len(names))
    said = lines()
    assert hosts_of(said) == ["127.0.0.1"] * len(said) and len(said) == len(names) + 1, said
    assert said[0].endswith('user "alice": wrong password') and said[1].endswith(': unknown user')
    assert r'"new\x0aline"' in said[2] and said[4].endswith('user "bob": wrong password')
    assert "secret word" not in proxy.log()


def test_an_outer_port_with_users_needs_no_warning(sluice, users):
    proxy = sluice("--users", users, listen="0.0.0.0")
    assert "whoever reaches it" not in proxy.log()


def refuses(tmp_path, *words):
    code, out, err = process.run("-l", f"127.0.0.1:{process.free_port()}", *words, cwd=tmp_path)
    assert code == 1 and len((out + err).strip().splitlines()) == 1, (code, out, err)
    return out + err


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    users = tmp_path / "users"
    for check in [["--check"], []]:
        users.unlink(missing_ok=True)
        assert "users: No such file or directory; let the user" in refuses(tmp_path, "--users", users, *check)
        users.write_text("\n\nalice:secret\n")
        assert "users:3: this is no hash of yescrypt, bcrypt or sha512" in refuses(tmp_path, "--users", users, *check)
        users.write_text(f"alice:{hashed(b'x')}\nbob:*\nalice:*\n")
        assert "users:3: that user stands on line 1 already" in refuses(tmp_path, "--users", users, *check)
        users.write_text(f"alice:{hashed(b'x')}::down=fast\n")
        assert "users:1: " in refuses(tmp_path, "--users", users, *check)
    users.write_text(f"alice:{hashed(b'x')}\n")
    assert "--users and --auth-required exclude each other" in refuses(tmp_path, "--users", users, "--auth-required", "-r", "x.lua")
    assert "clients of --forward and --tproxy cannot say who they are" in refuses(tmp_path, "--users", users, "-f", "127.0.0.1:9")
    code, out, err = process.run("-l", f"127.0.0.1:{process.free_port()}", "--users", str(users), "--check")
    assert code == 0, out + err


def test_users_of_a_config_file(tmp_path, origin, users):
    target, port = origin(), process.free_port()
    (tmp_path / "c.lua").write_text(f"return {{ listen = '127.0.0.1:{port}', users = '{users}' }}")
    proxy = process.Sluice(str(tmp_path), "-c", tmp_path / "c.lua", listen=None)
    proxy.address = ("127.0.0.1", port)
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0) and socks5(proxy, target, b"alice", b"x") == (b"\1\1", None)
    write(users, alice="new")
    reload(proxy, "1 users of")
    assert socks5(proxy, target, b"alice", b"new") == (b"\1\0", 0) and socks5(proxy, target, b"alice", b"right") == (b"\1\1", None)
    proxy.finish()


def test_hash_password_from_a_pipe():
    def run(text):
        done = subprocess.run([process.BINARY, "--hash-password"], input=text, capture_output=True, timeout=60 * process.SLOW, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    for text, password in [(b"secret\n", b"secret"), (b"secret", b"secret"), (b"p:\xc3\xa4 w\r\nmore\n", b"p:\xc3\xa4 w"), (b"x" * 255 + b"\n", b"x" * 255)]:
        code, out, err = run(text)
        assert code == 0 and not err and out.startswith("$y$j9T$") and out.endswith("\n")
        assert CRYPT(password, out.strip().encode()).decode() == out.strip()
    assert run(b"secret\n")[1] != run(b"secret\n")[1], "each has its own salt"
    for text, word in [(b"", "no password"), (b"\n", "empty"), (b"x" * 256, "255"), (b"x" * 5000, "255")]:
        code, out, err = run(text)
        assert code == 1 and not out and word in err and len(err.splitlines()) == 1, err


def test_hash_password_on_a_terminal():
    def run(*typed):
        child, terminal = pty.fork()
        if child == 0:
            os.execv(process.BINARY, [process.BINARY, "--hash-password"])
        shown = b""
        for prompt, text in zip([b"Password: ", b"Once more: "], typed):
            while prompt not in shown:
                shown += os.read(terminal, 1024)
            os.write(terminal, text)
        while True:
            try:
                data = os.read(terminal, 1024)
            except OSError:
                break
            if not data:
                break
            shown += data
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown

    code, shown = run(b"secret\n", b"secret\n")
    found = re.search(rb"\$y\$j9T\$\S+", shown).group()
    assert code == 0 and b"secret" not in shown and CRYPT(b"secret", found) == found
    code, shown = run(b"secret\n", b"other\n")
    assert code == 1 and b"not the same" in shown and b"secret" not in shown
    code, shown = run(b"\x03")
    assert code == -signal.SIGINT


def test_an_open_inner_and_an_authenticated_outer_port(tmp_path, origin, users):
    target, others = origin(), write(tmp_path / "others", carol="third")
    ports = [process.free_port() for _ in range(4)]
    proxy = process.Sluice(str(tmp_path), "--users", users, "-l", f"127.0.0.1:{ports[0]}", "-l", f"127.0.0.1:{ports[1]},users=none",
                           "-l", f"127.0.0.1:{ports[2]},users={others},protocol=socks", "--http", f"127.0.0.1:{ports[3]},users={others}", listen=None)
    doors = []
    for port in ports:
        doors.append(type("Door", (), {"address": ("127.0.0.1", port)}))
    assert socks5(doors[0], target, b"alice", b"right") == (b"\1\0", 0) and socks5(doors[0], target, b"carol", b"third") == (b"\1\1", None)
    assert wire.Client(doors[1].address).send(wire.socks4("127.0.0.1", target.port)).read(8) == wire.SOCKS4_GRANTED
    assert http(doors[1], target, b"") == 200
    assert socks5(doors[2], target, b"carol", b"third") == (b"\1\0", 0) and socks5(doors[2], target, b"alice", b"right") == (b"\1\1", None)
    assert http(doors[3], target, wire.basic(b"carol", b"third")) == 200 and http(doors[3], target, wire.basic(b"alice", b"right")) == 407
    write(others, carol="new")
    users.write_text("wrong")
    reload(proxy, "1 users of")
    assert socks5(doors[2], target, b"carol", b"new") == (b"\1\0", 0) and socks5(doors[2], target, b"carol", b"third") == (b"\1\1", None)
    assert socks5(doors[0], target, b"alice", b"right") == (b"\1\0", 0), "its own file is wrong, and the other one is not"
    proxy.finish()


def test_scripts_see_and_change_users(ruled, origin, users):
    target = origin()
    write(users, alice=("right", ":staff,eu:connections=5"), bob="other")
    proxy, api = ruled("""
        local function f(addr, user) _G.groups = table.concat(sluice.users.get(user).groups, "+") return addr end
        return { resolve = f, route = f }""", "--users", users)

    def call(code):
        answer = api.call(code)
        assert answer.startswith("return true"), answer
        return answer[len("return true,"):]

    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0) and call("return groups") == '"staff+eu"'
    assert call("return sluice.users.get('alice').limit, sluice.users.get('nobody')") == '"connections=5",nil'
    assert call("local row = sluice.users.get('alice') return row.name, row.locked, row.hash") == '"alice",false,nil'
    assert call(f"sluice.users.set('carol', {{ hash = '{hashed(b'third')}', groups = 'x' }}) return table.concat(sluice.users.list(), ' ')") == '"alice bob carol"'
    assert call("return table.concat(sluice.users.list('alice', 1), ' ')") == '"bob"'
    assert socks5(proxy, target, b"carol", b"third") == (b"\1\0", 0)
    call("sluice.users.set('alice', { hash = '!', limit = '' })")
    assert call("local row = sluice.users.get('alice') return row.locked, row.limit, #row.groups") == 'true,nil,2'
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\1", None), "at once"
    assert call("return sluice.users.remove('bob'), sluice.users.remove('bob')") == 'true,false'
    assert socks5(proxy, target, b"bob", b"other") == (b"\1\1", None)
    for code, wrong in [("set('dave', {})", "hash is missing"), ("set('a:b', { hash = '*' })", "colon"), ("set('dave', { hash = 'plain' })", "no hash of"),
                        ("set('alice', { limit = 'fast' })", "sluice.users.set"), ("set('alice', { groups = { 'a' } })", "groups is no string"),
                        ("get('x\\0')", "zero octet"), ("list(nil, 0)", "1 to 10000"), ("get('x', '/none')", "no listener has the users of /none")]:
        assert wrong in api.call(f"local _, why = pcall(load[[ return sluice.users.{code} ]]) return why"), code
    assert call(f"return sluice.users.get('carol', '{users}').name") == '"carol"'
    reload(proxy, "2 users of")
    assert call("return table.concat(sluice.users.list(), ' ')") == '"alice bob"', "the file is the truth again"


def test_the_api_sees_and_changes_users(ruled, origin, users):
    target = origin()
    write(users, alice=("right", ":staff,eu:connections=5"), bob="other")
    proxy, api = ruled(None, "--users", users)

    def put(name, **what):
        return api.ask("PUT", "/users/" + name, json.dumps(what))

    alice = {"name": "alice", "groups": ["staff", "eu"], "locked": False, "limit": "connections=5"}
    assert api.get("/users/alice").json() == alice
    assert api.get("/users").json() == {"users": [alice, {"name": "bob", "groups": [], "locked": False, "limit": None}], "next": None}
    answer = put("carol", hash=hashed(b"third"), groups=["x"], limit="down=1MiB/s")
    assert answer.status == 200 and "$" not in answer.text and answer.json()["groups"] == ["x"], answer.text
    assert socks5(proxy, target, b"carol", b"third") == (b"\1\0", 0)
    assert api.get("/limits/user:carol").json()["terms"] == {"down": "1048576B/s"}
    assert put("alice", hash="!", limit="").json() == {**alice, "locked": True, "limit": None}, "groups stay"
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\1", None), "at once"
    assert api.ask("DELETE", "/users/bob").status == 204 and api.ask("DELETE", "/users/bob").status == 404
    assert socks5(proxy, target, b"bob", b"other") == (b"\1\1", None) and api.get("/users/bob").status == 404
    for name, what, wrong in [("dave", {}, "hash is missing"), ("a:b", {"hash": "*"}, "colon"), ("dave", {"hash": "plain"}, "no hash of"),
                              ("alice", {"limit": "fast"}, ""), ("alice", {"groups": "a"}, "list"), ("alice", {"groups": ["a,b"]}, "list"),
                              ("alice", {"groups": ["g"] * 17}, "list"), ("alice", {"groups": ["g" * 64]}, "list"), ("alice", {"hash": 1}, "--hash-password"),
                              ("dave", {"password": 1}, "255 octets"), ("dave", {"password": "x", "hash": "*"}, "a hash, or a password"), ("n" * 256, {"hash": "*"}, "255")]:
        answer = put(name, **what)
        assert answer.status == 400 and wrong in answer.text, (name, what, answer.text)
    for body in ["", "x", "[]", '"a"', '{"hash": "*", "hash": "*"}', '{"groups": ["a\\u0000"]}', " " * 70000 + '{"hash": "*"}']:
        assert api.ask("PUT", "/users/alice", body).status == 400, body
    assert [row["name"] for row in api.get("/users").json()["users"]] == ["alice", "carol"]
    assert api.get(f"/users/carol?file={users}").status == 200 and api.get("/users/carol?file=/none").status == 404
    reload(proxy, "2 users of")
    assert [row["name"] for row in api.get("/users").json()["users"]] == ["alice", "bob"], "the file is the truth again"


def test_pages_of_users(ruled, tmp_path):
    """Names of any octets: the cursor is none of them."""
    path = tmp_path / "users"
    names = sorted([b"u%03d" % i for i in range(250)] + [b"a/b", b"a b", b"50%41", "\u00fc".encode(), b"\xff\xfe"])
    path.write_bytes(b"".join(name + b":*\n" for name in names))
    _, api = ruled(None, "--users", path)
    for limit in (1, 7, 1000):
        seen, cursor = [], None
        while cursor is not None or not seen:
            page = api.get(f"/users?limit={limit}" + (f"&cursor={cursor}" if cursor else "")).json()
            assert 0 < len(page["users"]) <= limit
            seen += [row["name"] for row in page["users"]]
            cursor = page["next"]
        assert seen == [name.decode() if name != b"\xff\xfe" else "??" for name in names]
    for wrong in ["limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=abc", "cursor=AB", "cursor=", "cursor=" + "61" * 256]:
        assert api.get("/users?" + wrong).status == 400, wrong
    assert api.get("/users/a/b").json()["name"] == "a/b" and api.get("/users/%C3%BC").json()["name"] == "\u00fc"


def test_scripts_hash_passwords_and_write_the_file(ruled, origin, users):
    """The call comes back when it is done; where nobody can wait it does not begin."""
    target = origin()
    write(users, alice=("right", ":staff"), bob="other")
    proxy, api = ruled("local function f(addr) return addr end return { resolve = f, route = f }", "--users", users)
    before = users.read_bytes()

    def call(code):
        return api.call(f"return select('#', sluice.users.{code})")

    assert call("set('alice', { password = 'new', limit = 'connections=5' })") == "return true,0"
    assert socks5(proxy, target, b"alice", b"new") == (b"\1\0", 0) and socks5(proxy, target, b"alice", b"right") == (b"\1\1", None)
    assert users.read_bytes() == before and api.get("/users/alice").json()["groups"] == ["staff"]
    assert call("set('carol', { password = 'third', groups = 'eu', persist = true })") == "return true,0"
    assert re.search(r"^carol:\$y\$[^:\n]+:eu$", users.read_text(), re.MULTILINE)
    assert call(f"set('bob', {{ hash = '{hashed(b'x')}', persist = true }}, '{users}')") == "return true,0"
    assert api.call("return sluice.users.remove('alice', nil, true), sluice.users.remove('alice', nil, true)") == "return true,true,false"
    assert f"\nbob:{hashed(b'x')}\n" in users.read_text() and "alice" not in users.read_text()
    reload(proxy, "2 users of")
    assert socks5(proxy, target, b"carol", b"third") == socks5(proxy, target, b"bob", b"x") == (b"\1\0", 0)
    for code, wrong in [("set('dave', { password = 'a', hash = '*' })", "give a hash, or a password"), ("set('dave', { password = '' })", "password"),
                        ("set('dave', { password = ('x'):rep(256) })", "password"), ("set('dave', { groups = 'x', persist = true })", "hash is missing"),
                        ("set('dave', { password = 1 })", "password is no string"), ("set('dave', { hash = '*', persist = 1 })", "persist is no boolean"),
                        ("set('a:b', { password = 'x' })", "colon")]:
        assert wrong in api.call(f"local _, why = pcall(load[[ sluice.users.{code} ]]) return why"), code
    outside = "_G.why = select(2, pcall(sluice.users.set, 'dave', { password = 'a' }))"
    api.call(f"setmetatable({{}}, {{ __gc = function() {outside} end }}) collectgarbage()")
    assert "not in asynchronous routine" in api.call("return _G.why") and api.get("/users/dave").status == 404
    users.parent.joinpath("users.sluice-new").mkdir()  # in the way of the new file
    assert "let the user that sluice runs as write it" in api.call("local _, why = pcall(sluice.users.remove, 'bob', nil, true) return why")
    assert socks5(proxy, target, b"bob", b"x") == (b"\1\0", 0), "nothing has changed in memory either"


def test_who_waits_for_a_hash_may_go(ruled, users):
    """What was begun is finished: when a script has resumed its coroutine by itself, and when the process ends meanwhile."""
    _, api = ruled("return {}", "--users", users)
    assert api.call("""
        local waiting = coroutine.create(function() return "mine", sluice.users.set("eve", { password = "x" }) end)
        coroutine.resume(waiting)
        return coroutine.resume(waiting, 7)""") == 'return true,true,"mine",7'
    assert process.wait_until(lambda: api.get("/users/eve").status == 200, 30)
    begin = "neosocksd.async(function(...) _G.told = ... end, sluice.users.set, 'frank', { password = 'x' })"
    assert api.call(begin + " return _G.told") == "return true,nil"


def test_scripts_without_users(ruled):
    _, api = ruled("return {}")
    assert "there are none, give --users" in api.call("local _, why = pcall(sluice.users.list) return why")


# --- passwords and the file by the API ---

def test_a_password_by_the_api(ruled, origin, users):
    """It is hashed here, acts at once, and stands nowhere: not in an answer, the log, or the file."""
    target, secret = origin(), "s\u00e4cret phrase"
    proxy, api = ruled(None, "--users", users, "--loglevel", "7")

    def put(name, **what):
        return api.ask("PUT", "/users/" + name, json.dumps(what))

    before = users.read_bytes()
    assert put("alice", password=secret, groups=["staff"]).json() == {"name": "alice", "groups": ["staff"], "locked": False, "limit": None}
    assert socks5(proxy, target, b"alice", secret.encode()) == (b"\1\0", 0) and socks5(proxy, target, b"alice", b"right") == (b"\1\1", None)
    assert put("carol", password="x" * 255, limit="connections=3").json()["limit"] == "connections=3"
    assert socks5(proxy, target, b"carol", b"x" * 255) == (b"\1\0", 0)
    assert put("alice", password="zweites").json()["groups"] == ["staff"], "what is left out stays"
    for name, what in [("dave", {"password": ""}), ("dave", {"password": "x" * 256}), ("dave", {"password": 1}), ("dave", {"groups": ["x"]}),
                       ("dave", {"password": "a", "hash": hashed(b"a")}), ("dave", {"password": "a", "groups": ["a,b"]}),
                       ("dave", {"password": "a", "limit": "none=1"}), ("%20dave", {"password": "a"}), ("a%3Ab", {"password": "a"})]:
        assert put(name, **what).status == 400, what
    assert api.get("/users/dave").status == 404 and users.read_bytes() == before, "nothing is written unless that is asked for"
    assert process.wait_until(lambda: proxy.log().count("/users alice, sha256 ") == 2)
    digest = hashlib.sha256(json.dumps({"password": "zweites"}).encode()).hexdigest()
    for word in [secret, json.dumps(secret)[1:-1], "zweites", digest]:
        assert word not in proxy.log()


def test_users_are_written_to_their_file(ruled, origin, users):
    """One line changes, all others stay as they were, and so do the file's mode and a link to it."""
    target, link = origin(), users.parent / "link"
    text = b"\xef\xbb\xbf# who may come\r\n\nalice:%s:staff\n  # blanks\nbob:%s::connections=9" % (hashed(b"right").encode(), hashed(b"other").encode())
    users.write_bytes(text)
    users.chmod(0o640)
    link.symlink_to(users)
    proxy, api = ruled(None, "--users", link)

    def put(name, **what):
        return api.ask("PUT", f"/users/{name}?persist=1", json.dumps(what))

    assert put("bob", password="new").status == 200
    lines = users.read_bytes().split(b"\n")
    assert lines[:4] == text.split(b"\n")[:4] and lines[5:] == [b""]
    assert re.fullmatch(rb"bob:\$y\$[^:]+::connections=9", lines[4])
    assert put("carol", hash=hashed(b"third"), groups=["eu", "staff"]).status == 200
    assert put("alice", groups=[]).status == 200
    lines = users.read_text().split("\n")
    assert lines[2] == "alice:" + hashed(b"right") and lines[5:] == [f"carol:{hashed(b'third')}:eu,staff", ""]
    assert users.stat().st_mode & 0o777 == 0o640 and link.is_symlink() and os.listdir(users.parent).count("users.sluice-new") == 0
    reload(proxy, "3 users of")
    for user, password in [(b"alice", b"right"), (b"bob", b"new"), (b"carol", b"third")]:
        assert socks5(proxy, target, user, password) == (b"\1\0", 0)
    assert api.ask("DELETE", "/users/bob?persist=1").status == 204 and api.ask("DELETE", "/users/bob?persist=1").status == 404
    assert "bob" not in users.read_text() and socks5(proxy, target, b"bob", b"new") == (b"\1\1", None)
    assert put("dave", password="", groups=[]).status == 400 and "dave" not in users.read_text()
    many = [threading.Thread(target=put, args=(f"user{i}",), kwargs={"password": "p"}) for i in range(12)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    assert sorted(re.findall(r"^(user\d+):\$y\$", users.read_text(), re.MULTILINE)) == sorted(f"user{i}" for i in range(12)), "none is lost"


def test_a_file_that_cannot_be_written(ruled, origin, users):
    """Then nothing has changed, in memory either."""
    target = origin()
    moved = users.parent / "folder"
    moved.mkdir()
    path = write(moved / "users", alice="right")
    proxy, api = ruled(None, "--users", path)
    (moved / "users.sluice-new").mkdir()  # in the way of the new one
    answer = api.ask("PUT", "/users/alice?persist=1", json.dumps({"password": "new"}))
    assert answer.status == 500 and "let the user that sluice runs as write it" in answer.text
    assert api.ask("DELETE", "/users/alice?persist=1").status == 500
    assert socks5(proxy, target, b"alice", b"right") == (b"\1\0", 0)
    (moved / "users.sluice-new").rmdir()
    assert api.ask("DELETE", "/users/alice?persist=1").status == 204 and path.read_text().count("alice") == 0


def test_killed_while_it_writes(ruled, tmp_path):
    """The file is always a whole one: each user who was answered for is in it, and it can be read."""
    path = write(tmp_path / "users", **{f"first{i}": "x" for i in range(20)})
    for turn in range(4):
        proxy, api = ruled(None, "--users", path)
        done, begun = [], threading.Event()

        def change(turn=turn, api=api, done=done, begun=begun):
            for i in range(1000):
                try:
                    if api.ask("PUT", f"/users/turn{turn}-{i}?persist=1", json.dumps({"hash": hashed(b"x")})).status == 200:
                        done.append(f"turn{turn}-{i}:")
                        begun.set()
                except (OSError, HTTPException):
                    return

        thread = threading.Thread(target=change)
        thread.start()
        assert begun.wait(30)
        proxy.expected_exit = -signal.SIGKILL
        proxy.kill()
        thread.join()
        text = path.read_text()
        assert all(name in text for name in done) and text.endswith("\n") and text.count("first") == 20
        assert process.run("--check", "-l", f"127.0.0.1:{process.free_port()}", "--users", str(path))[0] == 0
