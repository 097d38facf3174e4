"""Fixtures: sluice itself, origins, tools of Debian, and what is compiled or installed for the tests."""
import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys

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


def pytest_collection_modifyitems(config, items):
    if config.getoption("--part"):
        part, parts = map(int, config.getoption("--part").split("/"))
        items[:] = items[part - 1::parts]


def require(program, package):
    """The path of a program; a missing one skips the test and names the package to install."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not path:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return path


@pytest.fixture
def sluice(tmp_path):
    """sluice(*args) starts one on a free port; each is checked and stopped when the test ends."""
    started = []

    def start(*args, **options):
        started.append(process.Sluice(str(tmp_path), *args, **options))
        return started[-1]

    yield start
    failures = []
    for one in reversed(started):
        try:
            one.finish()
        except Exception as failure:  # all of them must end, whatever the first one did
            failures.append(failure)
    assert not failures, "\n".join(map(str, failures))


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
