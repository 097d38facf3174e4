#!/usr/bin/env python3
"""A Python that has loaded pytest once, and forks for each run of it: most of what a short file costs is that loading.

As a program it is the server: `forks.py SOCKET` listens there until it is killed. Each connection is one run: a datagram
with what is to be run and the descriptor of its output goes in, (exit status, CPU seconds) come out, and who ends its side
before that has the run killed. A run has a network of its own, as root alone can make it without another program, and a
session of its own."""
import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

CLONE_NEWNET = 0x40000000
ADDR_NO_RANDOMIZE = 0x0040000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
MESSAGE_MAX = 1 << 17


class Forks:
    """The client's side. The server begins with the first run, and ends with stop(). Threads may share it."""

    def __init__(self, folder, environment):
        """`folder`: where it runs; `environment`: its own, by which its processes are known."""
        self.folder, self.environment = folder, environment
        self.lock, self.process, self.place = threading.Lock(), None, None

    def start(self):
        with self.lock:
            if not self.process:
                self.place = tempfile.TemporaryDirectory()
                self.path = os.path.join(self.place.name, "forks")
                self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), self.path], cwd=self.folder,
                                                env=self.environment, stdin=subprocess.DEVNULL)
            while not os.path.exists(self.path):
                if self.process.poll() is not None:
                    raise OSError(f"what forks for pytest has ended: {self.process.returncode}")
                time.sleep(0.02)

    def run(self, words, timeout, environment, output, fixed_layout=False):
        """pytest with these arguments: (whether it has ended by itself, exit status, CPU seconds of it and of what it has
        waited for). `output`: a file for what it prints. `fixed_layout`: its programs have no address randomisation."""
        self.start()
        request = {"words": words, "environment": environment, "fixed_layout": fixed_layout}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(self.path)
            socket.send_fds(connection, [json.dumps(request).encode()], [output.fileno()])
            ended = bool(select.select([connection], [], [], timeout)[0])
            if not ended:
                connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(MESSAGE_MAX)
        if not answer:  # its minder was killed
            return ended, 1, 0.0
        return ended, *json.loads(answer)

    def stop(self):
        with self.lock:
            if self.process:
                self.process.kill()
                self.process.wait()
                self.place.cleanup()
                self.process = None


# --- the server ---

def load():
    """What pytest needs, and what most tests import: all but what is ours, which looks at its environment."""
    from _pytest.config import default_plugins
    for name in [f"_pytest.{plugin}" for plugin in default_plugins] + [
            "_pytest.assertion.rewrite", "_pytest._py.path", "pytest", "base64", "concurrent.futures", "fcntl", "glob", "hashlib", "http.client",
            "ipaddress", "random", "resource", "shutil", "ssl", "struct", "urllib.parse", "urllib.request", "zlib"]:
        with contextlib.suppress(ImportError):  # another version of pytest
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page


def check(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


def own_network():
    check(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo".ljust(16, b"\0")
        flags, = struct.unpack_from("H", fcntl.ioctl(any_socket, SIOCGIFFLAGS, name + bytes(24)), 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, name + struct.pack("H", flags | IFF_UP) + bytes(22))


def become_pytest(request, output):
    """Does not return."""
    import pytest
    os.setsid()
    silence = os.open(os.devnull, os.O_RDONLY)
    for number, source in enumerate((silence, output, output)):
        os.dup2(source, number)
    os.close(silence)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["environment"])
    own_network()
    if request["fixed_layout"]:
        check(ctypes.CDLL(None, use_errno=True).personality(ADDR_NO_RANDOMIZE), "personality")
    sys.argv = ["pytest", *request["words"]]
    sys.path[0] = os.getcwd()  # as `python -m pytest` has it
    status = pytest.main(request["words"])
    atexit._run_exitfuncs()  # pylint: disable=protected-access
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status))  # to take the interpreter apart would copy each page of it


def mind(connection):
    """One run, from its request to its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_MAX, 1)
    if not descriptors:
        return
    child = os.fork()
    if child == 0:
        connection.close()
        become_pytest(json.loads(message), descriptors[0])
    os.close(descriptors[0])
    pid = os.pidfd_open(child)
    ready, _, _ = select.select([pid, connection], [], [])
    if pid not in ready:  # nobody waits for it any more
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    with contextlib.suppress(OSError):
        connection.send(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime]).encode())


def serve(path):
    load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a minder has ended
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)  # who sees it may connect
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            mind(connection)
            sys.exit(0)
        connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
