"""The bench: origin, name server, one proxy at a time; and the ways to measure a proxy. Each way returns a sample:

    value      the row's figure, in the unit of its metric
    rate, p50, p99, p999 (µs), segments (for each connection), core (busy share of the proxy's), where they make sense
    errors, note

A proxy is started afresh for each sample, on a port and towards an address of the origin that no sample before it had."""
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import typing

import networks
import processes
from peers import FLOOR, HERE
from processes import Failed, cpu_seconds, find_program, pss_bytes

FIRST_PORT = 22000  # of the origin, with the next eight; what follows is below the range of ephemeral ports
IPERF_PORT = 100  # from the first
HOP_PORT, HOP_PORTS = 110, 800  # from the first; those of one sample are not those of the sample before
PROXY_PORT = 1000  # from the first; each sample takes the next, and begins again after PROXY_PORTS
PROXY_PORTS = 9000
NAMES_PORT = 53
ECHO, SINK, SOURCE, IDLE, HTTP, VERIFY, FILL, DATAGRAMS, PACED = range(9)
TIME_WAIT_MAX = 60000  # of tcp_max_tw_buckets = 131072, above which the kernel begins to behave differently
CHECK_SECONDS_MIN = 0.3  # of a bulk sample, to compare what a proxy moves
CHECK_FLOWS_MAX = 256  # of it: those that were measured may not have gone yet, and descriptors are few
CHECK_SECONDS_MANY = 2  # behind more than that: a proxy takes a while to end them
LOAD_SHARE_MIN = 0.95  # of the operations that were begun at a rate; less than that is said
CONNECTS = "connect"  # modes of bench/load whose operations are connections


def say(text):
    print(text, file=sys.stderr, flush=True)


class Used(typing.NamedTuple):
    cpu: float  # seconds of the proxy's processes
    core: float  # seconds in which its core was busy
    segments: int  # that its namespace sent
    seconds: float


def open_unread(stack, path):
    """A socket for the lines of a log, whose reader takes none."""
    reader = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    reader.bind(str(path))
    path.chmod(0o666)


class Bench:
    def __init__(self, options, directory, network=networks.HERE):
        self.options = options
        self.directory = pathlib.Path(directory)
        self.network = network
        self.seconds = options.seconds
        self.first_port = options.first_port
        self.proxies = {}
        self.samples_taken = 0
        self.cpus = sorted(os.sched_getaffinity(0))
        self.proxy_core = str(self.cpus[0])
        self.load_core = str(self.cpus[1]) if len(self.cpus) > 1 else str(self.cpus[0])
        self.origin_core = self.load_core
        self.every_core = ",".join(map(str, self.cpus))

    def can_spread(self):
        """Whether two workers, the load and the origin can have a core each."""
        return len(self.cpus) >= 4

    def start(self, stack, cores, command, **more):
        return processes.start(stack, cores, command, **more)

    def start_ready(self, stack, cores, command, why):
        """One that says on stdout when it serves."""
        process = self.start(stack, cores, command, stdout=subprocess.PIPE, stderr=None)
        if not process.stdout.readline():
            raise Failed(why)
        return process

    def start_origin(self, stack, cores):
        self.start_ready(stack, cores, [self.options.load, "origin", "--port", self.first_port, "--device", self.network.device],
                         f"the origin does not start. Does another run have port {self.first_port}? Then wait for its end:"
                         " two at a time would measure each other.")

    def start_names(self, stack, cores):
        self.start_ready(stack, cores, [self.options.load, "names", "--listen", f"{self.network.ends}:{NAMES_PORT}"],
                         "the name server does not start")

    def start_hops(self, stack):
        """Two floors among the ends, through which a chain goes. The kernel closes a ring's sockets some time after the
        process has ended, so that their ports are not free at once."""
        first = self.first_port + HOP_PORT + 2 * self.samples_taken % HOP_PORTS
        hops = [f"{self.network.ends}:{first + i}" for i in range(2)]
        for hop in hops:
            process = self.start(stack, self.load_core, [self.options.floor, "--listen", hop, "--socks5"])
            host, port = hop.split(":")
            processes.wait_for_port((host, int(port)), process)
        return hops

    def start_proxy(self, stack, proxy, service, cores=None, target_port=None):
        """Starts one proxy; returns its process, its address, and the target's."""
        self.samples_taken += 1
        number = self.samples_taken
        address = (self.network.proxy, self.first_port + PROXY_PORT + number % PROXY_PORTS)
        target = (self.network.target(number), target_port or self.first_port + service)
        hops = self.start_hops(stack) if proxy.mode == "chain" else ["", ""]
        directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{proxy.name}-", dir=self.directory))
        directory.chmod(0o755)
        values = {"address": address[0], "port": address[1], "target_address": target[0], "target_port": target[1],
                  "hop1": hops[0], "hop2": hops[1], "dir": directory, "conf": directory / "conf", "unread": directory / "unread"}
        if any("{unread}" in word for word in proxy.command):
            open_unread(stack, values["unread"])
        if proxy.template != "-":
            text = (HERE / "peers" / proxy.template).read_text()
            (directory / "conf").write_text(processes.fill(text, values))
        command = [processes.fill(word, values) for word in proxy.command]
        process = self.start(stack, cores or self.proxy_core, self.network.at_proxy(command))
        processes.wait_for_port(address, process)
        time.sleep(0.1)
        return process, address, target

    def load_command(self, proxy, words, address, target):
        way = {"forward": "forward", "http": "http-plain", "users": "socks5-auth"}.get(proxy.mode, "socks5")
        return [self.options.load, *words, "--via", way, "--proxy", "%s:%d" % address, "--target", "%s:%d" % target]

    def run_load(self, command, root, cores=None):
        """Runs bench/load; returns its result, and what `root`, its core and its namespace have Used while it measured."""
        with contextlib.ExitStack() as stack:
            process = self.start(stack, cores or self.load_core, command + ["--announce"], stdout=subprocess.PIPE)
            ready = process.stdout.readline()
            before = self.used(root)
            line = process.stdout.readline()
            after = self.used(root)
            process.wait(timeout=30)
        if not ready or not line:
            raise Failed(f"load ended with status {process.returncode} and no result")
        result = json.loads(line)
        if result.get("mismatches"):
            raise Failed(f"what came through is not what was sent: {result['first_error']}")
        if result.get("count", result.get("bytes", 0)) == 0:
            raise Failed(f"nothing went through: {result['first_error'] or 'no error'}")
        return result, Used(*(later - earlier for later, earlier in zip(after, before)))

    def used(self, root):
        return Used(cpu_seconds(root), processes.core_seconds(self.proxy_core), processes.segments_sent(root), time.monotonic())


def sample(value, note="", errors=0, **more):
    return {"value": value, "note": note, "errors": errors, **more}


def wait_for_time_wait(network):
    limit = time.monotonic() + 65
    while networks.time_wait_count(network) > TIME_WAIT_MAX and time.monotonic() < limit:
        time.sleep(0.5)


# ---- Ways to measure: function (bench, row, contestant, percent of the load or None) -> sample ----


def load_words(bench, row, contestant, rate):
    words = [*(contestant.load or row.load), "--seconds", bench.seconds]
    if contestant.proxy.mode in ("socks5", "users") and row.churns:
        words += ["--targets", 8]
    return words + (["--rate", f"{rate:.1f}"] if rate else [])


def operation_sample(words, result, used):
    """Of a load that counts operations."""
    note = [f"{result['lost']:,} datagrams lost"] if result.get("lost") else []
    if result.get("begun", 0) * LOAD_SHARE_MIN > result["count"]:
        note.append(f"{result['count'] / result['begun']:.0%} of what was begun")
    if words[0] == "http" and result["opened"]:
        note.append(f"{result['opened'] / result['count']:.2f} connections for each request")
    more = {"segments": used.segments / result["count"]} if words[0] == CONNECTS else {}
    return sample(used.cpu / result["count"] * 1e6, ", ".join(note), result["errors"], rate=result["rate"], p50=result["p50_us"],
                  p99=result["p99_us"], p999=result["p999_us"], core=used.core / used.seconds, **more)


def check_bulk(bench, contestant, words, address, target):
    """The process that was just measured moves more of the same, of which every octet is compared; how many GB."""
    measured = int(words[words.index("--flows") + 1])
    flows = min(measured, CHECK_FLOWS_MAX)
    seconds = CHECK_SECONDS_MANY if measured > CHECK_FLOWS_MAX else max(CHECK_SECONDS_MIN, bench.seconds / 6)
    command = bench.load_command(contestant.proxy, [*words, "--check", "--flows", flows, "--seconds", seconds], address, target)
    with contextlib.ExitStack() as stack:
        process = bench.start(stack, bench.load_core, command, stdout=subprocess.PIPE)
        result = json.loads(process.stdout.readline() or "{}")
        process.wait(timeout=30)
    if process.returncode != 0 or result["mismatches"] or not result["bytes"]:
        raise Failed(f"what came through is not what was sent: {result.get('first_error') or 'nothing came'}")
    return result["gb"]


def measure_load(bench, row, contestant, rate=None):
    words = load_words(bench, row, contestant, rate)
    cores = bench.every_core if row.every_core else None
    with contextlib.ExitStack() as stack:
        process, address, target = bench.start_proxy(stack, contestant.proxy, row.service, cores)
        result, used = bench.run_load(bench.load_command(contestant.proxy, words, address, target), process.pid, cores)
        if row.service not in (SOURCE, PACED):
            return operation_sample(words, result, used)
        checked = check_bulk(bench, contestant, words, address, target)
    return sample(used.cpu / result["gb"], f"{checked:.2f} GB compared", result["errors"], rate=result["gbit_s"],
                  core=used.core / used.seconds)


def measure_beside(bench, row, contestant, _rate=None):
    """Round trips beside bulk through the same proxy; the CPU time of both is that of the bulk's GB."""
    with contextlib.ExitStack() as stack:
        process, address, target = bench.start_proxy(stack, contestant.proxy, SOURCE)
        echo = (target[0], bench.first_port + ECHO)
        bulk = bench.start(stack, bench.load_core, bench.load_command(
            contestant.proxy, ["bulk", "--flows", 256, "--seconds", bench.seconds + 60, "--announce"], address, target),
            stdout=subprocess.PIPE)
        if not bulk.stdout.readline():
            raise Failed("the bulk load does not start")
        words = load_words(bench, row, contestant, None)
        result, used = bench.run_load(bench.load_command(contestant.proxy, words, address, echo), process.pid)
    return sample(result["p99_us"], f"{used.cpu / used.seconds:.0%} of a core used", result["errors"], rate=result["rate"],
                  p50=result["p50_us"], p99=result["p99_us"], p999=result["p999_us"], core=used.core / used.seconds)


def workers_once(bench, name, cores, load_cores):
    words = ["connect", "--flows", "64", "--close", "reset", "--targets", 8, "--seconds", bench.seconds]
    proxy = bench.proxies[name, "socks5"]
    with contextlib.ExitStack() as stack:
        process, address, target = bench.start_proxy(stack, proxy, ECHO, cores)
        return bench.run_load(bench.load_command(proxy, words, address, target), process.pid, load_cores)


def measure_workers(bench, _row, _contestant, _rate=None):
    """With four cores, the rate of two workers over that of one. With fewer the load generator bounds every rate, and
    what can be seen is whether a connection costs more CPU when two workers share the work: twice the quotient is what
    two cores of their own would make of it."""
    if bench.can_spread():
        two, wide, load = ",".join(map(str, bench.cpus[:2])), str(bench.cpus[0]), str(bench.cpus[3])
        one_rate = workers_once(bench, "sluice", wide, load)[0]["rate"]
        two_rate = workers_once(bench, "sluice-two", two, load)[0]["rate"]
        return sample(two_rate / one_rate, f"{one_rate:,.0f} and {two_rate:,.0f} per second")
    costs = []
    for name in "sluice", "sluice-two":
        result, used = workers_once(bench, name, bench.every_core, None)
        costs.append(used.cpu / result["count"] * 1e6)
    return sample(2 * costs[0] / costs[1],
                  f"estimate from CPU cost: {costs[0]:.1f} and {costs[1]:.1f} µs per connection")


def measure_decisions(bench, _row, contestant, _rate=None):
    """Rulesets without a proxy around them: bench/decisions, built beside the binary."""
    program = pathlib.Path(bench.options.binary).resolve().parent / "decisions"
    command = processes.pinned(bench.proxy_core, [program, HERE / "peers" / contestant.proxy.template, "--seconds",
                                                  str(bench.seconds)])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip() or f"bench/decisions ended with status {done.returncode}")
    result = json.loads(done.stdout)
    return sample(1e6 / result["rate"], f"loaded in {result['load_ms']:,.0f} ms", rate=result["rate"],
                  p50=result["p50_ns"] / 1000, p99=result["p99_ns"] / 1000)


def measure_idle(bench, row, contestant, _rate=None):
    with contextlib.ExitStack() as stack:
        process, address, target = bench.start_proxy(stack, contestant.proxy, row.service)
        before = pss_bytes(process.pid)
        command = bench.load_command(contestant.proxy, row.load, address, target)
        load = bench.start(stack, bench.load_core, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready = json.loads(load.stdout.readline() or "{}")
        if not ready:
            raise Failed("load ended without a result")
        time.sleep(0.5)
        after = pss_bytes(process.pid)
        load.stdin.close()
        load.wait(timeout=30)
    wanted = int(row.load[row.load.index("--flows") + 1])
    if ready["open"] < wanted:
        raise Failed(f"only {ready['open']} of {wanted} sessions were opened: {ready['first_error']}")
    return sample((after - before) / ready["open"], f"{before / 1048576:.1f} MiB before", ready["errors"])


# ---- Tools that others know ----


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


def wrk_us(text):
    """As wrk writes times: 41.00us, 1.23ms, 2.00s."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    return float(match.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[match.group(2)]


def wrk_sample(text, cpu):
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"(\d+) requests in", text)
    if not rate or not count or int(count.group(1)) == 0:
        raise Failed("wrk got no answer")
    times = {name: wrk_us(match.group(1)) for name, match in
             ((name, re.search(rf"^\s+{percent}%\s+(\S+)", text, re.M)) for name, percent in (("p50", 50), ("p99", 99))) if match}
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return sample(cpu / int(count.group(1)) * 1e6, "", sum(map(int, errors.groups())) if errors else 0, rate=float(rate.group(1)),
                  **times)


def measure_wrk(bench, row, contestant, _rate=None):
    seconds = max(1, round(bench.seconds))
    with contextlib.ExitStack() as stack:
        process, address, _ = bench.start_proxy(stack, contestant.proxy, row.service)
        command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--latency", "http://%s:%d/" % address]
        before = cpu_seconds(process.pid)
        text = run_tool(bench, command, seconds)
        return wrk_sample(text, cpu_seconds(process.pid) - before)


def measure_proxychains(bench, row, contestant, _rate=None):
    seconds = max(1, round(bench.seconds))
    with contextlib.ExitStack() as stack:
        process, address, target = bench.start_proxy(stack, contestant.proxy, row.service)
        conf = bench.directory / "proxychains.conf"
        conf.write_text("strict_chain\nquiet_mode\n[ProxyList]\nsocks5 %s %d\n" % address)
        url = "http://%s:%d/" % target
        command = ["proxychains4", "-q", "-f", conf]
        answer = run_tool(bench, [*command, "curl", "-s", "-m", "5", url], 5)
        if answer != "0123456789abcde\n":
            raise Failed("curl did not get the right answer through it")
        before = cpu_seconds(process.pid)
        text = run_tool(bench, [*command, "wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", url], seconds)
        return wrk_sample(text, cpu_seconds(process.pid) - before)


def measure_iperf3(bench, row, contestant, _rate=None):
    seconds = max(1, round(bench.seconds))
    server, port = find_program("iperf3"), bench.first_port + IPERF_PORT
    if not server:
        raise Failed("iperf3 is not installed")
    with contextlib.ExitStack() as stack:
        listener = bench.start(stack, bench.origin_core, [server, "-s", "-p", port])
        processes.wait_for_port((bench.network.ends, port), listener)
        process, address, _ = bench.start_proxy(stack, contestant.proxy, row.service, target_port=port)
        time.sleep(0.3)  # the server forgets our looking whether it is there
        before = cpu_seconds(process.pid)
        text = run_tool(bench, ["iperf3", "-c", address[0], "-p", address[1], "-t", seconds, "-J"], seconds)
        cpu = cpu_seconds(process.pid) - before
    received = json.loads(text).get("end", {}).get("sum_received")
    if not received or not received["bytes"]:
        raise Failed("iperf3: " + json.loads(text).get("error", "no data"))
    return sample(cpu / (received["bytes"] / 1e9), rate=received["bits_per_second"] / 1e9)


# ---- Before all: does it pass streams? ----


def verify_proxy(bench, proxy):
    """Do streams pass unchanged, both ways at once, each direction ending by itself? A number for a proxy that does
    not do it is a number for less work."""
    if proxy.mode in ("http", "udp"):
        return "in each sample"
    if proxy.name == f"{FLOOR}-bulk":
        return "not meant to: it waits for 256 KiB"
    with contextlib.ExitStack() as stack:
        try:
            _, address, target = bench.start_proxy(stack, proxy, VERIFY)
            command = bench.load_command(proxy, ["verify"], address, target)
            load = bench.start(stack, bench.load_core, command + ["--flows", 4, "--bytes", 8000003, "--seconds", 10])
            return "yes" if load.wait(timeout=60) == 0 else "no"
        except (Failed, OSError) as error:
            return str(error)
