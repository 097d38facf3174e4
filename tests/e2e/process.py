"""sluice as a child process, with everything that must hold for each of them asserted when it ends."""
import os
import random
import re
import resource
import signal
import socket
import subprocess
import time

import wire

BINARY = os.path.abspath(os.environ.get("SLUICE_BIN", os.path.join(os.path.dirname(__file__), "../../build/sluice")))
TROUBLE = re.compile(r"runtime error|Sanitizer|[Aa]ssert|stack smashing|buffer overflow detected|terminate called")


def sanitized():
    """A sanitizer build is slower, and its memory says nothing about ours."""
    with open(BINARY, "rb") as binary:
        content = binary.read()
    return b"__asan_init" in content or b"__tsan_init" in content


SANITIZED = os.path.exists(BINARY) and sanitized()
SLOW = max(4 if SANITIZED else 1, wire.PATIENCE)
_given = set()
_random = random.Random(os.getpid() * 1000003 + time.monotonic_ns())


def is_free(host, port, kind):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listens(host, port):
    """Whether somebody does. To look at it with is_free() would take the port from who is about to."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.connect_ex((host, port)) == 0


def free_port(*hosts, kind=socket.SOCK_STREAM):
    """Free on all these addresses (127.0.0.1 by default). Below the ephemeral range, so that no outgoing connection of
    anybody takes it before we do. None is given twice: what it is for may not listen yet."""
    while True:
        port = _random.randrange(10000, 32000)
        if port not in _given and all(is_free(host, port, kind) for host in hosts or ["127.0.0.1"]):
            _given.add(port)
            return port


def stuck_streams(count, each):
    """So many, or as many as the machine's TCP sockets may hold without pressure if each stream takes so many MiB; five in
    any case. Beyond that streams stall. It is 3/64 of the memory; net.ipv4.tcp_mem itself is not shown in a namespace."""
    with open("/proc/meminfo", encoding="ascii") as memory:
        total = next(int(line.split()[1]) for line in memory if line.startswith("MemTotal:")) // 1024
    return max(5, min(count, total * 3 // 64 // each))


def wait_until(condition, timeout=10.0, pause=0.01):
    end = time.monotonic() + timeout * SLOW
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(pause)


def becomes(read, expected, timeout=10.0):
    """Fails unless read() yields that in the end: for what follows an event, a counter behind an answer, say, which the
    client may read before the worker has counted it."""
    seen = []

    def is_there():
        seen[:] = [read()]
        return seen[0] == expected

    assert wait_until(is_there, timeout), f"{seen[0]!r}, not {expected!r}"


def run(*args, timeout=20, **options):
    """The program to its end: (exit code, stdout, stderr)."""
    done = subprocess.run([BINARY, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout * SLOW, **options)
    return done.returncode, done.stdout, done.stderr


class Sluice:
    def __init__(self, directory, *args, listen="127.0.0.1", files=None, inherit=0, prefix=(), ready=True):
        self.host = listen
        self.port = None
        self.begin = time.monotonic()
        words = [str(word) for word in args]
        if listen:
            self.port = free_port(listen)
            words = ["-l", f"[{listen}]:{self.port}" if ":" in listen else f"{listen}:{self.port}"] + words
        self.address = (listen, self.port)
        self.log_path = os.path.join(directory, f"sluice-{time.monotonic_ns()}.log")
        self.log_file = open(self.log_path, "wb")
        limit = (files, files) if files else None
        extra = [os.open(os.devnull, os.O_RDONLY) for _ in range(inherit)]
        self.process = subprocess.Popen(
            [*prefix, BINARY, *words], stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=self.log_file,
            pass_fds=extra, preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)) if limit else None)
        for descriptor in extra:
            os.close(descriptor)
        self.pid = self.process.pid
        self.expected_exit = 0
        self.check_descriptors = True
        if ready:
            self.await_ready()

    def await_ready(self):
        assert wait_until(lambda: "listening on" in self.log() or self.process.poll() is not None, 15), self.log()
        assert self.process.poll() is None, f"exit {self.process.returncode}: {self.log()}"
        self.sockets_at_start = self.sockets()

    @property
    def url(self):
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def log(self):
        """Whole lines, as long as it runs: the kernel shows the front of a line before the rest is written."""
        over = self.process.poll() is not None
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            text = log.read()
        return text if over else text[:text.rfind("\n") + 1]

    def says(self, text, timeout=10):
        """Whether that stands in the log, now or soon: what a worker logs is written by another thread."""
        return wait_until(lambda: text in self.log(), timeout)

    def descriptors(self, kind=""):
        count = 0
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                count += os.readlink(f"/proc/{self.pid}/fd/{name}").startswith(kind)
            except FileNotFoundError:
                continue
        return count

    def sockets(self):
        return self.descriptors("socket:")

    def pipes(self):
        return self.descriptors("pipe:")

    def cpu(self):
        """Seconds of CPU used by all threads."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) * 1024

    def status(self, name):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return re.search(rf"^{name}:\s+(.*)$", status.read(), re.MULTILINE).group(1)

    def alive(self):
        return self.process.poll() is None

    def flat(self, timeout=20):
        """Whether the sockets that it holds are as many as at start."""
        return wait_until(lambda: self.sockets() == self.sockets_at_start, timeout)

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """Until signal(SIGCONT): what arrives in between is met at once. Waits until every thread has stopped, because the
        kernel (seen on 6.18) loses a wake-up if a receive meets urgent data while a signal is pending: tcp_recvmsg() says
        EAGAIN with octets behind the mark, and the request's poll waits for the next ones."""
        self.signal(signal.SIGSTOP)
        assert wait_until(lambda: self.thread_states() == {"T"}, 20)

    def thread_states(self):
        return {stat.rpartition(")")[2].split()[0] for stat in self.threads("stat")}

    def thread_names(self):
        return {name.rstrip("\n") for name in self.threads("comm")}

    def threads(self, name):
        """What the file of that name says of each thread; those of the kernel come and go."""
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{thread}/{name}", encoding="ascii") as file:
                    yield file.read()
            except (FileNotFoundError, ProcessLookupError):
                continue

    def wait(self, timeout=20):
        return self.process.wait(timeout * SLOW)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def assert_flat(self):
        """Of the sockets that clients have opened none is left, once the clients have closed theirs."""
        for client in list(wire.OPEN):
            client.close()
        assert not self.alive() or not self.check_descriptors or self.flat(), (
            f"{self.sockets()} sockets, {self.sockets_at_start} at start\n" + self.log())

    def settle(self):
        """Behind a test, where it goes on with another one: nothing has leaked, nothing has gone wrong."""
        self.assert_flat()
        assert self.alive(), f"exit {self.process.returncode}\n" + self.log()
        assert not TROUBLE.search(self.log()), self.log()

    def finish(self):
        """The end of each test: nothing has leaked, and it stops when it is told to."""
        try:
            self.assert_flat()
            if self.alive():
                self.signal(signal.SIGTERM)
            assert self.wait() == self.expected_exit, f"exit {self.process.returncode}\n" + self.log()
            assert not TROUBLE.search(self.log()), self.log()
        finally:
            self.kill()
            self.log_file.close()
