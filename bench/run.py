#!/usr/bin/env python3
"""Measures sluice against the proxies of peers.tsv and writes one Markdown document.

Every row is measured in alternation: A, B, C, A, B, C, ... so that what the machine does meanwhile happens to all. A
proxy is started afresh for each sample, on one core; bench/load and its origin have another. Everything happens in network
namespaces of the bench's own, so it needs root. See README.md for what the numbers are and are not.

    networks.py   the namespaces, and the congestion control of all
    peers.py      the proxies        rows.py     what is measured        goals.py    what is to be reached
    measure.py    ways to measure    figures.py  medians and verdicts    report.py   the document
"""
import argparse
import contextlib
import datetime
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile

import document as sections
import figures
import measure
import networks
import record as records
import report
from measure import Bench, say
from peers import FLOOR, HERE, floor_proxies, read_peers, sluice_proxies
from processes import Failed
from rows import METRICS, choose_rows, contestants, make_rows

LOAD_SOURCES_NOT = {"micro.c", "decisions.c", "delay.c", "floor.c", "floor_udp.c"}  # other programs of this folder
FLOOR_SOURCES = ("floor.c", "floor_udp.c")
SAMPLES_MIN, SECONDS_MIN = 7, 3.0  # of a full measurement
FILES_WANTED = 20000  # two for each of the 9,000 sessions of a row, and some
LOADS = (25, 50, 75)


# ---- Running the rows ----


def describe(row, taken):
    text = METRICS[row.metric].text.format(taken["value"])
    extra = [f"{report.number(taken['rate'])}{row.unit}" if "rate" in taken else "",
             f"p99 {taken['p99']:,.0f} µs" if "p99" in taken else "", taken["note"]]
    return f"{text} {METRICS[row.metric].title} ({', '.join(filter(None, extra))})"


def take_sample(bench, row, contestant, rate, where):
    """A sample, or None and why not."""
    try:
        taken = row.measure(bench, row, contestant, rate)
    except (Failed, OSError, ValueError, KeyError, AttributeError, subprocess.SubprocessError) as error:
        why = str(error) or type(error).__name__
        say(f"{where} {contestant.label}: failed: {why}")
        return None, why
    say(f"{where} {contestant.label}: {describe(row, taken)}")
    return taken, None


def run_row(bench, row, rate=None, name=""):
    """Returns {label: [sample, ...]} and {label: why it has none}."""
    samples, failures = {}, {}
    for turn in range(bench.options.samples):
        for contestant in contestants(row, bench.proxies):
            if row.churns:
                measure.wait_for_time_wait(bench.network)
            where = f"{bench.network.name} {name or row.name} {turn + 1}/{bench.options.samples}"
            taken, why = take_sample(bench, row, contestant, rate, where)
            if taken:
                samples.setdefault(contestant.label, []).append(taken)
            else:
                failures[contestant.label] = why
    return samples, failures


def slowest_rate(samples):
    """Of all that are proxies."""
    rates = [figures.median(taken, "rate") for label, taken in samples.items() if label != FLOOR]
    return min((rate for rate in rates if rate), default=None)


def run_network(bench, rows, congestion, results, loads, keep):
    """All rows in the network in which we are. `keep` is called behind each."""
    for row in rows:
        samples, failures = run_row(bench, row)
        results.setdefault((bench.network.name, congestion, 0), {})[row.name] = samples, failures
        slowest = slowest_rate(samples) if row.paced else None
        for percent in loads if slowest else ():
            found = run_row(bench, row, slowest * percent / 100, f"{row.name} at {percent} %")
            results.setdefault((bench.network.name, congestion, percent), {})[row.name] = found
        keep()


def verify_all(bench, rows, verified):
    """Each proxy in each network; the document names the networks if they differ."""
    for key in used_proxies(bench, rows):
        verified.setdefault(key, {})[bench.network.name] = measure.verify_proxy(bench, bench.proxies[key])


def used_proxies(bench, rows):
    return list(dict.fromkeys((one.proxy.name, one.proxy.mode) for row in rows for one in contestants(row, bench.proxies)))


def verified_text(by_network):
    if len(set(by_network.values())) == 1:
        return next(iter(by_network.values()))
    return "; ".join(f"{network}: {text}" for network, text in by_network.items())


def proxies_of_run(bench, rows, verified):
    """As the record has them."""
    found = {f"{mode} {name}": (bench.proxies[name, mode], verified_text(verified[name, mode])) for name, mode in used_proxies(bench, rows)}
    return {key: {"name": proxy.name, "mode": proxy.mode, "version": proxy.version, "note": proxy.note, "verified": text}
            for key, (proxy, text) in found.items()}


def run_pass(bench, network, congestion, rows, results, verified, first, keep):
    """One network under one congestion control. Only the first one is measured at fixed loads as well."""
    with contextlib.ExitStack() as stack:
        networks.set_congestion_control(network.spaces(), congestion)
        bench.network = network
        stack.enter_context(networks.entered(network, bench.resolv))
        bench.start_origin(stack, bench.origin_core)
        bench.start_names(stack, bench.load_core)
        say(f"== {network.name}, {congestion}")
        if first:
            verify_all(bench, rows, verified)
        run_network(bench, rows if first else [row for row in rows if row.congested], congestion, results,
                    bench.options.loads if first else (), keep)


def run(bench, rows, missing, keep):
    """Hands the record of this run to `keep` behind each row: what ends early has not measured in vain."""
    facts = report.facts_of_run(bench, datetime.datetime.now(datetime.timezone.utc))
    results, verified = {}, {}

    def keep_all():
        keep(records.make_record(facts, results, proxies_of_run(bench, rows, verified), missing))

    with contextlib.ExitStack() as stack:
        networks.allow_congestion_control(stack, bench.options.congestion)
        bench.resolv = networks.open_private_mounts(bench.directory)
        opened = networks.open_networks(stack, bench.options.networks, bench.proxy_core, bench.load_core)
        for congestion in bench.options.congestion:  # before anything is measured
            for network in opened:
                networks.set_congestion_control(network.spaces(), congestion)
        for congestion in bench.options.congestion:
            for network in opened:
                run_pass(bench, network, congestion, rows, results, verified, congestion == bench.options.congestion[0], keep_all)


# ---- Main ----


def parse_list(known):
    def parse(text):
        words = text.replace(",", " ").split()
        unknown = [word for word in words if known and word not in known]
        if unknown or not words:
            raise argparse.ArgumentTypeError(f"{' '.join(unknown) or 'nothing'}: give some of {' '.join(map(str, known))}")
        return words
    return parse


def parse_loads(text):
    if text in ("", "none"):
        return []
    try:
        loads = [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise argparse.ArgumentTypeError("give per cent, as in 25,50,75") from error
    if not all(0 < load < 100 for load in loads):
        raise argparse.ArgumentTypeError("loads are 1 to 99 per cent")
    return loads


def parse_arguments(arguments=None):
    root = HERE.parent
    parser = argparse.ArgumentParser(description="measure sluice against other proxies, as root")
    parser.add_argument("--binary", default=str(root / "build" / "sluice"), help="sluice to measure (build/sluice)")
    parser.add_argument("--load", help="bench/load, built (beside the binary, else compiled for this run)")
    parser.add_argument("--floor", help="bench/floor, built (the same)")
    parser.add_argument("--output", help="Markdown file to write (stdout)")
    parser.add_argument("--json", help="file for every single sample")
    parser.add_argument("--keep", action="store_true",
                        help="what is in that file stays, but for the rows that are measured, and the output is written from all")
    parser.add_argument("--quick", action="store_true", help="one sample of one second each, without fixed loads")
    parser.add_argument("--samples", type=int, help=f"of each proxy in each row ({SAMPLES_MIN})")
    parser.add_argument("--seconds", type=float, help=f"length of a sample ({SECONDS_MIN:g})")
    parser.add_argument("--rows", help="rows to run, by comma; * and ? match (all)")
    parser.add_argument("--networks", type=parse_list(networks.NETWORKS), default=list(networks.NETWORKS),
                        help="loopback, veth or both (both)")
    parser.add_argument("--congestion", type=parse_list(()), default=["cubic", "bbr"],
                        help="congestion control of all; further ones are for extra runs of rows that depend on it (cubic,bbr)")
    parser.add_argument("--loads", type=parse_loads, default=list(LOADS), help="fixed loads in per cent, or none (25,50,75)")
    parser.add_argument("--first-port", type=int, default=measure.FIRST_PORT, help="of the 10,000 to use (22000)")
    parser.add_argument("--sluice-option", action="append", default=[], metavar="WORD", help="one more word for sluice")
    parser.add_argument("--peers-only", action="store_true", help="without sluice")
    parser.add_argument("--list", action="store_true", help="list the rows and the peers found, and end")
    options = parser.parse_args(arguments)
    options.samples = options.samples or (1 if options.quick else SAMPLES_MIN)
    options.seconds = options.seconds or (1.0 if options.quick else SECONDS_MIN)
    options.loads = [] if options.quick else options.loads
    options.partial = options.samples < SAMPLES_MIN or options.seconds < SECONDS_MIN
    if options.keep and (options.partial or not options.json):
        parser.error(f"--keep is for full samples, {SAMPLES_MIN} of {SECONDS_MIN:g} s, and needs --json")
    return options


def find_or_compile(given, binary, name, sources, libraries, directory):
    """The program that was built with sluice, or one compiled for this run."""
    beside = pathlib.Path(binary).resolve().parent / name
    if given or beside.exists():
        return str(pathlib.Path(given or beside).resolve())
    made = pathlib.Path(directory) / name
    subprocess.run([os.environ.get("CC", "gcc"), "-std=c11", "-D_GNU_SOURCE", f"-I{HERE.parent}", "-O2", *map(str, sources),
                    "-o", str(made), *libraries], check=True)
    return str(made)


def find_programs(options, directory):
    load = [path for path in sorted(HERE.glob("*.c")) if path.name not in LOAD_SOURCES_NOT]
    options.load = find_or_compile(options.load, options.binary, "load", load, [], directory)
    options.floor = find_or_compile(options.floor, options.binary, "floor", [HERE / name for name in FLOOR_SOURCES],
                                    ["-luring"], directory)


def raise_file_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        hard = hard if hard == resource.RLIM_INFINITY else max(hard, FILES_WANTED)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and soft < FILES_WANTED:
        say(f"bench: only {soft} open files are allowed; rows with many sessions may fail")


def write_output(options, text):
    if not options.output:
        print(text)
        return
    path = pathlib.Path(options.output)
    path.write_text(sections.keep_sections(path.read_text() if path.exists() else "", text))


def make_keeper(options):
    """What writes the files, from what was there before the run and what the run has measured so far."""
    old = records.read(options.json) if options.keep else None
    some = options.rows or len(options.networks) < len(networks.NETWORKS)
    partial = options.partial or bool(some and not options.keep)

    def keep(measured):
        whole = records.merge(old, measured) if old else measured
        if options.json:
            records.write(options.json, whole)
        write_output(options, report.format_document(whole, make_rows(), partial))
    return keep


def bench_all(options, rows):
    proxies, missing = read_peers(HERE / "peers.tsv")
    if options.list:
        print("rows: " + " ".join(row.name for row in rows))
        print("peers: " + " ".join(f"{name}({mode})" for name, mode in proxies))
        return
    if options.peers_only:
        rows = [row for row in rows if row.measure is not measure.measure_workers]
    elif not os.access(options.binary, os.X_OK):
        raise Failed(f"{options.binary} is not there: run make, or give --binary")
    else:
        proxies |= sluice_proxies(str(pathlib.Path(options.binary).resolve()), options.sluice_option)
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.chmod(directory, 0o755)  # peers may drop their privileges before they read their files
        find_programs(options, directory)
        bench = Bench(options, directory)
        bench.proxies = proxies | floor_proxies(options.floor)
        last = []
        keep = make_keeper(options) if options.output else last.append
        run(bench, rows, missing, keep)
    if last:
        make_keeper(options)(last[-1])


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))
    options = parse_arguments()
    try:
        bench_all(options, choose_rows(options.rows))
    except (Failed, PermissionError) as error:
        raise SystemExit(f"bench: {error}") from error


if __name__ == "__main__":
    main()
