#!/usr/bin/env python3
"""Plants small faults in the product, one at a time, and looks whether a test notices: `make mutants`.

    mutants.py [--build DIR] [--seed N] [--count N] [--jobs N] [--effort S] [FILE or folder...]

The same seed takes the same faults. A fault that does not compile, or changes nothing in the object, is not counted. What
came out is kept in build/mutants/seed-N.jsonl: an interrupted run goes on where it was, and after an edit only those are
tried again that nobody had noticed, or whose line has changed. The list of survivors is build/mutants/seed-N-FILES.txt.
Faults that no test can see are listed in equivalent.txt, with the reason."""
import argparse
import concurrent.futures
import json
import os
import shutil
import signal
import sys
import threading
import time

import changes
import reach
import sandbox
import slot

ROOT = os.path.dirname(os.path.dirname(reach.HERE))


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def state_of_tree(root):
    """What changes when anything does that could make a test notice."""
    names = [os.path.join(root, "Makefile")]
    for folder in ("protocols", "core", "lua", "api", "tests", "bench"):
        for path, folders, files in os.walk(os.path.join(root, folder)):
            folders[:] = [name for name in folders if name != "__pycache__"]
            names += [os.path.join(path, name) for name in files]
    return reach.digest(*filter(os.path.isfile, sorted(names)))


class Journal:
    """What has been found out, one line each. A verdict on a fault that was noticed stays; others hold for this tree only."""

    def __init__(self, path, tree):
        self.path, self.tree, self.known = path, tree, {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    entry = json.loads(line)
                    self.known[entry["rank"]] = entry

    def recall(self, change):
        entry = self.known.get(change.rank)
        if entry and (entry["tree"] == self.tree or entry["outcome"] not in ("survived", "unreached")):
            return entry
        return None

    def write(self, change, verdict, seconds):
        entry = {"rank": change.rank, "tree": self.tree, "outcome": verdict.outcome, "by": verdict.by, "path": change.path,
                 "line": change.line, "kind": change.kind, "before": change.before, "after": change.after,
                 "seconds": round(seconds, 1)}
        self.known[change.rank] = entry
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return entry


class Interrupt:
    """What is being tried comes to its end, so that no process and no copy is left behind; nothing new begins."""

    def __init__(self):
        self.came = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.came.set())

    def check(self):
        if self.came.is_set():
            raise SystemExit("mutants: interrupted; the same command goes on from here")


class Hunt:
    """Several slots take faults from one list until enough of them are counted."""

    def __init__(self, options, reachers, journal, faults):
        self.options, self.reachers, self.journal = options, reachers, journal
        self.lock, self.results = threading.Lock(), {}
        self.faults = iter(enumerate(faults))

    def next_fault(self):
        """None when as many as are wanted are counted or being tried."""
        with self.lock:
            while True:
                counted = sum(entry is None or entry["outcome"] not in slot.NOT_COUNTED for entry in self.results.values())
                number, change = next(self.faults, (None, None))
                if change is None or counted >= self.options.count:
                    return None
                self.options.interrupt.check()
                self.results[number] = self.journal.recall(change)
                if self.results[number] is None:
                    return number, change

    def work(self, number):
        place = slot.Slot(number, ROOT, self.options.build, self.reachers, self.options.effort)
        try:
            while found := self.next_fault():
                index, change = found
                begin = time.monotonic()
                self.settle(index, change, place.attempt(change), time.monotonic() - begin)
        finally:
            place.close()

    def settle(self, index, change, verdict, seconds):
        with self.lock:
            self.results[index] = self.journal.write(change, verdict, seconds)
            if verdict.outcome not in slot.NOT_COUNTED:
                say(f"{seconds:6.1f} s {verdict.outcome:9} {verdict.by:24}", f"{change.path}:{change.line}", change.kind)

    def run(self):
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            try:
                for done in [pool.submit(self.work, number) for number in range(self.options.jobs)]:
                    done.result()
            except BaseException:
                self.faults = iter(())  # who is at it ends with the fault that it has
                raise
        entries = [entry for _, entry in sorted(self.results.items()) if entry]
        return [entry for entry in entries if entry["outcome"] not in slot.NOT_COUNTED][:self.options.count]


def report(entries, path, title):
    """The survivors, and how many of what came out how."""
    by_outcome = {"noticed": [], "survived": [], "unreached": []}
    for entry in entries:
        by_outcome[entry["outcome"]].append(entry)
    lines = [title]
    for outcome in ("survived", "unreached"):
        lines += ["", f"{outcome}: {len(by_outcome[outcome])}"]
        for entry in sorted(by_outcome[outcome], key=lambda e: (e["path"], e["line"])):
            lines += [f"{entry['path']}:{entry['line']} {entry['kind']}", f"- {entry['before']}", f"+ {entry['after']}"]
    left = len(by_outcome["survived"]) + len(by_outcome["unreached"])
    lines += ["", f"{len(entries)} faults, {len(by_outcome['noticed'])} noticed, {len(by_outcome['survived'])} survived, "
              f"{len(by_outcome['unreached'])} in lines that no test reaches: {100 * left / max(1, len(entries)):.1f} % left"]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))


def find_reachers(options):
    """Tests leave things in their working directory, so they have a copy."""
    place = os.path.join(options.build, "mutants", f"copy-{os.getpid()}")
    slot.copy_checkout(ROOT, options.build, place)
    try:
        return reach.Map(place, options.build, say, options.interrupt.check).reachers(options.jobs, options.effort > 0)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description="plants faults and looks whether tests notice")
    parser.add_argument("--build", default="build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100, help="how many that compile")
    parser.add_argument("--jobs", type=int, default=sandbox.run.CPUS)
    parser.add_argument("--effort", type=float, default=30,
                        help="seconds of end to end tests for each fault that the others do not notice; 0: none")
    parser.add_argument("--list", action="store_true", help="only show what would be planted")
    parser.add_argument("files", nargs="*", default=["protocols", "core", "lua", "api"])
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    os.chdir(ROOT)
    listed = changes.left_out(os.path.join(reach.HERE, "equivalent.txt"))
    every = changes.ranked(ROOT, options.files, options.seed)
    stale = {fault for fault in listed if fault[0].startswith(tuple(options.files))}
    stale -= {(change.path, change.before, change.after) for change in every}
    for path, before, after in sorted(stale):
        say(f"equivalent.txt: {path} has no such line any more: - {before} + {after}")
    faults = [change for change in every if (change.path, change.before, change.after) not in listed]
    if options.list:
        print("\n".join(change.name for change in faults[:options.count]))
        return 0
    sandbox.check()
    options.interrupt = Interrupt()
    base = os.path.join(options.build, "mutants", f"seed-{options.seed}")
    reachers = find_reachers(options)
    journal = Journal(base + ".jsonl", f"{state_of_tree(ROOT)} {options.effort}")
    entries = Hunt(options, reachers, journal, faults).run()
    report(entries, "-".join([base, *(name.replace("/", "_") for name in options.files)]) + ".txt",
           f"seed {options.seed}, {' '.join(options.files)}, {time.strftime('%Y-%m-%d')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
