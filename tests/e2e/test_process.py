"""The program as a citizen of Unix: options, exit codes, signals, users, daemons, kernels without io_uring."""
import errno
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import time

import pytest

import namespaces
import origins
import process
import wire

LISTEN = ("-l", "127.0.0.1:1")  # never bound: these command lines are refused before


def one_line(stderr):
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert len(lines) == 1, stderr
    return lines[0]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option):
    code, out, err = process.run(option)
    assert code == 0 and err == ""
    assert out.startswith("sluice ")
    for word in ("-l, --listen", "--http", "-f, --forward", "-x, --proxy", "--tproxy", "--nameserver", "--relay",
                 "--workers", "--idle-timeout", "--drain", "--max-startups", "--block-outbound", "-u, --user"):
        assert word in out, word
    assert all(len(line) <= 80 for line in out.splitlines())
    options = [line for line in out.splitlines() if line.startswith("  ") and not line.startswith("  sluice")]
    assert len(options) > 60
    for line in options:
        assert re.match(r".{28}  \S|      --\S+ \S{6,}$", line), f"not in the column of the descriptions: {line}"


def test_version():
    code, out, err = process.run("--version")
    assert code == 0 and err == ""
    assert re.fullmatch(r"sluice \d+\.\d+\.\d+ \(needs Linux 6\.1 or newer with io_uring\)\n", out)


def test_the_kernel_is_described(sluice):
    proxy = sluice("--loglevel", "5")
    release = tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups()))
    words = [word for since, word in [((6, 3), " registered-ring (6.3)"), ((6, 10), " bundles (6.10)"),
                                      ((6, 12), " min-wait (6.12)")] if release >= since]
    assert f"io_uring of Linux {os.uname().release}, beyond 6.1:{''.join(words) or ' nothing'}\n" in proxy.log()


WRONG = {
    "nothing": ([], "-l"),
    "unknown option": ([*LISTEN, "--frobnicate"], "--frobnicate"),
    "unknown letter": ([*LISTEN, "-Z"], "-Z"),
    "abbreviation": ([*LISTEN, "--work", "2"], "--work"),
    "a word": ([*LISTEN, "word"], "word"),
    "no operand": (["-l"], "-l"),
    "no operand, long": ([*LISTEN, "--timeout"], "--timeout"),
    "a value for a flag": ([*LISTEN, "--tproxy=yes"], "--tproxy"),
    "no port": (["-l", "127.0.0.1"], "-l"),
    "forward to port 0": ([*LISTEN, "-f", "127.0.0.1:0"], "-r"),
    "port 65536": (["-l", "127.0.0.1:65536"], "-l"),
    "port 99999": (["-l", ":99999"], "-l"),
    "bare IPv6": (["-l", "::1:1080"], "-l"),
    "unix without path": (["-l", "unix:"], "-l"),
    "unix with a long path": (["-l", "unix:/" + "x" * 200], "-l"),
    "unknown service": (["-l", "127.0.0.1:no-such-service"], "no-such-service"),
    "unknown host": (["-l", "x" * 64 + ".invalid:1080"], "x" * 64),  # no name server is asked for such a label
    "forward without listener": (["-f", "127.0.0.1:80"], "-f"),
    "forward without port": ([*LISTEN, "-f", "127.0.0.1"], "-f"),
    "forward to port 65536": ([*LISTEN, "-f", "127.0.0.1:65536"], "-f"),
    "forward and http": ([*LISTEN, "--http", "-f", "127.0.0.1:80"], None),
    "forward and tproxy": ([*LISTEN, "-f", "127.0.0.1:80", "--tproxy"], "--tproxy"),
    "http and tproxy": ([*LISTEN, "--http", "127.0.0.1:2", "--tproxy"], "--tproxy"),
    "proxy of no scheme": ([*LISTEN, "-x", "127.0.0.1:1080"], "-x"),
    "proxy of an unknown scheme": ([*LISTEN, "-x", "ftp://127.0.0.1:1080"], "-x"),
    "second proxy wrong": ([*LISTEN, "-x", "socks5://127.0.0.1,"], "proxy 2"),
    "proxy of port 0": ([*LISTEN, "-x", "http://127.0.0.1:0"], "port 0"),
    "tokens without an API": ([*LISTEN, "--api-token-file", "/dev/null"], "--api-token-file"),
    "nine proxies": ([*LISTEN, "-x", ",".join(["socks5://127.0.0.1"] * 9)], "-x"),
    "proxy and bind": ([*LISTEN, "-x", "http://127.0.0.1", "--enable-socks5-bind"], "bind"),
    "advertised name": ([*LISTEN, "--enable-socks5-udp", "--udp-advertise", "box.example"], "--udp-advertise"),
    "advertised wildcard": ([*LISTEN, "--enable-socks5-udp", "--udp-advertise", "0.0.0.0"], "--udp-advertise"),
    "two advertised addresses": ([*LISTEN, "--enable-socks5-udp", "--udp-advertise", "192.0.2.1,192.0.2.2"], "--udp-advertise"),
    "advertised port": (["-l", "127.0.0.1:1,udp-advertise=192.0.2.1:9", "--enable-socks5-udp"], "192.0.2.1:9"),
    "proxy and udp": ([*LISTEN, "-x", "http://127.0.0.1,socks5://127.0.0.1", "--enable-socks5-udp"], "udp"),
    "name server of no address": ([*LISTEN, "--nameserver", "dns.example"], "--nameserver"),
    "timeout 4": ([*LISTEN, "-t", "4"], "-t"),
    "timeout 86401": ([*LISTEN, "-t", "86401"], "-t"),
    "timeout word": ([*LISTEN, "-t", "soon"], "-t"),
    "timeout nan": ([*LISTEN, "-t", "nan"], "-t"),
    "sessions word": ([*LISTEN, "-m", "many"], "-m"),
    "sessions negative": ([*LISTEN, "-m", "-1"], "-m"),
    "startups of two": ([*LISTEN, "--max-startups", "1:2"], "--max-startups"),
    "startups rate": ([*LISTEN, "--max-startups", "1:101:5"], "--max-startups"),
    "startups order": ([*LISTEN, "--max-startups", "9:30:5"], "--max-startups"),
    "startups over sessions": ([*LISTEN, "-m", "5", "--max-startups", "1:30:9"], "--max-startups"),
    "block word": ([*LISTEN, "--block-outbound", "loopback,home"], "home"),
    "block all": ([*LISTEN, "--block-outbound", "local,global"], "--block-outbound"),
    "workers 0": ([*LISTEN, "--workers", "0"], "--workers"),
    "workers 257": ([*LISTEN, "--workers", "257"], "--workers"),
    "relay word": ([*LISTEN, "--relay", "fast"], "--relay"),
    "log word": ([*LISTEN, "--log", "paper"], "--log"),
    "loglevel 9": ([*LISTEN, "--loglevel", "9"], "--loglevel"),
    "user unknown": ([*LISTEN, "-u", "no-such-user"], "no-such-user"),
    "user empty": ([*LISTEN, "-u", ":"], "-u"),
    "group unknown": ([*LISTEN, "-u", "nobody:no-such-group"], "no-such-group"),
    "address of somebody else": (["-l", "192.0.2.77:1080"], "192.0.2.77"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_command_line(name):
    words, mentions = WRONG[name]
    code, out, err = process.run(*words)
    assert code == 1 and out == ""
    assert (mentions or "-") in one_line(err)


@pytest.mark.parametrize("name", [name for name in WRONG if name != "address of somebody else"])
def test_check_refuses_the_same(name):
    words, mentions = WRONG[name]
    code, _, err = process.run("--check", *words)
    assert code == 1
    assert (mentions or "-") in one_line(err)


def test_check_accepts(tmp_path):
    path = tmp_path / "socket"
    code, out, err = process.run("--check", "-l", f"unix:{path}", "-t", "5", "--workers=2", "--relay=splice", "-4",
                                 "--max-startups=1:2:3", "-x", "http://u:p@127.0.0.1,socks4a://[::1]:9")
    assert code == 0 and err == "" and out
    assert not path.exists()


@pytest.mark.parametrize("option", ["--proto-timeout", "--bidir-timeout", "-C", "-v", "-s",
                                    "--ingress", "--egress"])
def test_obsolete_option(option):
    code, _, err = process.run("--check", *LISTEN, option)
    assert code == 0
    assert option in one_line(err) and "obsolete" in err


@pytest.mark.parametrize("option", ["--reuseport", "--pipe", "--no-fastopen", "--no-conn-cache"])
def test_accepted_option(option):
    assert process.run("--check", *LISTEN, option)[0] == 0


def test_equals_sign(sluice, origin):
    target, port = origin(), process.free_port()
    sluice(f"--listen=127.0.0.1:{port}", f"--forward=127.0.0.1:{target.port}", "--timeout=5", listen=None)
    with wire.Client(("127.0.0.1", port)) as client:
        client.send(b"x")
        assert client.read(1) == b"x"


def test_dump_config():
    code, out, err = process.run("--dump-config", "-l", "127.0.0.1:1080", "-x", "socks5://u:p\\\"@127.0.0.2", "-4",
                                 "-t", "12.5", "-m", "7", "--max-startups", "1:2:3", "--loglevel=5")
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert lines[0] == "return {" and lines[-1] == "}"
    values = dict(re.fullmatch(r"    (\w+) = (.*),", line).groups() for line in lines[1:-1])
    assert values["listen"] == '"127.0.0.1:1080"' and values["proxy"] == '"socks5://u:p\\\\\\"@127.0.0.2"'
    assert values["resolve_pf"] == "2" and values["timeout"] == "12.5" and values["max_sessions"] == "7"
    assert values["startup_limit_start"] == "1" and values["startup_limit_full"] == "3"
    assert values["forward"] == "nil" and values["socks5_udp"] == "false" and values["loglevel"] == "5"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_port_in_use(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()
        text = f"[{host}]:{taken.getsockname()[1]}" if ":" in host else f"{host}:{taken.getsockname()[1]}"
        code, out, err = process.run("-l", text)
    assert code == 1 and out == ""
    assert text in one_line(err) and "use" in err


def test_port_in_use_by_another_sluice(sluice):
    proxy = sluice()
    code, _, err = process.run("-l", proxy.url)
    assert code == 1
    assert proxy.url in one_line(err)


def test_reuseport_lets_another_in(sluice, origin):
    first, target = sluice("--reuseport"), origin()
    second = sluice("-l", first.url, "--reuseport", listen=None)
    second.address = first.address
    for _ in range(20):
        with wire.through_socks5(first.address, "127.0.0.1", target.port) as client:
            client.send(b"x")
            assert client.read(1) == b"x"


def test_each_listener_is_one_socket_per_worker(sluice):
    """What is opened to find out whether a port is taken is closed again."""
    def sockets(*words):
        return sluice("--workers", "2", *words).sockets_at_start

    more = [word for _ in range(3) for word in ("-l", f"127.0.0.1:{process.free_port()}")]
    assert sockets(*more) == sockets() + 3 * 2


def test_threads_have_names(sluice):
    """By which `top -H` and perf tell them apart."""
    proxy = sluice("--workers", "2")
    assert process.wait_until(lambda: {"worker-0", "worker-1", "resolver", "supervisor"} <= proxy.thread_names()), proxy.thread_names()


def test_same_listener_twice():
    code, _, err = process.run("-l", "127.0.0.1:1", "-l", "127.0.0.1:1")
    assert code == 1
    assert "127.0.0.1:1" in one_line(err)


def test_unix_path_in_use(sluice, tmp_path):
    path = tmp_path / "socket"
    sluice("-l", f"unix:{path}", listen=None)
    code, _, err = process.run("-l", f"unix:{path}")
    assert code == 1
    assert str(path) in one_line(err)
    assert path.exists()


def test_closed_standard_descriptors(tmp_path, origin):
    """What a shell calls <&- >&- 2>&-. No socket has their numbers: what is logged, or printed, would go to a client."""
    target, port = origin(origins.hold), process.free_port()
    command = f"exec {process.BINARY} -l 127.0.0.1:{port} --loglevel 5 <&- >&- 2>&-"
    with subprocess.Popen(["/bin/sh", "-c", command]) as child:
        try:
            assert process.wait_until(lambda: find_daemon(port) == child.pid)
            client = wire.through_socks5(("127.0.0.1", port), "127.0.0.1", target.port)
            assert [os.readlink(f"/proc/{child.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
            client.close()
        finally:
            child.terminate()
        assert child.wait(20 * process.SLOW) == 0


def test_a_file_is_not_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    for words in (["-l", f"unix:{path}"], ["-l", "127.0.0.1:0", "--api", f"unix:{path}"]):
        code, _, err = process.run(*words)
        assert code == 1 and str(path) in one_line(err) and "no socket stands there" in err
    assert path.read_text() == "precious"
    for words in (["-l", f"unix:{path}/x"], ["-l", "127.0.0.1:0", "--api", f"unix:{path}/x"]):
        code, _, err = process.run(*words)
        assert code == 1 and "a part of its path is no folder" in one_line(err)
    for words in (["-l", f"unix:{tmp_path}/none/x"], ["-l", "127.0.0.1:0", "--api", f"unix:{tmp_path}/none/x"]):
        code, _, err = process.run(*words)
        assert code == 1 and "the folder does not exist" in one_line(err)


@pytest.mark.parametrize("number, word", [(errno.ENOSYS, "no io_uring"), (errno.EPERM, "forbidden")])
def test_no_io_uring(no_uring, number, word):
    for mode in [[], ["--check"]]:
        done = subprocess.run([no_uring, str(number), process.BINARY, "-l", f"127.0.0.1:{process.free_port()}", *mode],
                              capture_output=True, text=True, timeout=20 * process.SLOW)
        assert done.returncode == 1 and done.stdout == ""
        line = one_line(done.stderr)
        assert "io_uring" in line and word in line and "seccomp" in line


# --- signals ---

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_resets_what_runs(sluice, origin, number):
    proxy, target = sluice(), origin(origins.hold)
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    waiting = wire.greet(wire.Client(proxy.address))
    start = time.monotonic()
    proxy.signal(number)
    assert client.ends_with() == "reset"
    assert waiting.ends_with() in ("end", "reset")
    assert proxy.wait() == 0
    assert time.monotonic() - start < 10
    with pytest.raises(ConnectionResetError):
        target.connection().recv(1)


def test_hangup_and_broken_pipe_are_survived(sluice, origin):
    proxy, target = sluice(), origin()
    for number in (signal.SIGHUP, signal.SIGPIPE):
        proxy.signal(number)
        time.sleep(0.1)
        with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
            client.send(b"x")
            assert client.read(1) == b"x"


def test_drain_lets_a_relay_finish(sluice, origin):
    proxy, target = sluice("--drain", "20"), origin()
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    proxy.signal(signal.SIGTERM)
    assert process.wait_until(lambda: not accepts(proxy.address)), "it still accepts"
    for i in range(10):
        client.send(b"%d" % i)
        assert client.read(1) == b"%d" % i
        time.sleep(0.05)
    assert proxy.alive()
    client.shut()
    assert client.read_all() == b""
    client.close()
    assert proxy.wait() == 0


def test_drain_lets_a_handshake_finish(sluice, origin):
    proxy, target = sluice("--drain", "20"), origin()
    client = wire.greet(wire.Client(proxy.address))
    proxy.signal(signal.SIGTERM)
    assert process.wait_until(lambda: not accepts(proxy.address))
    client.send(wire.socks5("127.0.0.1", target.port))
    assert wire.read_socks5_reply(client)[0] == 0
    client.send(b"x")
    assert client.read(1) == b"x"
    client.close()
    assert proxy.wait() == 0


def accepts(address):
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def test_drain_has_an_end(sluice, origin):
    proxy, target = sluice("--drain", "1.5"), origin()
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    start = time.monotonic()
    proxy.signal(signal.SIGTERM)
    assert client.ends_with() == "reset"
    assert proxy.wait() == 0
    assert 1.2 < time.monotonic() - start < 20


def test_second_signal_ends_a_drain(sluice, origin):
    proxy, target = sluice("--drain", "60"), origin()
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    proxy.signal(signal.SIGTERM)
    assert process.wait_until(lambda: not accepts(proxy.address))  # two of them in a moment would be one
    proxy.signal(signal.SIGTERM)
    assert client.ends_with() == "reset"
    assert proxy.wait() == 0


# --- users and daemons ---

def needs_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


def low_port():
    """Two suites at the same time hardly begin at the same one."""
    for port in sorted(range(600, 1024), key=lambda port: (port + os.getpid()) % 424):
        if process.is_free("127.0.0.1", port, socket.SOCK_STREAM):
            return port
    raise AssertionError("no low port is free")


@pytest.mark.parametrize("spec", ["nobody", "nobody:", "nobody:nogroup", "65534:65534"])
def test_user_is_dropped_after_binding(sluice, origin, spec):
    needs_root()
    port, target = low_port(), origin()
    proxy = sluice("-l", f"127.0.0.1:{port}", "-u", spec, "--workers", "2", listen=None)
    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid if ":" in spec else os.getegid()
    for text in proxy.threads("status"):  # they have users of their own
        assert re.search(r"^Uid:\s+(.*)$", text, re.MULTILINE).group(1).split() == [str(uid)] * 4
        assert re.search(r"^Gid:\s+(.*)$", text, re.MULTILINE).group(1).split() == [str(gid)] * 4
        assert re.search(r"^Groups:(.*)$", text, re.MULTILINE).group(1).split() == []
        assert re.search(r"^CapEff:\s+(.*)$", text, re.MULTILINE).group(1) == "0" * 16
    for way in ("socks5", "http"):
        with wire.WAYS[way](("127.0.0.1", port), "localhost", target.port) as client:
            for _ in range(10):
                client.send(b"x" * 100000)
                assert len(client.read(100000)) == 100000


def find_daemon(port):
    """The process that listens on the port."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        inodes = {line.split()[9] for line in table if line.split()[3] == "0A" and
                  line.split()[1].endswith(f":{port:04X}")}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") == f"socket:[{inode}]"
                   for fd in os.listdir(f"/proc/{pid}/fd") for inode in inodes):
                return int(pid)
        except OSError:
            continue
    return None


def is_over(pid):
    """Whether it has ended; somebody else reaps it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_daemon(origin):
    target, port = origin(), process.free_port()
    code, out, err = process.run("-d", "-l", f"127.0.0.1:{port}")
    pid = find_daemon(port)
    try:
        assert code == 0 and out == "" and err == ""
        assert pid and os.getsid(pid) != os.getsid(0)
        assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)] == ["/dev/null"] * 3
        with wire.through_socks5(("127.0.0.1", port), "127.0.0.1", target.port) as client:  # at once: it is ready
            client.send(b"x")
            assert client.read(1) == b"x"
    finally:
        if pid:
            os.kill(pid, signal.SIGTERM)
    assert process.wait_until(lambda: is_over(pid))


def test_daemon_tells_that_it_could_not_bind():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = process.run("-d", "-l", text)
    assert code == 1
    assert text in one_line(err)


def test_daemon_tells_that_there_is_no_io_uring(no_uring):
    done = subprocess.run([no_uring, str(errno.ENOSYS), process.BINARY, "-d", "-l",
                           f"127.0.0.1:{process.free_port()}"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "io_uring" in one_line(done.stderr)


# --- the log ---

def test_log_levels_and_form(sluice, origin):
    proxy, target = sluice("--loglevel", "6"), origin()
    with wire.through_socks5(proxy.address, "127.0.0.1", target.port):
        pass
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5("127.0.0.1", process.free_port()))
        client.read_all()
    assert proxy.says("refused")
    for line in proxy.log().splitlines():
        assert re.match(r"[FEWIDV] \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d [a-z_]+\.c:\d+ \S", line), line


def test_log_is_quiet_by_default(sluice, origin):
    proxy, target = sluice(), origin()
    for _ in range(5):
        with wire.through_socks5(proxy.address, "127.0.0.1", target.port):
            pass
    time.sleep(0.3)
    assert proxy.log().count("\n") == 1


def test_syslog(sluice, tmp_path):
    """Lines go there with their severity, and nowhere else."""
    if not namespaces.can_mount():
        pytest.skip("no mounts of one's own here")
    folder, log = tmp_path / "dev", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    folder.mkdir()
    log.bind(str(folder / "log"))
    log.settimeout(15 * process.SLOW)
    nodes = [name for name in ["null", "urandom", "random", "zero"] if os.path.exists("/dev/" + name)]
    for name in nodes:
        (folder / name).touch()
    mounts = [f"mount --bind /dev/{name} {folder}/{name}" for name in nodes] + [f"mount --rbind {folder} /dev"]
    proxy = sluice("--log", "syslog", "--loglevel", "5", prefix=namespaces.with_mounts(*mounts), ready=False)
    proxy.check_descriptors = False  # how many there were at the start is not known without a log
    seen = []

    def read_until(word):
        while not seen or word not in seen[-1]:
            seen.append(log.recv(4096).decode())
        line = re.fullmatch(rf"<(\d+)>\w{{3}} [ \d]\d \d\d:\d\d:\d\d sluice\[{proxy.pid}\]: (\w+\.c:\d+ .*)", seen[-1])
        assert line, seen[-1]
        return int(line.group(1)) % 8

    assert read_until("listening on") == 5  # notice
    with wire.Client(proxy.address) as client:
        assert client.send(wire.socks4("224.0.0.1", 80)).read_all() == wire.SOCKS4_REJECTED
    assert read_until("connection blocked by policy") == 6  # info
    proxy.signal(signal.SIGTERM)
    assert read_until("server shutdown gracefully") == 5
    assert proxy.log() == ""
    log.close()


@pytest.mark.parametrize("mask, mode", [(0o000, 0o777), (0o022, 0o755), (0o077, 0o700)])
def test_umask_decides_who_may_use_a_unix_listener(sluice, tmp_path, mask, mode):
    """The API's socket is closed to others whatever the umask: test_api_doors.py."""
    path = str(tmp_path / "proxy")
    proxy = sluice("-l", f"unix:{path}", prefix=("sh", "-c", f'umask {mask:o}; exec "$@"', "sh"))
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    proxy.finish()
    assert not os.path.exists(path)


def test_secrets_are_not_logged(sluice, origin):
    target = origin()
    second = sluice()
    proxy = sluice("--loglevel", "8", "-x", f"http://user:hunter2@{second.url}")
    with wire.greet(wire.Client(proxy.address), b"someone", b"topsecret") as client:
        client.send(wire.socks5("127.0.0.1", target.port))
        assert wire.read_socks5_reply(client)[0] == 0
    assert process.wait_until(lambda: proxy.log().count("\n") > 5)
    time.sleep(0.3)
    assert "hunter2" not in proxy.log() and "topsecret" not in proxy.log()
