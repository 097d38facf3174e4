#!/usr/bin/env python3
"""Measures sluice against the proxies of peers.tsv and writes one Markdown document.

Every row is measured in alternation: A, B, C, A, B, C, ... so that what the machine does meanwhile happens to all. A
proxy is started afresh for each sample, on one core; bench/load and its origin have another. All traffic is on lo.
See README.md for what the numbers are and are not.
"""
import argparse
import contextlib
import dataclasses
import datetime
import fnmatch
import json
import os
import pathlib
import platform
import re
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import document as sections

HERE = pathlib.Path(__file__).resolve().parent
OTHER_PROGRAMS = {"micro.c", "decisions.c", "delay.c", "floor.c", "floor_udp.c"}  # beside the load generator
TICKS = os.sysconf("SC_CLK_TCK")
FIRST_PORT = 22000  # of the origin, with the next five; what follows is below the range of ephemeral ports
IPERF_PORT = 100  # from the first
PROXY_PORT = 1000  # from the first; each sample takes the next, and begins again after PROXY_PORTS
PROXY_PORTS = 9000
ECHO, SINK, SOURCE, IDLE, HTTP, VERIFY = range(6)
IDLE_SESSIONS = 4000
TIME_WAIT_MAX = 60000  # of tcp_max_tw_buckets = 131072, above which the kernel begins to behave differently


# ---- What is measured ----


@dataclasses.dataclass
class Row:
    """One kind of work. `targets` has the ratio to reach for each peer, None where there is nothing to reach."""

    name: str
    title: str
    mode: str  # forward or socks5
    metric: str  # a key of METRICS
    measure: object  # function (bench, proxy, row) -> sample
    targets: dict
    service: int = ECHO
    load: tuple = ()
    churns: bool = False  # leaves TIME_WAIT behind
    subject: str = "sluice"


@dataclasses.dataclass
class Metric:
    title: str
    low_is_good: bool
    text: str  # format of a value


METRICS = {
    "cpu_per_gb": Metric("CPU s per GB", True, "{:.3f}"),
    "rate": Metric("per second", False, "{:,.0f}"),
    "bytes_per_session": Metric("PSS growth, bytes per session", True, "{:,.0f}"),
    "speedup": Metric("two workers against one", False, "{:.2f}"),
    "p50": Metric("median, µs", True, "{:,.1f}"),
}


def load_row(name, title, mode, metric, targets, load, service=ECHO, churns=False, subject="sluice"):
    return Row(name, title, mode, metric, measure_load, targets, service, tuple(load.split()), churns, subject)


def make_rows():
    return [
        load_row("bulk-4", "Bulk, 4 flows", "forward", "cpu_per_gb",
                 {"haproxy": 0.35, "haproxy-splice": None, "nginx": 0.25, "neosocksd-pipe": 0.75},
                 "bulk --flows 4", SOURCE),
        load_row("bulk-256", "Bulk, 256 flows", "forward", "cpu_per_gb",
                 {"haproxy": 0.22, "haproxy-splice": None, "nginx": 0.15, "neosocksd-pipe": 0.45},
                 "bulk --flows 256", SOURCE),
        load_row("rtt-64", "Round trips of 64 bytes, 64 connections", "forward", "rate",
                 {"nginx": 1.15, "haproxy": 1.25, "neosocksd-pipe": 1.3, "neosocksd": None}, "rtt --flows 64"),
        load_row("rtt-512", "Round trips of 64 bytes, 512 connections", "forward", "rate",
                 {"nginx": 1.45, "haproxy": None, "neosocksd-pipe": None}, "rtt --flows 512"),
        load_row("forward-reset", "TCP forward, connections, client resets", "forward", "rate",
                 {"haproxy": 1.1, "nginx": None, "neosocksd": None},
                 "connect --flows 64 --close reset", churns=True),
        load_row("socks-reset", "SOCKS5 connections, client resets", "socks5", "rate",
                 {"neosocksd": 2, "microsocks": 2.3, "hev": None, "dante": None},
                 "connect --flows 64 --close reset", churns=True),
        load_row("socks-close", "SOCKS5 connections, client closes", "socks5", "rate",
                 {"neosocksd": 1.2, "microsocks": 1.2, "hev": None, "dante": None},
                 "connect --flows 64 --close orderly", churns=True),
        load_row("ruleset", "SOCKS5 connections with a pass-through ruleset, client resets", "socks5", "rate",
                 {"sluice": 0.85, "neosocksd-ruleset": 2}, "connect --flows 64 --close reset", churns=True,
                 subject="sluice-ruleset"),
        load_row("ruleset-cache", "The same with a verdict that is declared constant", "socks5", "rate",
                 {"sluice-ruleset": None, "sluice": None}, "connect --flows 64 --close reset", churns=True,
                 subject="sluice-cached"),
        load_row("ruleset-million", "libruleset with a million names and 100,000 networks", "socks5", "rate",
                 {"sluice-ruleset": None}, "connect --flows 64 --close reset", churns=True, subject="sluice-million"),
        load_row("ruleset-latency", "One connection at a time: what a decision adds", "socks5", "p50",
                 {"sluice-cached": None, "sluice": None, "neosocksd-ruleset": None, "neosocksd": None},
                 "connect --flows 1 --close reset",
                 churns=True, subject="sluice-ruleset"),
        Row("decisions", "Decisions of the coordinator alone", "socks5", "rate", measure_decisions,
            {"sluice-million": None}, subject="sluice-ruleset"),
        Row("workers", "SOCKS5 connections, two workers against one", "socks5", "speedup", measure_workers,
            {}, churns=True),
        Row("idle", f"{IDLE_SESSIONS:,} idle SOCKS5 sessions", "socks5", "bytes_per_session", measure_idle,
            {"neosocksd": None, "microsocks": None, "hev": None}, IDLE),
        Row("idle-forward", f"{IDLE_SESSIONS:,} idle forwarded sessions", "forward", "bytes_per_session", measure_idle,
            {"haproxy": None, "nginx": None, "neosocksd": None}, IDLE),
        Row("wrk-forward", "wrk, 64 connections, HTTP through TCP forward", "forward", "rate", measure_wrk,
            {"haproxy": None, "nginx": None, "neosocksd-pipe": None}, HTTP),
        Row("iperf3-forward", "iperf3, one stream through TCP forward", "forward", "cpu_per_gb", measure_iperf3,
            {"haproxy": None, "nginx": None, "neosocksd-pipe": None}),
        Row("proxychains", "proxychains4 wrk, 16 connections through SOCKS5", "socks5", "rate", measure_proxychains,
            {"neosocksd": None, "microsocks": None, "hev": None, "dante": None}, HTTP),
    ]


# The absolute goals, beside the ratios above; docs/benchmarks.md says whether they are met.
IDLE_BYTES_MAX = 1024
SPEEDUP_MIN = 1.8


# ---- Processes ----


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


def cpu_seconds(root):
    """User and system time of the tree. Children that were waited for count with their parent, so that none is lost."""
    ticks = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / TICKS


def pss_bytes(root):
    total = 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+) kB", text, re.M).group(1)) * 1024
    return total


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


def wait_for_port(address, process, seconds=15):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise Failed(f"ended with status {process.returncode} at start")
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
            return
        time.sleep(0.02)
    raise Failed(f"does not listen on {address[0]}:{address[1]}")


class Failed(Exception):
    """A sample could not be taken; the row says so and the run goes on."""


# ---- Proxies ----


@dataclasses.dataclass
class Proxy:
    name: str
    mode: str
    template: str
    command: list
    version: str
    note: str


def find_program(name):
    """An environment variable of the program's name wins over PATH. Daemons live in sbin, which PATH may lack."""
    wanted = os.environ.get(re.sub(r"\W", "_", name).upper(), name)
    return shutil.which(wanted, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def first_line(command):
    program = find_program(command[0])
    if not program:
        return "?"
    done = subprocess.run([program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=10, text=True, errors="replace", check=False)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    dotted = [line for line in lines if re.search(r"\d\.\d|git-", line)]
    return (dotted or lines or ["?"])[0]


def read_peers(path):
    """Peers of the table whose program is here, by (name, mode), and the names of those that are not."""
    peers, missing = {}, {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, mode, template, command, version, note = line.split("\t")
        words = shlex.split(command)
        program = find_program(words[0])
        if program:
            words[0] = program
            peers[name, mode] = Proxy(name, mode, template, words, first_line(shlex.split(version)), note)
        else:
            missing[name] = words[0]
    return peers, missing


def sluice_proxies(binary, extra):
    version = first_line([binary, "--version"])
    common = [binary, "--loglevel", "2", "-l", "{address}:{port}", *extra]
    forward = ["-f", "{target_address}:{target_port}"]
    one, two, rules = ["--workers", "1"], ["--workers", "2"], ["-r", "{conf}"]
    proxies = [
        Proxy("sluice", "forward", "-", common + one + forward, version, "one worker"),
        Proxy("sluice", "socks5", "-", common + one, version, "one worker"),
        Proxy("sluice-two", "socks5", "-", common + two, version, "two workers"),
        Proxy("sluice-ruleset", "socks5", "pass-through.lua", common + one + rules, version, "with pass-through.lua"),
        Proxy("sluice-cached", "socks5", "cached.lua", common + one + rules, version, "with cached.lua"),
        Proxy("sluice-million", "socks5", "million.lua", common + one + rules, version, "with million.lua"),
    ]
    return {(proxy.name, proxy.mode): proxy for proxy in proxies}


# ---- The bench: origin, ports, one proxy at a time ----


class Bench:
    def __init__(self, options, directory):
        self.options = options
        self.directory = pathlib.Path(directory)
        self.seconds = options.seconds
        self.first_port = options.first_port
        self.samples_taken = 0
        self.cpus = sorted(os.sched_getaffinity(0))
        self.proxy_core = str(self.cpus[0])
        self.load_core = str(self.cpus[1]) if len(self.cpus) > 1 else str(self.cpus[0])
        self.origin_core = self.load_core

    def can_spread(self):
        """Whether two workers, the load and the origin can have a core each."""
        return len(self.cpus) >= 4

    def start(self, stack, cores, command, **more):
        more.setdefault("stdin", subprocess.DEVNULL)
        more.setdefault("stdout", subprocess.DEVNULL)
        more.setdefault("stderr", subprocess.DEVNULL)
        process = subprocess.Popen(pinned(cores, list(map(str, command))), **more)
        stack.callback(end_process, process)
        return process

    def start_origin(self, stack, cores):
        process = self.start(stack, cores, [self.options.load, "origin", "--port", self.first_port],
                             stdout=subprocess.PIPE, stderr=None)
        if not process.stdout.readline():
            raise SystemExit(f"bench: the origin does not start. Does another run have port {self.first_port}? Then wait"
                             " for its end: two at a time would measure each other.")

    def start_proxy(self, stack, proxy, service, cores=None, target_port=None):
        """Starts one proxy; returns its process, its address, and the target's. Each sample has a destination address
        and a port that no sample before it had, so that it pays for nobody else's TIME_WAIT."""
        self.samples_taken += 1
        number = self.samples_taken
        address = ("127.0.0.1", self.first_port + PROXY_PORT + number % PROXY_PORTS)
        target = (f"127.{1 + number // 250 % 250}.{1 + number % 250}.1", target_port or self.first_port + service)
        directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{proxy.name}-", dir=self.directory))
        directory.chmod(0o755)
        values = {"address": address[0], "port": address[1], "target_address": target[0], "target_port": target[1],
                  "dir": directory, "conf": directory / "conf"}
        if proxy.template != "-":
            text = (HERE / "peers" / proxy.template).read_text()
            (directory / "conf").write_text(fill(text, values))
        process = self.start(stack, cores or self.proxy_core, [fill(word, values) for word in proxy.command])
        wait_for_port(address, process)
        time.sleep(0.1)
        return process, address, target

    def load_command(self, proxy, row_load, address, target):
        return [self.options.load, *row_load, "--via", proxy.mode, "--proxy", "%s:%d" % address,
                "--target", "%s:%d" % target]

    def run_load(self, command, root, cores=None):
        """Runs bench/load; returns its result and the CPU seconds that `root` used while it measured."""
        with contextlib.ExitStack() as stack:
            process = self.start(stack, cores or self.load_core, command + ["--announce"], stdout=subprocess.PIPE)
            ready = process.stdout.readline()
            before = cpu_seconds(root)
            line = process.stdout.readline()
            after = cpu_seconds(root)
            process.wait(timeout=30)
        if not ready or not line:
            raise Failed(f"load ended with status {process.returncode} and no result")
        result = json.loads(line)
        if result.get("count", result.get("bytes", 0)) == 0:
            raise Failed(f"nothing went through: {result['first_error'] or 'no error'}")
        return result, after - before


def fill(text, values):
    """Configuration files have braces of their own, so only our names are replaced."""
    for name, value in values.items():
        text = text.replace("{%s}" % name, str(value))
    return text


def time_wait_count():
    match = re.search(r"^TCP:.* tw (\d+)", pathlib.Path("/proc/net/sockstat").read_text(), re.M)
    return int(match.group(1))


def wait_for_time_wait():
    limit = time.monotonic() + 65
    while time_wait_count() > TIME_WAIT_MAX and time.monotonic() < limit:
        time.sleep(0.5)


# ---- Ways to measure: each returns {"value": number, "extra": text, "errors": number} ----


def sample(value, extra="", errors=0):
    return {"value": value, "extra": extra, "errors": errors}


def measure_load(bench, proxy, row):
    with contextlib.ExitStack() as stack:
        process, address, target = bench.start_proxy(stack, proxy, row.service)
        command = bench.load_command(proxy, row.load, address, target) + ["--seconds", bench.seconds]
        if row.mode == "socks5" and row.churns:
            command += ["--targets", 8]
        result, cpu = bench.run_load(command, process.pid)
    if row.metric == "cpu_per_gb":
        return sample(cpu / result["gb"], f"{result['gbit_s']:.1f} Gbit/s", result["errors"])
    each = cpu / result["count"] * 1e6
    extra = f"p50 {result['p50_us']:,.0f} µs, p99 {result['p99_us']:,.0f} µs, {each:.1f} µs CPU each"
    if row.metric == "p50":
        return sample(result["p50_us"], extra, result["errors"])
    return sample(result["rate"], extra, result["errors"])


def workers_once(bench, name, cores, load_cores):
    row_load = ["connect", "--flows", "64", "--close", "reset", "--targets", 8, "--seconds", bench.seconds]
    proxy = bench.proxies[name, "socks5"]
    with contextlib.ExitStack() as stack:
        process, address, target = bench.start_proxy(stack, proxy, ECHO, cores)
        return bench.run_load(bench.load_command(proxy, row_load, address, target), process.pid, load_cores)


def measure_workers(bench, proxy, row):
    """With four cores, the rate of two workers over that of one. With fewer the load generator bounds every rate, and
    what can be seen is whether a connection costs more CPU when two workers share the work: twice the quotient is what
    two cores of their own would make of it."""
    if bench.can_spread():
        two, wide, load = ",".join(map(str, bench.cpus[:2])), str(bench.cpus[0]), str(bench.cpus[3])
        one_rate = workers_once(bench, "sluice", wide, load)[0]["rate"]
        two_rate = workers_once(bench, "sluice-two", two, load)[0]["rate"]
        return sample(two_rate / one_rate, f"{one_rate:,.0f} and {two_rate:,.0f} per second")
    everywhere = ",".join(map(str, bench.cpus))
    costs = []
    for name in "sluice", "sluice-two":
        result, cpu = workers_once(bench, name, everywhere, None)
        costs.append(cpu / result["count"] * 1e6)
    return sample(2 * costs[0] / costs[1],
                  f"estimate from CPU cost: {costs[0]:.1f} and {costs[1]:.1f} µs per connection")


def measure_decisions(bench, proxy, row):
    """Rulesets without a proxy around them: bench/decisions, built beside the binary."""
    program = pathlib.Path(bench.options.binary).resolve().parent / "decisions"
    command = pinned(bench.proxy_core, [program, HERE / "peers" / proxy.template, "--seconds", str(bench.seconds)])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip() or f"bench/decisions ended with status {done.returncode}")
    result = json.loads(done.stdout)
    return sample(result["rate"], f"p50 {result['p50_ns'] / 1000:.1f} µs, p99 {result['p99_ns'] / 1000:.1f} µs,"
                                  f" loaded in {result['load_ms']:,.0f} ms")


def measure_idle(bench, proxy, row):
    with contextlib.ExitStack() as stack:
        process, address, target = bench.start_proxy(stack, proxy, row.service)
        before = pss_bytes(process.pid)
        command = bench.load_command(proxy, ["idle"], address, target) + ["--flows", IDLE_SESSIONS]
        load = bench.start(stack, bench.load_core, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready = load.stdout.readline()
        if not ready:
            raise Failed("load ended without a result")
        ready = json.loads(ready)
        time.sleep(0.5)
        after = pss_bytes(process.pid)
        load.stdin.close()
        load.wait(timeout=30)
    if ready["open"] < IDLE_SESSIONS:
        raise Failed(f"only {ready['open']} of {IDLE_SESSIONS} sessions were opened: {ready['first_error']}")
    return sample((after - before) / ready["open"], f"{before / 1048576:.1f} MiB before", ready["errors"])


def run_tool(bench, command, seconds):
    program = find_program(command[0])
    if not program:
        raise Failed(f"{command[0]} is not installed")
    with contextlib.ExitStack() as stack:
        process = bench.start(stack, bench.load_core, [program, *command[1:]], stdout=subprocess.PIPE, text=True)
        try:
            return process.communicate(timeout=seconds + 30)[0]
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{command[0]} did not end") from error


def wrk_sample(text):
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if not rate or float(rate.group(1)) == 0:
        raise Failed("wrk got no answer")
    p99 = re.search(r"^\s+99%\s+(\S+)", text, re.M)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return sample(float(rate.group(1)), f"p99 {p99.group(1)}" if p99 else "",
                  sum(map(int, errors.groups())) if errors else 0)


def measure_wrk(bench, proxy, row):
    seconds = max(1, round(bench.seconds))
    with contextlib.ExitStack() as stack:
        _, address, _ = bench.start_proxy(stack, proxy, row.service)
        command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", "http://%s:%d/" % address]
        return wrk_sample(run_tool(bench, command, seconds))


def measure_proxychains(bench, proxy, row):
    seconds = max(1, round(bench.seconds))
    with contextlib.ExitStack() as stack:
        _, address, target = bench.start_proxy(stack, proxy, row.service)
        conf = bench.directory / "proxychains.conf"
        conf.write_text("strict_chain\nquiet_mode\n[ProxyList]\nsocks5 %s %d\n" % address)
        url = "http://%s:%d/" % target
        command = ["proxychains4", "-q", "-f", conf]
        answer = run_tool(bench, [*command, "curl", "-s", "-m", "5", url], 5)
        if answer != "0123456789abcde\n":
            raise Failed("curl did not get the right answer through it")
        return wrk_sample(run_tool(bench, [*command, "wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", url], seconds))


def measure_iperf3(bench, proxy, row):
    seconds = max(1, round(bench.seconds))
    server, port = find_program("iperf3"), bench.first_port + IPERF_PORT
    if not server:
        raise Failed("iperf3 is not installed")
    with contextlib.ExitStack() as stack:
        listener = bench.start(stack, bench.origin_core, [server, "-s", "-p", port])
        wait_for_port(("127.0.0.1", port), listener)
        process, address, _ = bench.start_proxy(stack, proxy, row.service, target_port=port)
        time.sleep(0.3)  # the server forgets our looking whether it is there
        before = cpu_seconds(process.pid)
        text = run_tool(bench, ["iperf3", "-c", address[0], "-p", address[1], "-t", seconds, "-J"], seconds)
        cpu = cpu_seconds(process.pid) - before
    received = json.loads(text).get("end", {}).get("sum_received")
    if not received or not received["bytes"]:
        raise Failed("iperf3: " + json.loads(text).get("error", "no data"))
    return sample(cpu / (received["bytes"] / 1e9), f"{received['bits_per_second'] / 1e9:.1f} Gbit/s")


def verify_proxy(bench, proxy):
    """Do streams pass unchanged, both ways at once, each direction ending by itself? A number for a proxy that does
    not do it is a number for less work."""
    with contextlib.ExitStack() as stack:
        try:
            process, address, target = bench.start_proxy(stack, proxy, VERIFY)
            command = bench.load_command(proxy, ["verify"], address, target)
            return "yes" if verify_passes(bench, stack, command) else "no"
        except Failed as error:
            return str(error)


def verify_passes(bench, stack, command):
    load = bench.start(stack, bench.load_core, command + ["--flows", 4, "--bytes", 8000003, "--seconds", 10])
    return load.wait(timeout=60) == 0


# ---- Running the rows ----


def say(text):
    print(text, file=sys.stderr, flush=True)


def row_proxies(bench, row):
    """The subject first, then the peers that are here and can do it, in the order of the row."""
    names = [row.subject, *row.targets]
    return [bench.proxies[name, row.mode] for name in names if (name, row.mode) in bench.proxies]


def run_row(bench, row):
    """Returns {proxy name: [sample, ...]} and {proxy name: why it has none}."""
    samples, failures = {}, {}
    for turn in range(bench.options.repeat):
        for proxy in row_proxies(bench, row):
            if row.churns:
                wait_for_time_wait()
            try:
                taken = row.measure(bench, proxy, row)
            except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                failures[proxy.name] = str(error) or type(error).__name__
                say(f"{row.name} {turn + 1}/{bench.options.repeat} {proxy.name}: failed: {failures[proxy.name]}")
                continue
            samples.setdefault(proxy.name, []).append(taken)
            value = METRICS[row.metric].text.format(taken["value"])
            say(f"{row.name} {turn + 1}/{bench.options.repeat} {proxy.name}: {value} {METRICS[row.metric].title}"
                f" ({taken['extra']})")
    return samples, failures


# ---- The document ----


def median(samples):
    return statistics.median(one["value"] for one in samples)


def judge(row, peer, samples):
    """Ratio, target and verdict of sluice against a peer, as text."""
    if row.subject not in samples or peer not in samples:
        return "", "", ""
    ratio = median(samples[row.subject]) / median(samples[peer]) if median(samples[peer]) else float("inf")
    target = row.targets.get(peer)
    if target is None:
        return f"{ratio:.2f}", "", ""
    low = METRICS[row.metric].low_is_good
    met = ratio <= target if low else ratio >= target
    return f"{ratio:.2f}", ("≤ " if low else "≥ ") + f"{target:g}", "met" if met else "**not met**"


def judge_absolute(row, samples):
    """The subject's own goal, for the rows that have one."""
    if row.subject not in samples:
        return "", ""
    value = median(samples[row.subject])
    if row.metric == "bytes_per_session":
        return f"≤ {IDLE_BYTES_MAX} bytes", "met" if value <= IDLE_BYTES_MAX else "**not met**"
    if row.metric == "speedup":
        return f"≥ {SPEEDUP_MIN}", "met" if value >= SPEEDUP_MIN else "**not met**"
    return "", ""


def format_line(row, name, samples):
    values = [one["value"] for one in samples[name]]
    text = METRICS[row.metric].text
    middle = min(samples[name], key=lambda one: abs(one["value"] - statistics.median(values)))
    errors = sum(one["errors"] for one in samples[name])
    extra = middle["extra"] + (f", {errors} errors" if errors else "")
    if name == row.subject:
        ratio, (target, verdict) = "", judge_absolute(row, samples)
    else:
        ratio, target, verdict = judge(row, name, samples)
    cells = [name, text.format(statistics.median(values)), f"{text.format(min(values))} .. {text.format(max(values))}",
             ratio, target, verdict, extra]
    return "| " + " | ".join(cells) + " |"


def format_row(row, samples, failures):
    title = METRICS[row.metric].title
    better = "less" if METRICS[row.metric].low_is_good else "more"
    lines = [f"### {row.title}", "", f"`{row.name}`: {title}, {better} is better.", "",
             "| proxy | median | min .. max | sluice / peer | to reach | | of the middle run |",
             "|---|---:|---:|---:|---|---|---|"]
    lines += [format_line(row, name, samples) for name in [row.subject, *row.targets] if name in samples]
    lines += [f"| {name} | - | | | | | failed: {why} |" for name, why in failures.items() if name not in samples]
    some = [f"{name}: some runs failed: {why}" for name, why in failures.items() if name in samples]
    return "\n".join(lines + [""] + some + ([""] if some else []))


def format_summary(results):
    lines = ["## What was to be reached", "", "| work | against | measured | to reach | |", "|---|---|---:|---|---|"]
    for row, samples, _ in results:
        target, verdict = judge_absolute(row, samples)
        if target:
            value = METRICS[row.metric].text.format(median(samples[row.subject]))
            lines.append(f"| {row.title} | itself | {value} | {target} | {verdict} |")
        for peer, wanted in row.targets.items():
            if wanted is None:
                continue
            ratio, target, verdict = judge(row, peer, samples)
            sign = "≤" if METRICS[row.metric].low_is_good else "≥"
            lines.append(f"| {row.title} | {peer} | {ratio or '-'} | {target or f'{sign} {wanted:g}'} |"
                         f" {verdict or 'not measured'} |")
    return "\n".join(lines + [""])


def read_setting(path):
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_text().strip()
    return "?"


def git(*words):
    done = subprocess.run(["git", "-C", HERE, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          check=False)
    return done.stdout.strip()


def machine_name():
    match = re.search(r"^model name\s*:\s*(.+)$", read_setting("/proc/cpuinfo"), re.M)
    return f"{match.group(1) if match else platform.machine()}, {os.cpu_count()} CPUs"


def format_facts(bench, started):
    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    facts = [
        ("date", started.strftime("%Y-%m-%d %H:%M UTC")),
        ("commit", (git("rev-parse", "--short", "HEAD") or "?") + changed),
        ("machine", machine_name()),
        ("kernel", platform.release()),
        ("cores", f"proxy on {bench.proxy_core}; load generator and origin on {bench.load_core}"),
        ("congestion control", read_setting("/proc/sys/net/ipv4/tcp_congestion_control") +
         "; sluice takes reno on loopback legs, its peers do not, which decides the bulk rows with few flows "
         "(docs/architecture.md)"),
        ("transparent huge pages", read_setting("/sys/kernel/mm/transparent_hugepage/enabled")),
        ("open files", str(limit)),
        ("samples", f"{bench.options.repeat} of each, {bench.seconds:g} s long, alternating"),
    ]
    return "\n".join(["| | |", "|---|---|"] + [f"| {name} | {value} |" for name, value in facts] + [""])


def format_proxies(bench, used, missing):
    lines = ["## Who took part", "",
             "\"Streams equal\": two pseudo-random streams at once, compared octet by octet, each direction ended by"
             " itself.", "",
             "| proxy | mode | version | set up | streams equal |", "|---|---|---|---|---|"]
    for key in used:
        proxy = bench.proxies[key]
        lines.append(f"| {proxy.name} | {proxy.mode} | {proxy.version} | {proxy.note} | {bench.verified[key]} |")
    lines += [f"| {name} | | | not here: no program `{program}` | |" for name, program in missing.items()]
    return "\n".join(lines + [""])


def format_document(bench, results, used, missing, started):
    head = ("# Benchmarks\n\nWritten by `bench/run.py`; bench/README.md says what is measured and how. Ratios compare"
            " medians of this one run; numbers of different machines do not compare.\n")
    if bench.options.only or bench.options.quick:
        head += "\nThis is a partial or quick run, not the full measurement.\n"
    parts = [head, format_facts(bench, started), format_summary(results), format_proxies(bench, used, missing)]
    return "\n".join(parts + ["## The work\n"] + [format_row(*result) for result in results])


# ---- Main ----


def parse_arguments():
    root = HERE.parent
    parser = argparse.ArgumentParser(description="measure sluice against other proxies")
    parser.add_argument("--binary", default=str(root / "build" / "sluice"), help="sluice to measure (build/sluice)")
    parser.add_argument("--load", help="bench/load, built (beside the binary, else compiled for this run)")
    parser.add_argument("--output", help="Markdown file to write (stdout)")
    parser.add_argument("--json", help="file for every single sample")
    parser.add_argument("--quick", action="store_true", help="one sample of one second each")
    parser.add_argument("--repeat", type=int, help="samples of each proxy in each row (5)")
    parser.add_argument("--seconds", type=float, help="length of a sample (4)")
    parser.add_argument("--first-port", type=int, default=FIRST_PORT, help="of the 10,000 to use (22000)")
    parser.add_argument("--only", help="rows to run, by comma; * and ? match")
    parser.add_argument("--sluice-option", action="append", default=[], metavar="WORD", help="one more word for sluice")
    parser.add_argument("--peers-only", action="store_true", help="without sluice")
    parser.add_argument("--list", action="store_true", help="list the rows and the peers found, and end")
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 4.0)
    return options


def choose_rows(only):
    rows = make_rows()
    if not only:
        return rows
    patterns = only.split(",")
    known = [row.name for row in rows]
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise SystemExit(f"bench: --only {pattern}: no such row; there are {' '.join(known)}")
    return [row for row in rows if any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns)]


def find_load(options, directory):
    """The load generator that was built with sluice, or one compiled for this run."""
    beside = pathlib.Path(options.binary).resolve().parent / "load"
    if options.load or beside.exists():
        return str(pathlib.Path(options.load or beside).resolve())
    made = pathlib.Path(directory) / "load"
    compiler = os.environ.get("CC", "gcc")
    sources = [str(path) for path in sorted(HERE.glob("*.c")) if path.name not in OTHER_PROGRAMS]
    subprocess.run([compiler, "-std=c11", "-D_GNU_SOURCE", f"-I{HERE.parent}", "-O2", *sources, "-o", str(made)], check=True)
    return str(made)


def raise_file_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < 3 * IDLE_SESSIONS:
        say(f"bench: only {hard} open files are allowed; rows with many sessions will fail")


def run(bench, rows, missing):
    started = datetime.datetime.now(datetime.timezone.utc)
    with contextlib.ExitStack() as stack:
        bench.start_origin(stack, bench.origin_core)
        used = list(dict.fromkeys((proxy.name, proxy.mode) for row in rows for proxy in row_proxies(bench, row)))
        bench.verified = {key: verify_proxy(bench, bench.proxies[key]) for key in used}
        results = [(row, *run_row(bench, row)) for row in rows]
    if bench.options.json:
        raw = {row.name: samples for row, samples, _ in results}
        pathlib.Path(bench.options.json).write_text(json.dumps(raw, indent=1))
    return format_document(bench, results, used, missing, started)


def main():
    options = parse_arguments()
    rows = choose_rows(options.only)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))
    peers, missing = read_peers(HERE / "peers.tsv")
    if options.list:
        print("rows: " + " ".join(row.name for row in rows))
        print("peers: " + " ".join(f"{name}({mode})" for name, mode in peers))
        return
    if options.peers_only:
        rows = [row for row in rows if row.measure is not measure_workers]
    elif not os.access(options.binary, os.X_OK):
        raise SystemExit(f"bench: {options.binary} is not there: run make, or give --binary")
    else:
        peers |= sluice_proxies(str(pathlib.Path(options.binary).resolve()), options.sluice_option)
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.chmod(directory, 0o755)  # peers may drop their privileges before they read their files
        options.load = find_load(options, directory)
        bench = Bench(options, directory)
        bench.proxies = peers
        document = run(bench, rows, missing)
    if options.output:
        path = pathlib.Path(options.output)
        path.write_text(sections.keep_sections(path.read_text() if path.exists() else "", document))
    else:
        print(document)


if __name__ == "__main__":
    main()
