"""Processes: started on their cores, measured, ended by pid; programs found, files read."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """One line for the operator: a sample could not be taken, or a run cannot begin."""


def process_tree(root):
    """The process and all its descendants that live now."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def process_clock(pid):
    """User and system time of a process in seconds, to the nanosecond: what clock_getcpuclockid(3) gives, all its
    threads, those that have ended as well."""
    return time.clock_gettime(~pid << 3 | 2)


def cpu_seconds(root):
    """User and system time of the tree. Children that were waited for count with their parent, so that none is lost."""
    total = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += process_clock(pid) + (int(fields[13]) + int(fields[14])) / TICKS  # cutime, cstime
    return total


def core_seconds(core):
    """What a core has spent on anything, softirq included, in seconds."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        fields = line.split()
        if fields and fields[0] == f"cpu{core}":
            return sum(map(int, [*fields[1:4], *fields[6:8]])) / TICKS  # not idle, not waiting for a disk, not stolen
    return 0.0


def pss_bytes(root):
    total = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+) kB", text, re.M).group(1)) * 1024
    return total


def segments_sent(pid):
    """TCP segments that the network namespace of that process has sent."""
    lines = pathlib.Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("OutSegs")])


def is_alive(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def end_process(process):
    """Ends what we started and its descendants, by pid: politely, then not."""
    pids = process_tree(process.pid)
    if process.poll() is None:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    limit = time.monotonic() + 1
    while time.monotonic() < limit and any(map(is_alive, pids)):
        time.sleep(0.01)
    for pid in filter(is_alive, pids):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def pinned(cores, command):
    return ["taskset", "-c", cores, *command]


def start(stack, cores, command, **more):
    """A process on these cores that ends with the stack."""
    for name in "stdin", "stdout", "stderr":
        more.setdefault(name, subprocess.DEVNULL)
    process = subprocess.Popen(pinned(cores, list(map(str, command))), **more)
    stack.callback(end_process, process)
    return process


def wait_for_port(address, process, seconds=15):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise Failed(f"ended with status {process.returncode} at start")
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
            return
        time.sleep(0.02)
    raise Failed(f"does not listen on {address[0]}:{address[1]}")


def command_output(*words):
    """(status, all that it says)"""
    try:
        done = subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.strip()


def must(*words):
    status, text = command_output(*words)
    if status != 0:
        raise Failed(f"{' '.join(map(str, words))}: {text or status}")
    return text


def find_program(name):
    """An environment variable of the program's name wins over PATH. Daemons live in sbin, which PATH may lack."""
    wanted = os.environ.get(re.sub(r"\W", "_", name).upper(), name)
    return shutil.which(wanted, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def first_line(command):
    """What it says of its version: the first line with a number in it."""
    program = find_program(command[0])
    if not program:
        return "?"
    done = subprocess.run([program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=10, text=True, errors="replace", check=False)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    dotted = [line for line in lines if re.search(r"\d\.\d|git-", line)]
    return (dotted or lines or ["?"])[0]


def fill(text, values):
    """Configuration files have braces of their own, so only our names are replaced."""
    for name, value in values.items():
        text = text.replace("{%s}" % name, str(value))
    return text


def read_setting(path):
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_text().strip()
    return "?"
