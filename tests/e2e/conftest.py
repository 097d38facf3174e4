"""Fixtures: sluice itself, origins, tools of Debian, and what is compiled or installed for the tests."""
import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import fakedns  # noqa: E402
import origins  # noqa: E402
import process  # noqa: E402
import scripts  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("E2E_BUILD", os.path.join(ROOT, "build", "e2e"))


def pytest_sessionstart(session):
    if not os.access(process.BINARY, os.X_OK):
        pytest.exit(f"{process.BINARY} is not there: make all, or set SLUICE_BIN", returncode=2)


def pytest_addoption(parser):
    parser.addoption("--part", metavar="I/N", help="each Nth test from the Ith on: N runs have all of them")
    parser.addoption("--one-variant", action="store_true", help="of each test with parameters only the first ones")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--one-variant"):
        first = {}
        for item in items:
            first.setdefault(item.nodeid.partition("[")[0], item)
        items[:] = list(first.values())
    if config.getoption("--part"):
        part, parts = map(int, config.getoption("--part").split("/"))
        items[:] = items[part - 1::parts]


def require(program, package):
    """The path of a program; a missing one skips the test and names the package to install."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not path:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return path


def finish_all(proxies):
    failures = []
    for one in proxies:
        try:
            one.finish()
        except Exception as failure:  # all of them must end, whatever the first one did
            failures.append(failure)
    assert not failures, "\n".join(map(str, failures))


@pytest.fixture
def sluice(tmp_path):
    """sluice(*args) starts one on a free port; each is checked and stopped when the test ends."""
    started = []

    def start(*args, **options):
        started.append(process.Sluice(str(tmp_path), *args, **options))
        return started[-1]

    yield start
    finish_all(reversed(started))


class Pool:
    """Running proxies by their arguments, at most so many that nobody uses."""

    def __init__(self, directory, most=6):
        self.directory, self.most = directory, most
        self.idle, self.used = [], []  # (arguments, proxy), the one that was used last at the end

    def take(self, *args, **options):
        return self.find((tuple(map(str, args)), tuple(sorted(options.items()))), lambda: process.Sluice(self.directory, *args, **options))

    def take_ruled(self, script, *args):
        proxy = self.find((script, *map(str, args)), lambda: self.start_ruled(script, *args))
        return proxy, scripts.Api(proxy.api_address)

    def start_ruled(self, script, *args):
        with tempfile.NamedTemporaryFile("w", dir=self.directory, suffix=".lua", delete=False) as rules:
            rules.write(script or "")
        address = ("127.0.0.1", process.free_port())
        proxy = process.Sluice(self.directory, "--api", "%s:%d" % address, *(["-r", rules.name] if script is not None else []), *args)
        proxy.api_address = address
        return proxy

    def find(self, key, start):
        found = next((pair for pair in self.idle if pair[0] == key), None)
        if found:
            self.idle.remove(found)
        else:
            found = key, start()
        self.used.append(found)
        return found[1]

    def settle(self):
        """The end of a test: what must hold of each proxy that it used. One of which it does not is no longer for others."""
        used, self.used, failures = self.used, [], []
        for pair in used:
            try:
                pair[1].settle()
                self.idle.append(pair)
            except Exception as failure:
                pair[1].kill()
                failures.append(failure)
        self.finish(len(self.idle) - self.most)
        assert not failures, "\n".join(map(str, failures))

    def finish(self, count):
        """So many of them, the one that has waited longest first."""
        ending, self.idle = self.idle[:max(0, count)], self.idle[max(0, count):]
        finish_all(proxy for _, proxy in ending)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Per file."""
    one = Pool(str(tmp_path_factory.mktemp("shared")))
    yield one
    one.finish(len(one.idle))


@pytest.fixture
def shared(pool):
    """shared(*args): as sluice(*args), but it may have served other tests of the file that gave the same arguments, and is
    stopped with the last of them: for tests that ask nothing but what a proxy does, not what it logs or counts, and leave
    nothing behind in it. Twice in one test are two of them."""
    yield pool.take
    pool.settle()


@pytest.fixture
def shared_ruled(pool):
    """shared_ruled(script, *args): the same with a ruleset and an API, as ruled(): for tests whose calls leave nothing behind."""
    yield pool.take_ruled
    pool.settle()


@pytest.fixture
def ruled(sluice, tmp_path):
    """ruled(script, *args): a sluice with that ruleset and an API: (proxy, api). script None: no ruleset."""
    def start(script, *args, name="rules.lua", **options):
        port = process.free_port()
        if script is not None:
            (tmp_path / name).write_bytes(script if isinstance(script, bytes) else script.encode())
            args = ("-r", str(tmp_path / name), *args)
        proxy = sluice("--api", f"127.0.0.1:{port}", *args, **options)
        return proxy, scripts.Api(("127.0.0.1", port))

    return start


@pytest.fixture
def origin():
    """origin(handler) starts a server that lives as long as the test."""
    started = []

    def start(handler=origins.echo, **options):
        started.append(origins.Origin(handler, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def blackhole():
    started = []

    def start(**options):
        started.append(origins.Blackhole(**options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def dns():
    started = []

    def start():
        started.append(fakedns.NameServer())
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def namespace():
    """namespace() makes a network namespace that has its loopback and nothing else; namespaces.ip() fills it."""
    import namespaces
    require("ip", "iproute2")
    started = []

    def start(suffix=""):
        try:
            started.append(namespaces.Namespace(f"e2e{os.getpid()}{suffix}{len(started)}"))
        except namespaces.Unavailable as reason:
            pytest.skip(f"no network namespaces here: {reason}")
        return started[-1]

    yield start
    for one in reversed(started):
        one.close()


@pytest.fixture
def daemon(tmp_path):
    """daemon(words, port) starts a helper program in the foreground and waits for its port; killed by its pid."""
    import socket
    started = []

    def start(words, port=None, **options):
        log = open(tmp_path / f"daemon-{len(started)}.log", "wb")
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        started.append((child, log))

        def listens():
            assert child.poll() is None, open(log.name, errors="replace").read()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        if port:
            assert process.wait_until(listens, 10), f"{words[0]} does not listen"
        return child

    yield start
    for child, log in started:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        log.close()


@contextlib.contextmanager
def build_lock():
    """Suites of several flavours run at the same time, and share what is built for them."""
    os.makedirs(BUILD, exist_ok=True)
    with open(os.path.join(BUILD, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_c(sources, name, *flags):
    os.makedirs(BUILD, exist_ok=True)
    binary = os.path.join(BUILD, name)
    if not os.path.exists(binary) or os.path.getmtime(binary) < max(map(os.path.getmtime, sources)):
        fresh = f"{binary}.{os.getpid()}"
        compiler = shlex.split(os.environ.get("CC", "cc"))  # CC="ccache gcc"
        subprocess.run([*compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", "-o", fresh, *sources, *flags], check=True)
        os.rename(fresh, binary)
    return binary


@pytest.fixture(scope="session")
def load():
    """bench/load: its verify mode compares every octet, its idle mode holds thousands of connections."""
    binary = os.path.join(BUILD, "load")
    with build_lock():
        subprocess.run(["make", "-s", "-C", ROOT, f"BUILD={BUILD}", binary], check=True, stdout=subprocess.DEVNULL)
    return binary


@pytest.fixture
def load_origin(load, daemon):
    """The port of its origin: echo, then sink, source, idle, HTTP, verify, fill and, by UDP, echo on the seven that follow."""
    port = process.free_port()
    daemon([load, "origin", "--port", str(port)], port)
    return port


@pytest.fixture(scope="session")
def no_uring():
    """A launcher under which io_uring_setup fails with the errno that is its first argument."""
    return compile_c([os.path.join(HERE, "no_uring.c")], "no_uring")


@pytest.fixture(scope="session")
def node_modules():
    """A folder with the packages of package.json. The Makefile installs them, before the tests get networks of their own;
    this is for who runs pytest by hand."""
    require("node", "nodejs")
    require("npm", "npm")
    folder = os.path.join(BUILD, "node")
    with build_lock():
        done = subprocess.run(["make", "-s", "-C", ROOT, f"BUILD={os.path.dirname(BUILD)}", "node-modules"], timeout=120,
                              capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm could not install the packages of tests/e2e/package.json: {done.stderr.strip()[-200:]}")
    return folder
