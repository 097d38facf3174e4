#!/usr/bin/env python3
"""Repeats the benchmark of the SOCKS4 proxy in Lua: files of 5 and 100 MiB through no proxy, a C proxy, ssh -D, the
script with its own relay and with sock:relay, and the native path; near and behind 96.9 ms.

Everything happens in two network namespaces that end with the run: client, proxies and a server are in the near one,
another server is in the far one. The proxy has one core; client, servers and the delay have another. See README.md.
"""
import argparse
import contextlib
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import document
import networks
import processes
import report
from processes import Failed, command_output, must

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "lua" / "examples" / "socks4_proxy.lua"
CONGESTION = "cubic"
NEAR_ADDRESS, FAR_ADDRESS = "10.97.0.1", "10.97.0.2"
ORIGIN_PORT, FIRST_PROXY_PORT = 8000, 20000
DIRECT, DANTE, SSH, SCRIPT, RELAY, NATIVE = "no proxy", "C proxy", "ssh -D", "script relay", "sock:relay", "native"
CONTESTANTS = [DIRECT, DANTE, SSH, SCRIPT, RELAY, NATIVE]
FAR, NEAR = "far", "near"
GBIT_S_MIN = 5  # of the script relay without delay


@dataclasses.dataclass
class Bench:
    options: argparse.Namespace
    directory: pathlib.Path
    proxy_core: str
    load_core: str
    far_space: str
    method: str = "" # of the delay
    ports: int = FIRST_PROXY_PORT

    def start(self, stack, core, command, far=False, **more):
        """A process that ends with the stack."""
        for name in "stdin", "stdout", "stderr":
            more.setdefault(name, subprocess.DEVNULL)
        prefix = ["ip", "netns", "exec", self.far_space] if far else []
        process = subprocess.Popen(prefix + processes.pinned(core, list(map(str, command))), **more)
        stack.callback(processes.end_process, process)
        return process

    def next_port(self):
        self.ports += 1
        return self.ports

    def folder(self, name):
        path = pathlib.Path(tempfile.mkdtemp(prefix=re.sub(r"\W+", "-", name) + "-", dir=self.directory))
        path.chmod(0o755)
        return path


def say(text):
    print(text, file=sys.stderr, flush=True)


def tool(name, package):
    found = processes.find_program(name)
    if not found:
        raise Failed(f"{name} is not installed: apt-get install {package}")
    return found


# ---- Two namespaces and the way between them ----


def make_spaces(stack):
    """Two namespaces; this process goes into the near one."""
    names = [f"sluice-{os.getpid()}-{end}" for end in (NEAR, FAR)]
    for name in names:
        must("ip", "netns", "add", name)
        stack.callback(command_output, "ip", "netns", "delete", name)
        must("ip", "-n", name, "link", "set", "lo", "up")
        # Nobody profits from what the kernel has learned about the path in an earlier sample.
        must("ip", "netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save")
    # The same for all contestants, whatever the host has.
    networks.allow_congestion_control(stack, [CONGESTION])
    networks.set_congestion_control(names, CONGESTION)
    networks.enter_space(f"/run/netns/{names[0]}")
    return names


def connect_by_netem(names, one_way_ms):
    """veth with netem at both ends; False: this kernel has no netem."""
    near, far = names
    must("ip", "link", "add", "path", "netns", near, "type", "veth", "peer", "name", "path", "netns", far)
    for name in names:
        status, _ = command_output("tc", "-n", name, "qdisc", "add", "dev", "path", "root", "netem", "delay",
                                   f"{one_way_ms}ms", "limit", 1000000)
        if status != 0:
            command_output("ip", "-n", near, "link", "delete", "path")
            return False
    return True


def connect_by_program(bench, stack, names, one_way_ms):
    process = bench.start(stack, bench.load_core, [bench.options.delay, *(f"/run/netns/{name}" for name in names),
                                                   one_way_ms], stdout=subprocess.PIPE, stderr=None)
    if process.stdout.readline() != b"ready\n":
        raise Failed("the delay does not start; it needs root and /dev/net/tun")


def connect_spaces(bench, stack, names):
    one_way_ms = bench.options.ping_ms / 2
    if connect_by_netem(names, one_way_ms):
        bench.method = "veth with netem"
    else:
        connect_by_program(bench, stack, names, one_way_ms)
        bench.method = "bench/delay (this kernel has no netem)"
    for name, address in zip(names, (NEAR_ADDRESS, FAR_ADDRESS)):
        must("ip", "-n", name, "address", "add", f"{address}/30", "dev", "path")
        must("ip", "-n", name, "link", "set", "path", "txqueuelen", 10000, "up")


# ---- Server and proxies ----


def start_origins(bench, stack):
    files = bench.folder("files")
    for size in [*bench.options.sizes, 0]:
        with open(files / f"{size}", "wb") as out:
            for _ in range(max(1, size)):
                out.write(os.urandom(1 << 20 if size else 1))
    for place, address in (NEAR, "127.0.0.1"), (FAR, FAR_ADDRESS):
        values = {"dir": bench.folder("nginx"), "address": address, "port": ORIGIN_PORT, "files": files}
        conf = values["dir"] / "conf"
        conf.write_text(processes.fill((HERE / "peers" / "bench-lua-nginx.conf").read_text(), values))
        server = bench.start(stack, bench.load_core, [tool("nginx", "nginx"), "-e", values["dir"] / "error.log", "-p",
                                                      values["dir"], "-c", conf], far=place == FAR)
        processes.wait_for_port((address, ORIGIN_PORT), server)


def start_dante(bench, stack, place, port):
    folder = bench.folder("dante")
    external = NEAR_ADDRESS if place == FAR else "127.0.0.1"
    text = (HERE / "peers" / "bench-lua-dante.conf").read_text()
    (folder / "conf").write_text(processes.fill(text, {"dir": folder, "port": port, "external": external}))
    return bench.start(stack, bench.proxy_core, [tool("danted", "dante-server"), "-f", folder / "conf"])


def start_ssh(bench, stack, _place, port):
    """As in the original: a client of the server on the same machine, which both are the proxy."""
    folder, sshd_port = bench.folder("ssh"), bench.next_port()
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    for key in "host", "user":
        must(tool("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    text = (HERE / "peers" / "bench-lua-sshd.conf").read_text()
    (folder / "conf").write_text(processes.fill(text, {"dir": folder, "sshd_port": sshd_port}))
    server = bench.start(stack, bench.proxy_core, [tool("sshd", "openssh-server"), "-D", "-f", folder / "conf"])
    processes.wait_for_port(("127.0.0.1", sshd_port), server)
    options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={folder}/known", "LogLevel=ERROR", "BatchMode=yes"]
    words = [word for option in options for word in ("-o", option)]
    return bench.start(stack, bench.proxy_core, [tool("ssh", "openssh-client"), "-F", "none", "-i", folder / "user", *words,
                                                 "-p", sshd_port, "-N", "-D", f"127.0.0.1:{port}", "root@127.0.0.1"])


def set_local(text, name, value):
    """Sets what the example defines on a line of its own."""
    changed, count = re.subn(rf"^local {name} = .*$", f"local {name} = {value}", text, flags=re.M)
    if count != 1:
        raise Failed(f"{EXAMPLE.name} does not define `local {name} =` once")
    return changed


def script_options(bench, script, folder):
    """How this build starts a script: by --script, or by a ruleset that does nothing else."""
    if "--script" in command_output(bench.options.binary, "--help")[1]:
        return ["--script", script]
    (folder / "start.lua").write_text(
        "neosocksd.async(function(ok, why) if not ok then print(why) end end,"
        f" function() dofile({str(script)!r}) end)\nreturn {{}}\n")
    return ["-l", f"127.0.0.1:{bench.next_port()}", "-r", folder / "start.lua"]


def start_sluice(bench, stack, port, mode):
    folder = bench.folder("sluice")
    if mode == NATIVE:
        options = ["-l", f"127.0.0.1:{port}"]
    else:
        text = set_local(EXAMPLE.read_text(), "address, port", f'"127.0.0.1", {port}')
        text = set_local(text, "mode", '"relay"' if mode == RELAY else '"script"')
        (folder / EXAMPLE.name).write_text(text)
        options = script_options(bench, folder / EXAMPLE.name, folder)
    command = [bench.options.binary, "--loglevel", "2", "--workers", "1", *options]
    return bench.start(stack, bench.proxy_core, command, stderr=None)


def start_contestant(bench, stack, name, place):
    """Its port, None without a proxy."""
    if name == DIRECT:
        return None
    port = bench.next_port()
    starters = {DANTE: start_dante, SSH: start_ssh}
    if name in starters:
        process = starters[name](bench, stack, place, port)
    else:
        process = start_sluice(bench, stack, port, name)
    processes.wait_for_port(("127.0.0.1", port), process, 10)
    return port


# ---- Samples ----


def cpu_times(core):
    """Busy and all ticks of a core."""
    with open("/proc/stat", encoding="ascii") as stat:
        for line in stat:
            fields = line.split()
            if fields[0] == f"cpu{core}":
                ticks = list(map(int, fields[1:9]))
                return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    return 0, 0


def busy_share(before, after):
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def fetch(bench, port, place, size):
    """One file; MB/s from the first SYN to the last octet, and how busy the cores were."""
    address = FAR_ADDRESS if place == FAR else "127.0.0.1"
    cores = [bench.proxy_core, bench.load_core]
    proxy = ["--socks4", f"127.0.0.1:{port}"] if port else []
    command = processes.pinned(bench.load_core, [tool("curl", "curl"), "-q", "-s", "-S", "-o", "/dev/null", "-m", "120", *proxy, "-w",
                                           "%{http_code} %{size_download} %{time_total} %{time_connect}",
                                           f"http://{address}:{ORIGIN_PORT}/{size}"])
    before = list(map(cpu_times, cores))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    after = list(map(cpu_times, cores))
    if done.returncode != 0:
        raise Failed(done.stderr.strip() or f"curl ended with status {done.returncode}")
    status, octets, total, connected = done.stdout.split()
    if int(status) != 200 or int(octets) != (size << 20 if size else 1):
        raise Failed(f"HTTP {status} with {octets} octets")
    return {"mb_s": int(octets) / float(total) / 1e6, "connect_ms": float(connected) * 1000,
            "busy": [busy_share(*pair) for pair in zip(before, after)]}


def sample_contestant(bench, name, place, samples):
    with contextlib.ExitStack() as stack:
        port = start_contestant(bench, stack, name, place)
        time.sleep(0.2)
        fetch(bench, port, place, 0)
        for size in bench.options.sizes:
            taken = fetch(bench, port, place, size)
            samples.setdefault((place, size, name), []).append(taken)
            busy = " ".join(f"{share:.0%}" for share in taken["busy"])
            say(f"{place} {size} MiB {name}: {taken['mb_s']:.1f} MB/s (cores {busy})")


def take_samples(bench):
    samples, failures = {}, {}
    for _ in range(bench.options.repeat):
        for place in FAR, NEAR:
            for name in bench.options.only:
                try:
                    sample_contestant(bench, name, place, samples)
                except (Failed, OSError, ValueError) as error:
                    failures[place, name] = str(error)
                    say(f"{place} {name}: failed: {error}")
    return samples, failures


# ---- The section of the document ----


def median(samples, place, size, name):
    taken = samples.get((place, size, name))
    return statistics.median(one["mb_s"] for one in taken) if taken else None


def format_number(value):
    return "-" if value is None else f"{value:,.2f} MB/s" if value < 10 else f"{value:,.1f} MB/s"


def format_table(bench, samples, place):
    lines = ["| | " + " | ".join(bench.options.only) + " |", "|---|" + "---:|" * len(bench.options.only)]
    for size in bench.options.sizes:
        cells = [format_number(median(samples, place, size, name)) for name in bench.options.only]
        lines.append(f"| {size} MB | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def format_spread(bench, samples):
    lines = ["| | | | min .. max | proxy's core busy | other core busy |", "|---|---|---|---:|---:|---:|"]
    for (place, size, name), taken in sorted(samples.items()):
        speeds = [one["mb_s"] for one in taken]
        busy = [statistics.median(one["busy"][i] for one in taken) for i in range(2)]
        lines.append(f"| {place} | {size} MB | {name} | {min(speeds):,.1f} .. {max(speeds):,.1f} | {busy[0]:.0%} |"
                     f" {busy[1]:.0%} |")
    return "\n".join(lines) + "\n"


def format_goal(title, value, target, text):
    if value is None:
        return f"| {title} | - | ≥ {target:g} | not measured |"
    return f"| {title} | {text.format(value)} | ≥ {target:g} | {'reached' if value >= target else '**not reached**'} |"


def format_goals(bench, samples):
    size = max(bench.options.sizes)

    def ratio(name, other):
        values = [median(samples, FAR, size, one) for one in (name, other)]
        return values[0] / values[1] if all(values) else None

    near = median(samples, NEAR, size, SCRIPT)
    lines = ["| to reach | measured | | |", "|---|---:|---|---|",
             format_goal(f"script relay / C proxy, {size} MB, far", ratio(SCRIPT, DANTE), 0.8, "{:.2f}"),
             format_goal(f"sock:relay / native, {size} MB, far", ratio(RELAY, NATIVE), 0.95, "{:.2f}"),
             format_goal(f"native / no proxy, {size} MB, far", ratio(NATIVE, DIRECT), 0.95, "{:.2f}"),
             format_goal(f"script relay, {size} MB, near, Gbit/s", near and near * 8 / 1000, GBIT_S_MIN, "{:.1f}")]
    return "\n".join(lines) + "\n"


def setting(name):
    return " ".join(processes.read_setting(f"/proc/sys/net/ipv4/{name}").split())


def package_version(name):
    status, text = command_output("dpkg-query", "-W", "-f", "${Version}", name)
    return text if status == 0 else "?"


def format_facts(bench, samples, started):
    connects = [one["connect_ms"] for (place, _, name), taken in samples.items() if (place, name) == (FAR, DIRECT)
                for one in taken]
    changed = " with uncommitted changes" if report.git("status", "--porcelain", "--untracked-files=no") else ""
    ping = f"{statistics.median(connects):.1f} ms to connect; " if connects else ""
    facts = [("date", started.strftime("%Y-%m-%d %H:%M UTC")),
             ("commit", (report.git("rev-parse", "--short", "HEAD") or "?") + changed),
             ("machine", f"{report.machine_name()}, kernel {platform.release()}"),
             ("cores", f"proxy on {bench.proxy_core}; client, servers and delay on {bench.load_core}"),
             ("far", f"{ping}{bench.options.ping_ms:g} ms of ping by {bench.method}"),
             ("C proxy", f"Debian's dante-server {package_version('dante-server')}, SOCKS4"),
             ("ssh -D", processes.first_line(["ssh", "-V"])),
             ("client, server", processes.first_line(["curl", "--version"]).split(" (")[0] + "; " +
              processes.first_line(["nginx", "-v"])),
             ("congestion control", processes.read_setting("/proc/sys/net/ipv4/tcp_congestion_control")),
             ("socket buffers", "tcp_wmem " + setting("tcp_wmem") + "; tcp_rmem " + setting("tcp_rmem")),
             ("samples", f"{bench.options.repeat} of each, alternating; medians")]
    return "\n".join(["| | |", "|---|---|"] + [f"| {name} | {value} |" for name, value in facts]) + "\n"


def format_section(bench, samples, failures, started):
    parts = ["## Sockets of scripts\n",
             "Written by `bench/lua_proxy.py` (`make bench-lua`); bench/README.md says what is measured and how. One file through"
             " the SOCKS4 proxy in Lua, `lua/examples/socks4_proxy.lua`, and what it is compared with.\n"]
    if bench.options.quick or bench.options.only != CONTESTANTS:
        parts.append("This is a partial or quick run, not the full measurement.\n")
    parts += [format_facts(bench, samples, started), format_goals(bench, samples),
              f"With {bench.options.ping_ms:g} ms of ping between proxy and server:\n", format_table(bench, samples, FAR),
              "Without delay, all on the loopback device:\n", format_table(bench, samples, NEAR)]
    if bench.options.plot:
        parts.append(f"![throughput of each]({pathlib.Path(bench.options.plot).name})\n")
    parts += [format_spread(bench, samples)]
    parts += [f"- {place}, {name}: some or all failed: {why}" for (place, name), why in failures.items()]
    return "\n".join(parts)


# ---- The plot ----


def plot_data(bench, samples, place):
    lines = []
    for name in bench.options.only:
        values = [median(samples, place, size, name) or 0 for size in bench.options.sizes]
        lines.append(f'"{name}" ' + " ".join(f"{value:.3f}" for value in values))
    return "\n".join(lines)


def write_plot(bench, samples):
    bars = ", ".join(f"$DATA using {i + 2}{':xtic(1)' if i == 0 else ''} title '{size} MB'"
                     for i, size in enumerate(bench.options.sizes))
    parts = ["set terminal svg size 900,380 font 'sans-serif,13' background '#ffffff'", f"set output '{bench.options.plot}'",
             "set multiplot layout 1,2", "set style data histogram", "set style histogram clustered gap 1",
             "set style fill solid 0.85 noborder", "set boxwidth 0.9", "set grid ytics lc rgb '#dddddd'", "set yrange [0:*]",
             "set xtics rotate by -35 nomirror scale 0", "set ytics nomirror", "set border 3", "set key above right",
             "set linetype 1 lc rgb '#7aa6c2'", "set linetype 2 lc rgb '#1f5a82'", "set ylabel 'MB/s'"]
    for place, title in (FAR, f"{bench.options.ping_ms:g} ms of ping"), (NEAR, "without delay"):
        data = bars.replace("$DATA", f"${place}")
        parts += [f"${place} << EOD\n{plot_data(bench, samples, place)}\nEOD", f"set title '{title}'", f"plot {data}"]
    done = subprocess.run([tool("gnuplot", "gnuplot-nox")], input="\n".join(parts) + "\n", text=True, check=False)
    if done.returncode != 0:
        raise Failed("gnuplot could not draw")


# ---- Main ----


def parse_arguments():
    root = HERE.parent
    parser = argparse.ArgumentParser(description="measure the SOCKS4 proxy in Lua as its original was measured")
    parser.add_argument("--binary", default=str(root / "build" / "sluice"), help="sluice to measure (build/sluice)")
    parser.add_argument("--delay", default=str(root / "build" / "delay"), help="bench/delay, built (build/delay)")
    parser.add_argument("--output", help="document whose section to write (stdout)")
    parser.add_argument("--plot", help="SVG to draw")
    parser.add_argument("--repeat", type=int, default=5, help="samples of each (5)")
    parser.add_argument("--sizes", default="5,100", help="of the files, MiB, by comma (5,100)")
    parser.add_argument("--ping-ms", type=float, default=96.904, help="there and back (96.904)")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants, by comma")
    parser.add_argument("--quick", action="store_true", help="5 MiB, one sample")
    options = parser.parse_args()
    options.repeat = 1 if options.quick else max(1, options.repeat)
    options.sizes = [5] if options.quick else [int(size) for size in options.sizes.split(",")]
    options.only = options.only.split(",")
    for name in options.only:
        if name not in CONTESTANTS:
            parser.error(f"--only {name}: there are {', '.join(CONTESTANTS)}")
    return options


def check_means(options):
    if os.geteuid() != 0:
        raise Failed("network namespaces need root: sudo make bench-lua")
    for path in options.binary, options.delay:
        if not os.access(path, os.X_OK):
            raise Failed(f"{path} is not there: run make all build/delay")
    for name, package in ("ip", "iproute2"), ("tc", "iproute2"), ("taskset", "util-linux"):
        tool(name, package)


def measure(options):
    started = datetime.datetime.now(datetime.timezone.utc)
    cpus = list(map(str, sorted(os.sched_getaffinity(0))))
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="bench-lua-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)  # servers drop their privileges before they read their files
        names = make_spaces(stack)
        bench = Bench(options, directory, cpus[0], cpus[min(1, len(cpus) - 1)], names[1])
        connect_spaces(bench, stack, names)
        start_origins(bench, stack)
        samples, failures = take_samples(bench)
    if not samples:
        raise Failed("not one sample could be taken")
    if options.plot:
        write_plot(bench, samples)
    return format_section(bench, samples, failures, started)


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench-lua: ended by SIGTERM"))
    try:
        check_means(options)
        section = measure(options)
    except Failed as error:
        raise SystemExit(f"bench-lua: {error}") from error
    if not options.output:
        print(section)
        return
    path = pathlib.Path(options.output)
    path.write_text(document.put_section(path.read_text() if path.exists() else "", "bench-lua", section))


if __name__ == "__main__":
    main()
