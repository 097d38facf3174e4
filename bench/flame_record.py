#!/usr/bin/env python3
"""Records sluice under load and draws where its time goes: build/flamegraph-native.svg, the native path, and
build/flamegraph-lua.svg, the SOCKS4 proxy in Lua, with the lines of the script below.

perf samples the process; where it cannot, gdb takes backtraces, which know nothing of the kernel. The script's lines
come from POST /profile. See README.md.
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import flamegraph
import lua_proxy
import measure
import processes

STACK_OCTETS = 8192  # of each sample, from which perf unwinds: libraries of Debian have no frame pointers
FREQUENCY = 999
API_PORT = 90  # from the first
DEFAULT_LOAD = "bulk --flows 4"


def say(text):
    print(f"flamegraph: {text}", file=sys.stderr, flush=True)


# ---- Samplers ----


def perf_event(perf):
    """Cycles where the machine counts them, also with interrupts off; else the kernel's clock; None: nothing."""
    status, text = lua_proxy.command_output(perf, "stat", "-x,", "-e", "cycles", "--", "true")
    counts = status == 0 and "<not" not in text
    for event in (["cycles"] if counts else []) + ["cpu-clock"]:
        with tempfile.NamedTemporaryFile() as out:
            status, _ = lua_proxy.command_output(perf, "record", "-q", "-e", event, "-o", out.name, "--", "true")
        if status == 0:
            return event
    return None


def choose_sampler():
    """(function(pid, seconds, directory) -> stacks, what it is)."""
    perf = processes.find_program("perf")
    event = perf and perf_event(perf)
    if event:
        return (lambda *wanted: sample_by_perf(perf, event, *wanted)), f"perf, {event} at {FREQUENCY} Hz"
    if perf:
        paranoid = processes.read_setting("/proc/sys/kernel/perf_event_paranoid")
        say(f"perf may not sample here (kernel.perf_event_paranoid is {paranoid}): run as root, or sysctl"
            " kernel.perf_event_paranoid=1. Taking backtraces with gdb instead, without the kernel's part.")
    else:
        say("perf is not installed (apt-get install linux-perf). Taking backtraces with gdb instead, without the kernel's part.")
    gdb = processes.find_program("gdb")
    if not gdb:
        raise processes.Failed("gdb is not installed either: apt-get install linux-perf gdb")
    return (lambda *wanted: sample_by_gdb(gdb, *wanted)), "backtraces by gdb, waiting included"


def sample_by_perf(perf, event, pid, seconds, directory):
    data = directory / "perf.data"
    lua_proxy.must(perf, "record", "-q", "-e", event, "-F", FREQUENCY, "--call-graph", f"dwarf,{STACK_OCTETS}", "-p", pid,
                   "-o", data, "--", "sleep", seconds)
    script = subprocess.Popen([perf, "script", "-i", data, "-F", "comm,tid,ip,sym,dso", "--no-inline"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              errors="replace")
    with script:
        return flamegraph.fold_perf(line.rstrip("\n") for line in script.stdout)


def sample_by_gdb(gdb, pid, seconds, _directory):
    text, limit = [], time.monotonic() + seconds
    while time.monotonic() < limit:
        status, out = lua_proxy.command_output(gdb, "-nx", "-batch", "-p", pid, "-ex", "thread apply all backtrace 60")
        if status != 0 or "#0" not in out:
            raise processes.Failed(f"gdb may not attach: run as root, or sysctl kernel.yama.ptrace_scope=0 ({out[-200:]})")
        text += out.splitlines() + [""]
    return flamegraph.fold_gdb(text)


def sample_script(port, seconds):
    """The lines of the script that runs, or None where the API has no profile."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds + 30)
    connection.request("POST", f"/profile?seconds={seconds}", body=b"")
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    if answer.status != 200:
        raise processes.Failed(f"POST /profile: {answer.status} {text.strip()}")
    return flamegraph.name_functions(flamegraph.read_folded(text.splitlines()), lua_proxy.EXAMPLE)


# ---- Recording ----


def start_native(bench, stack, directory):
    del directory
    address = ("127.0.0.1", bench.first_port + measure.PROXY_PORT)
    process = bench.start(stack, bench.proxy_core, [bench.options.binary, "--loglevel", "2", "--workers", "1", "-l", "%s:%d" % address],
                          stderr=None)
    processes.wait_for_port(address, process)
    return process, address


def start_script(bench, stack, directory):
    address = ("127.0.0.1", bench.first_port + measure.PROXY_PORT)
    text = lua_proxy.set_local(lua_proxy.EXAMPLE.read_text(), "address, port", f'"127.0.0.1", {address[1]}')
    script = directory / lua_proxy.EXAMPLE.name
    script.write_text(text)
    spare = lua_proxy.Bench(bench.options, directory, bench.proxy_core, bench.load_core, "", ports=address[1] + 1)
    command = [bench.options.binary, "--loglevel", "2", "--workers", "1", "--api", f"127.0.0.1:{bench.first_port + API_PORT}",
               *lua_proxy.script_options(spare, script, directory)]
    process = bench.start(stack, bench.proxy_core, command, stderr=None)
    processes.wait_for_port(address, process)
    return process, address


def start_load(bench, stack, address, seconds):
    """Returns when all flows are open and warm."""
    words = shlex.split(bench.options.work)
    service = {"bulk": measure.SOURCE}.get(words[0], measure.ECHO)
    command = [bench.options.load, *words, "--via", "socks4a", "--proxy", "%s:%d" % address, "--target",
               f"127.0.0.1:{bench.first_port + service}", "--seconds", seconds, "--announce"]
    load = bench.start(stack, bench.load_core, command, stdout=subprocess.PIPE)
    if not load.stdout.readline():
        raise processes.Failed(f"the load `{bench.options.work}` does not start")
    return load


def load_result(load):
    line = load.stdout.readline()
    load.wait(timeout=30)
    result = json.loads(line) if line else {}
    if not result.get("count", result.get("bytes", 0)):
        raise processes.Failed(f"nothing went through the proxy: {result.get('first_error', 'no result')}")
    return f"{result['gbit_s']:.1f} Gbit/s" if "gbit_s" in result else f"{result['rate']:,.0f} per second"


def record(bench, sampler, start, with_script):
    """Stacks of the process, lines of the script or None, and what the load did meanwhile."""
    seconds = bench.options.seconds
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(tempfile.mkdtemp(dir=bench.directory))
        bench.start_origin(stack, bench.origin_core)
        process, address = start(bench, stack, directory)
        # gdb stops the process again and again, so that what the load counts is no measure then.
        load = start_load(bench, stack, address, seconds * (2 if with_script else 1) + 3)
        stacks = sampler(process.pid, seconds, directory)
        lines = sample_script(bench.first_port + API_PORT, seconds) if with_script else None
        return stacks, lines, load_result(load)


def keep(folder, name, title, panels):
    """The picture, and beside it the stacks that it is drawn from."""
    (folder / f"flamegraph-{name}.svg").write_text(flamegraph.draw(title, panels))
    for i, (_, stacks, _) in enumerate(panels):
        with open(folder / f"flamegraph-{name}{'-lines' if i else ''}.folded", "w", encoding="utf-8") as out:
            flamegraph.write_folded(stacks, out)
    say(f"{folder / f'flamegraph-{name}.svg'}: {sum(panels[0][1].values())} samples")


def run_all(options, directory):
    bench = measure.Bench(options, directory)
    sampler, how = choose_sampler()
    folder = pathlib.Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    stacks, _, result = record(bench, sampler, start_native, False)
    keep(folder, "native", f"sluice, native path: {options.work}, SOCKS4A, {result}", [(f"The process ({how})", stacks, "samples")])
    stacks, lines, result = record(bench, sampler, start_script, True)
    keep(folder, "lua", f"sluice, socks4_proxy.lua with script relay: {options.work}, {result}",
         [(f"The process ({how})", stacks, "samples"),
          ("The lines of the script (POST /profile, milliseconds of CPU time of its thread)", lines, "ms")])


def parse_arguments():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description="record flame graphs of sluice under load")
    parser.add_argument("--binary", default=str(root / "build" / "sluice"))
    parser.add_argument("--load", default=str(root / "build" / "load"))
    parser.add_argument("--folder", default=str(root / "build"), help="where to write (build)")
    parser.add_argument("--seconds", type=int, default=5, help="of each recording, 1 to 60 (5)")
    parser.add_argument("--work", default=DEFAULT_LOAD, help=f"words for bench/load ({DEFAULT_LOAD})")
    parser.add_argument("--first-port", type=int, default=measure.FIRST_PORT, help="of the ports to use (22000)")
    options = parser.parse_args()
    if not 1 <= options.seconds <= 60:
        parser.error("--seconds: 1 to 60")
    if shlex.split(options.work)[:1] not in (["bulk"], ["rtt"], ["connect"]):
        parser.error("--work: bulk, rtt or connect, with their options")
    return options


def main():
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("flamegraph: ended by SIGTERM"))
    for path in options.binary, options.load:
        if not os.access(path, os.X_OK):
            raise SystemExit(f"flamegraph: {path} is not there: run make flamegraph")
    directory = tempfile.mkdtemp(prefix="flamegraph-")
    try:
        run_all(options, directory)
    except (processes.Failed, OSError) as error:
        raise SystemExit(f"flamegraph: {error}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
