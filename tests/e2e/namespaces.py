"""Network namespaces, made with iproute2, and sockets of ours inside them."""
import ctypes
import os
import subprocess
import threading

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    pass


def ip(*words):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


class Namespace:
    def __init__(self, name):
        self.name = name
        ip("netns", "add", name)
        self.prefix = ("ip", "netns", "exec", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words):
        return ip("-n", self.name, *words)

    def run(self, *words, **options):
        return subprocess.run([*self.prefix, *map(str, words)], capture_output=True, text=True, **options)

    def call(self, function, *arguments, **options):
        """Runs a function in a thread that lives in the namespace; the sockets that it makes stay there."""
        outcome = {}

        def body():
            with open(f"/run/netns/{self.name}", "rb") as handle:
                if _libc.setns(handle.fileno(), CLONE_NEWNET) < 0:
                    outcome["error"] = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                    return
            try:
                outcome["value"] = function(*arguments, **options)
            except BaseException as error:  # handed to the caller's thread
                outcome["error"] = error

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    def close(self):
        ip("netns", "del", self.name)


def with_mounts(*commands):
    """What to put before a program that is to see mounts of its own: shell commands that make them."""
    return ("unshare", "--mount", "sh", "-e", "-c", "\n".join([*commands, 'exec "$@"']), "sh")


def can_mount():
    return subprocess.run([*with_mounts("mount --bind /dev/null /etc/hostname"), "true"], capture_output=True).returncode == 0


def connect(left, left_name, right, right_name):
    """A cable between two namespaces."""
    ip("link", "add", left_name, "netns", left.name, "type", "veth", "peer", "name", right_name, "netns", right.name)
    left.ip("link", "set", left_name, "up")
    right.ip("link", "set", right_name, "up")
