#!/usr/bin/env python3
"""Runs the steps that its arguments name, counts what passed, failed or was skipped, and shows what a failed one printed.

    run.py [--build DIR] [--first N --count N] [--seconds N] [--only FILE]... unit|sim|fuzz|e2e|asan|gcstress|tsan|lint|all...

What is to be run has been built before, which is the Makefile's part; only `all` builds while it tests. The last line is
`N passed, N failed, N skipped`; the exit status is 1 if anything failed."""
import argparse
import collections
import concurrent.futures
import functools
import glob
import os
import random
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid

import forks

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CPUS = len(os.sched_getaffinity(0))
SHOWN_LINES = 200  # of a failed step's output, from its end
SLOW = int(os.environ.get("SLUICE_TEST_SLOW", "1"))  # how many times longer than usual everything takes: emulated machines
WAITING = (7 if SLOW == 1 else 2) * CPUS  # tests that wait most of the while, at a time
RUN = str(uuid.uuid4())  # marks whatever this run starts
SANITIZERS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1:suppressions=" + os.path.join(ROOT, "tests", "tsan.supp"),
}
# Not the tests of limits: they count descriptors and milliseconds that TSan uses up by itself.
TSAN_E2E = ["-k", "not test_limits or start_and_stop"]
# Those of Lua, but for limits and scripts, whose time budgets are too small for a collection per allocation, and for modules
# and sets, which make objects by the hundred thousand.
GCSTRESS_UNIT = ["test_lua_hostile", "test_lua_data", "test_lua_socket", "test_lua_socket_proxy", "test_lua_coroutine",
                 "test_lua_engine", "test_lua_rpc", "test_lua_execute", "test_lua_boot", "test_lua_match"]
# Those whose scripts have time budgets that are meant for a collector which rests: ten times as much.
GCSTRESS_SLOW = ["test_lua_limits", "test_lua_modules", "test_lua_script", "test_lua_sets"]
TSAN_UNIT = ["test_queue", "test_letter", "test_log", "test_bucket", "test_keys", "test_usage", "test_usage_room", "test_lua_script", "test_resolver_thread",
             "test_checkers", "test_record_ring", "test_access_log"]


# --- what a program's output says ---

def count_tap(status, output):
    """cmocka's TAP, in which a skipped test is `not ok N # SKIP name`. A program that ends before its plan is fulfilled has
    failed in one more place."""
    results = re.findall(r"^(ok|not ok) \d+ (?:- .*?)?(# SKIP.*)?$", output, re.MULTILINE)
    failed = sum(word == "not ok" and not skip for word, skip in results)
    skipped = sum(bool(skip) for _, skip in results)
    planned = sum(map(int, re.findall(r"^1\.\.(\d+)$", output, re.MULTILINE)))
    passed = len(results) - failed - skipped
    if planned == 0 or len(results) < planned or (status != 0 and failed == 0):
        failed += 1
    return passed, failed, skipped


def count_pytest(status, output):
    """Of one run or of several. A run that ends without its last line has failed in one more place."""
    lines = re.findall(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*$", output, re.MULTILINE)
    counts = collections.Counter()
    for number, word in re.findall(r"(\d+) ([a-z]+)", "\n".join(lines)):
        counts[word] += int(number)
    failed = counts["failed"] + counts["error"] + counts["errors"]
    if status != 0 and failed == 0:
        failed = 1
    return counts["passed"], failed, counts["skipped"] + counts["xfailed"]


def count_status(status, output):
    return (1, 0, 0) if status == 0 else (0, 1, 0)


def count_build(status, output):
    """What has been built is no test."""
    return (0, 0, 0) if status == 0 else (0, 1, 0)


# --- running ---

class Task:
    """One or more commands that are counted as one thing, or as what their output says. `waits`: they wait for clocks most
    of the while, so that many may run side by side; else one for each CPU, and behind those that wait. `needs`: a task of
    Runner.run()'s `builds`, behind which they begin. `pytest`: the commands are arguments of pytest, for which FORKS forks,
    with the options of Forks.run() that stand there."""

    def __init__(self, name, commands, count=count_status, timeout=600, waits=False, pytest=None, **environment):
        self.waits, self.needs, self.pytest = waits, None, pytest
        self.name, self.commands, self.count, self.timeout = name, commands, count, timeout * SLOW
        self.environment = {**os.environ, **SANITIZERS, **environment}


def kill_tagged(run):
    """Whatever a command has started has its environment, also in a session of its own and without a parent. `run`: of one
    command, or the beginning that all of them share."""
    mark = f"SLUICE_TEST_RUN={run}".encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as environment:
                if any(word.startswith(mark) for word in environment.read().split(b"\0")):
                    os.kill(int(name), signal.SIGKILL)
        except OSError:
            continue  # somebody else's, or gone


Ended = collections.namedtuple("Ended", "status output cpu")  # cpu: seconds


FORKS = forks.Forks(ROOT, {**os.environ, "SLUICE_TEST_RUN": f"{RUN}.forks"})


def execute(command, timeout, environment, pytest=None):
    """Runs it to its end; `pytest` as in Task. A command that hangs has failed; it is killed, and what it has left behind in
    any case. The output goes to a file: a pipe would have no end as long as a grandchild holds it."""
    run = f"{RUN}.{uuid.uuid4()}"
    environment = {**environment, "SLUICE_TEST_RUN": run}
    with tempfile.TemporaryFile() as output:
        try:
            if pytest is None:
                ended, status, cpu = spawn(command, timeout, environment, output)
            else:
                ended, status, cpu = fork_pytest(command, timeout, environment, output, **pytest)
        except OSError as missing:
            return Ended(127, f"{missing}\n", 0.0)
        output.seek(0)
        text = output.read().decode(errors="replace")
        if ended:
            return Ended(status, text, cpu)
        return Ended(124, f"{text}\nkilled after {timeout} s: {shlex.join(command)}\n", cpu)


def spawn(command, timeout, environment, output):
    """(Whether it has ended by itself, exit status, CPU seconds.)"""
    child = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
                             stdout=output, stderr=subprocess.STDOUT)
    ended = False
    try:
        ended = has_ended(child, timeout)
    finally:  # interrupted, too: nothing is left behind
        kill_tagged(environment["SLUICE_TEST_RUN"])
        status, cpu = reap(child)
    return ended, status, cpu


def fork_pytest(words, timeout, environment, output, **options):
    """The same."""
    try:
        return FORKS.run(words, timeout, environment, output, **options)
    finally:
        kill_tagged(environment["SLUICE_TEST_RUN"])


def has_ended(child, timeout):
    """Waits, in seconds. The child is not reaped: its number stays its own."""
    descriptor = os.pidfd_open(child.pid)
    try:
        return bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)


def reap(child):
    """(exit status, CPU seconds of the child and of all that it has waited for)."""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_utime + usage.ru_stime


class Runner:
    def __init__(self, journal=None):
        """`journal`: a file to which a line is added for each command: when it began, how long it took, its CPU time."""
        self.totals = [0, 0, 0]
        self.journal = journal
        self.begin = time.monotonic()

    def report(self, name, counts, seconds, cpu, outputs):
        """`seconds`, `cpu`: of all its commands. `outputs`: of what has failed; of everything if nothing has."""
        self.totals = [sum(pair) for pair in zip(self.totals, counts)]
        passed, failed, skipped = counts
        details = f"{passed} passed" + (f", {failed} failed" if failed else "") + (
            f", {skipped} skipped" if skipped else "")
        print(f"{'FAIL' if failed else 'ok  '} {name:<28} {details} ({seconds:.1f} s, CPU {cpu:.1f} s)", flush=True)
        if failed:
            for line in "".join(outputs).splitlines()[-SHOWN_LINES:]:
                print(f"     | {line}")
        elif skipped:  # a skipped test says why
            for line in re.findall(r"^SKIPPED.*", "".join(outputs), re.MULTILINE):
                print(f"     | {line}")

    def run(self, tasks, jobs=CPUS, builds=()):
        """All commands of all tasks side by side: `jobs` of those that compute and WAITING of those that wait, and meanwhile
        `builds`, one after the other. What stands first in the list begins first; each task is reported when it has ended."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as computing, \
                concurrent.futures.ThreadPoolExecutor(WAITING if own_network() else 1) as waiting, \
                concurrent.futures.ThreadPoolExecutor(1) as building:
            running, behind = {}, list(tasks)
            self.start(running, builds, building)
            try:
                while running or behind:
                    ready = [task for task in behind if task.needs not in running]
                    behind = [task for task in behind if task not in ready]
                    self.start(running, [task for task in ready if task.waits], waiting)
                    self.start(running, [task for task in ready if not task.waits], computing)
                    concurrent.futures.wait([f for futures in running.values() for f in futures if not f.done()],
                                            return_when=concurrent.futures.FIRST_COMPLETED)
                    for task in [task for task, futures in running.items() if all(f.done() for f in futures)]:
                        if not self.report_task(task, [future.result() for future in running.pop(task)]):
                            behind = self.drop(behind, task)
            except KeyboardInterrupt:
                for pool in (computing, waiting, building):
                    pool.shutdown(wait=False, cancel_futures=True)
                kill_tagged(RUN)
                raise

    def start(self, running, tasks, pool):
        running.update({task: [pool.submit(self.timed, command, task) for command in task.commands] for task in tasks})

    def drop(self, tasks, build):
        """Those that do not need what could not be built. The others have failed."""
        for task in [task for task in tasks if task.needs is build]:
            self.report(task.name, (0, 1, 0), 0, 0, [f"not run: {build.name} has failed\n"])
        return [task for task in tasks if task.needs is not build]

    def report_task(self, task, results):
        """Whether nothing of it has failed."""
        ends = [end for end, _ in results]
        status = next((end.status for end in ends if end.status != 0), 0)
        counts = task.count(status, "".join(end.output for end in ends))
        shown = [end.output for end in ends if end.status != 0 or not counts[1]]
        self.report(task.name, counts, sum(took for _, took in results), sum(end.cpu for end in ends), shown)
        return counts[1] == 0

    def timed(self, command, task):
        begin = time.monotonic()
        end = execute(command if task.waits else ["nice", "-n", "5", *command], task.timeout, task.environment, task.pytest)
        took = time.monotonic() - begin
        if self.journal:
            with open(self.journal, "a", encoding="utf-8") as journal:  # one short line: no other thread's is mixed in
                journal.write(f"{begin - self.begin:6.1f} {took:6.1f} {end.cpu:6.1f} {task.name}: {os.path.basename(command[-1])}\n")
        return end, took


# --- the steps ---

# Programs that wait for clocks and for each other's threads most of the while.
SLEEPING = ["test_answers", "test_answers_late", "test_lua_coroutine", "test_lua_engine", "test_lua_hostile", "test_lua_rpc",
            "test_lua_socket", "test_lua_socket_proxy", "test_resolve", "test_ring"]


def unit_tasks(folder, label, names=None, prefix=(), timeout=300, **environment):
    sources = sorted(glob.glob(os.path.join(ROOT, "tests", "test_*.c")))
    names = names or [os.path.basename(source)[:-2] for source in sources]
    return [Task(f"{label} {name}", [[*own_network(), *prefix, os.path.join(folder, "tests", name)]], count_tap, timeout,
                 name in SLEEPING, CMOCKA_MESSAGE_OUTPUT="TAP", **environment) for name in names]


E2E = os.path.join("tests", "e2e")
# Files that take long begin first, so that none of them is left over at the end.
LONG_E2E = ["test_relay.py", "test_dashboard.py", "test_living.py", "test_api_document.py", "test_bench_load.py",
            "test_limits.py", "test_names_and_lua.py", "test_api.py", "test_ruleset.py", "test_dns.py", "test_clients.py",
            "test_process.py", "test_stop.py", "test_failures.py", "test_steady.py", "test_http.py", "test_http_heads.py"]

# These take longer than a suite would otherwise: so many runs have a part of their tests each.
E2E_PARTS = {"test_relay.py": 3, "test_dashboard.py": 2, "test_living.py": 2} if SLOW == 1 else {}


def e2e_files():
    files = sorted(os.path.basename(path) for path in glob.glob(os.path.join(ROOT, E2E, "test_*.py")))
    return sorted(files, key=lambda name: LONG_E2E.index(name) if name in LONG_E2E else len(LONG_E2E))


def e2e_task(options, binary, label, choice=(), fixed=False, without=(), **environment):
    """One run for each file, which may go side by side where each has a network of its own. `fixed`: see fixed_layout()."""
    files = [name for name in options.only or e2e_files() if name not in without]
    return e2e_runs(options, binary, label, files, choice, fixed, **environment)


def e2e_runs(options, binary, label, files, choice=(), fixed=False, **environment):
    """Root has them forked, which takes half the time of a short file; others need programs that are started by others."""
    forked = os.geteuid() == 0 and bool(own_network())
    command = [] if forked else [*own_network(), *(fixed_layout() if fixed else ()), sys.executable, "-m", "pytest"]
    command += ["-q", "-p", "no:cacheprovider", *choice]
    parts = [(name, [f"--part={part + 1}/{E2E_PARTS[name]}"]) if name in E2E_PARTS else (name, [])
             for name in files for part in range(E2E_PARTS.get(name, 1))]
    return Task(label, [[*command, *part, os.path.join(E2E, name)] for name, part in parts], count_pytest, 900, True,
                {"fixed_layout": fixed and bool(fixed_layout())} if forked else None, SLUICE_BIN=os.path.join(options.build, binary), E2E_BUILD=os.path.join(options.build, "e2e"),
                **environment, CI="")  # with which pytest prints megabytes of a difference, and no room is left for its test's name


def plain_units(options):
    overlay = Task("agent.lua, simulated peers", [["lua5.4", "tests/lua/agent/run.lua"]], count_tap, 120)
    return [*unit_tasks(options.build, "unit"), overlay]


def run_unit(runner, options):
    runner.run(plain_units(options))


def run_e2e(runner, options):
    """Where that takes hours, each file is reported when it has ended."""
    if SLOW == 1:
        runner.run([e2e_task(options, "sluice", "e2e")])
    else:
        runner.run([e2e_runs(options, "sluice", f"e2e {name}", [name]) for name in options.only or e2e_files()])


def sim_task(options, first, count):
    """One thing passes or fails: the range. The program itself makes use of all CPUs."""
    return Task(f"sim, {count} seeds from {first}",
                [[os.path.join(options.build, "sim"), str(first), str(count), str(CPUS)]])


def fresh_sim_task(options):
    """5,000 seeds that nobody has tried before."""
    return sim_task(options, random.randrange(10**6, 10**12), 5000)


def run_sim(runner, options):
    """The same 5,000 seeds every time, which test_sessions has as well, and fresh ones."""
    if options.count:
        runner.run([sim_task(options, options.first, options.count)], 1)
    else:
        runner.run([sim_task(options, 1, 5000), fresh_sim_task(options)], 1)


def fuzz_tasks(options, scratch):
    """New inputs stay in `scratch`, out of the committed corpus."""
    targets = sorted(glob.glob(os.path.join(ROOT, "fuzz", "fuzz_*.c")))
    each = max(1, options.seconds * CPUS // max(1, len(targets)))
    crashes = os.path.join(options.build, "crashes", "")
    os.makedirs(crashes, exist_ok=True)
    for target in targets:
        name = os.path.basename(target)[:-2]
        fresh = os.path.join(scratch, name)
        os.mkdir(fresh)
        corpus = os.path.join(ROOT, "fuzz", "corpus", name)
        yield Task(name, [[
            os.path.join(options.build, name), f"-max_total_time={each}", "-timeout=10", "-rss_limit_mb=2048",
            "-verbosity=0", f"-artifact_prefix={crashes}{name}-", fresh,
            *([corpus] if os.path.isdir(corpus) else [])]], timeout=each + 60)


def run_fuzz(runner, options):
    with tempfile.TemporaryDirectory() as scratch:
        runner.run(list(fuzz_tasks(options, scratch)))


# Not the page in a browser, which asks the API what other tests ask as well; nor the scripts of bench/ and tests/.
NOT_SANITIZED = ["test_dashboard.py", "test_bench.py", "test_bench_load.py", "test_mutants.py", "test_runner.py"]
# Where threads meet: the API's and the coordinator's, settings, lists and users that are read again, passwords, accounts, limits of all
# workers, the log, scripts, names, the stop. Of these files `make test` runs one variant of each test under ThreadSanitizer;
# `make tsan` runs all of all files.
THREADS_MEET = ["test_access_log.py", "test_api.py", "test_api_limits.py", "test_auth.py", "test_config_file.py", "test_dns.py",
                "test_keys.py", "test_limits.py", "test_lists.py", "test_names_and_lua.py", "test_newcomers.py", "test_profile.py",
                "test_ruleset.py", "test_scripts.py", "test_stop.py", "test_usage.py", "test_usage_redis.py", "test_users.py"]


def asan_units(options):
    return unit_tasks(os.path.join(options.build, "asan"), "asan", timeout=300)  # thousands of seeds, and others compute, too


def gcstress_units(options):
    folder = os.path.join(options.build, "gcstress")
    return [*unit_tasks(folder, "gcstress", GCSTRESS_SLOW, timeout=300, SLUICE_TEST_SLOW=str(10 * SLOW)),
            *unit_tasks(folder, "gcstress", GCSTRESS_UNIT)]


def asan_e2e(options):
    return e2e_task(options, "asan/sluice", "asan e2e", without=NOT_SANITIZED)


def tsan_units(options):
    return unit_tasks(os.path.join(options.build, "tsan"), "tsan", TSAN_UNIT, fixed_layout())


# A stop that has not ended after 0.8 s is cut, and its threads are not waited for: on a busy machine any of them. The unit
# programs end as they like, and a thread that they leave is reported.
TSAN_CUT = SANITIZERS["TSAN_OPTIONS"] + ":report_thread_leaks=0"


def tsan_e2e(options):
    return e2e_task(options, "tsan/sluice", "tsan e2e", TSAN_E2E, True, NOT_SANITIZED, TSAN_OPTIONS=TSAN_CUT)


def tsan_e2e_where_threads_meet(options):
    return e2e_runs(options, "tsan/sluice", "tsan e2e", THREADS_MEET, [*TSAN_E2E, "--one-variant"], True, TSAN_OPTIONS=TSAN_CUT)


def run_asan(runner, options):
    runner.run([asan_e2e(options), *asan_units(options)])


def run_gcstress(runner, options):
    runner.run(gcstress_units(options))


def run_tsan(runner, options):
    runner.run([tsan_e2e(options), *tsan_units(options)])


@functools.cache
def usable(*words):
    """These words, if a program can be run behind them here; else none."""
    try:
        return words if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0 else ()
    except OSError:
        return ()


def fixed_layout():
    """Switches address randomisation off: with the many bits of newer kernels TSan finds no room."""
    return usable("setarch", "-R")


def own_network():
    """A loopback device of its own, so that two runs do not take each other's ports. Who is not root gets it in a user
    namespace of its own, in which the capabilities are dropped once the device is up."""
    if os.geteuid() == 0:
        return usable("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    return usable("unshare", "--user", "--map-current-user", "--keep-caps", "--net", "sh", "-c",
                  'ip link set lo up && exec setpriv --ambient-caps -all "$@"', "sh")


def build_task(options, *targets):
    return Task(f"build {targets[-1]}", [[*shlex.split(options.make), "--no-print-directory", "-s", *targets]],
                count_build, 1800)


def needing(build, *tasks):
    for task in tasks:
        task.needs = build
    return tasks


def run_all(runner, options):
    """Builds and tests everything at once: the end to end suites of all flavours wait for clocks, and what computes fills the
    time. Under ThreadSanitizer only where threads have something to say to each other: `make tsan` has all of them. The fixed
    seeds of the simulator are those of test_sessions."""
    with tempfile.TemporaryDirectory() as scratch:
        suites = {
            build_task(options, "node-modules", os.path.join(options.folder, "sluice")): [e2e_task(options, "sluice", "e2e")],
            build_task(options, "asan-programs"): [asan_e2e(options), *asan_units(options)],
            build_task(options, "tsan-programs"): [tsan_e2e_where_threads_meet(options), *tsan_units(options)],
            build_task(options, "test-programs"): [*plain_units(options), fresh_sim_task(options)],
            build_task(options, "gcstress-programs"): gcstress_units(options),
            build_task(options, "fuzz-programs"): list(fuzz_tasks(options, scratch)),
        }
        runner.run([task for build, tasks in suites.items() for task in needing(build, *tasks)], builds=suites)


# --- lint ---

LINT_WARNINGS = ["-Werror", "-Wformat=2", "-Wundef", "-Wold-style-definition", "-Wredundant-decls",
                 "-Wnested-externs"]
GCC_WARNINGS = ["-Wlogical-op", "-Wduplicated-cond", "-Wduplicated-branches"]


def sources(*patterns):
    return sorted(path for pattern in patterns for path in glob.glob(pattern, root_dir=ROOT))


def run_lint(runner, options):
    flags = shlex.split(os.environ["STD"])
    warnings = shlex.split(os.environ["WARN"]) + LINT_WARNINGS
    code = sources("core/*.c", "core/*/*.c", "protocols/*.c", "lua/*/*.c", "api/*.c", "tests/*.c", "tests/e2e/*.c", "fuzz/*.c", "bench/*.c")
    tests = sources("tests/*.c", "tests/e2e/*.c", "fuzz/*.c")
    product = sources("core/*.c", "core/*/*.c", "protocols/*.c", "lua/*/*.c", "api/*.c")
    runner.run([
        Task("includes", [[sys.executable, "tests/includes.py", "--quiet"]]),
        Task("clang-format", [["clang-format", "--dry-run", "-Werror", *code,
                               *sources("core/*/*.h", "protocols/*.h", "lua/*/*.h", "api/*.h", "tests/*.h", "fuzz/*.h", "bench/*.h")]]),
        Task("gcc -Werror", [["gcc", *flags, *warnings, *GCC_WARNINGS, "-O2", "-c", "-o", "/dev/null", source]
                             for source in code]),
        Task("clang -Werror", [["clang", *flags, *warnings, "-fsyntax-only", source] for source in code]),
        Task("cppcheck", [["cppcheck", "--quiet", "--std=c11", "--enable=warning,performance,portability",
                           "--error-exitcode=1", "--inline-suppr", f"-j{CPUS}", "--suppressions-list=.cppcheck-suppressions",
                           "-I.", '-DSLUICE_VERSION=""', *product]]),
        Task("clang-tidy", [["clang-tidy", "--quiet", *TIDY[source in tests], source, "--", *flags]
                            for source in code]),
    ])


# Tests run under AddressSanitizer and UBSan, which see what the analyzer guesses at, at half the time of all linting. Their
# signal handlers say which test it was, and then end the program. The size of a pointer is what an array of pointers is
# moved by.
TIDY = {False: [], True: ["--checks=-clang-analyzer-*,-bugprone-signal-handler,-bugprone-sizeof-expression"]}
STEPS = {"unit": run_unit, "sim": run_sim, "fuzz": run_fuzz, "e2e": run_e2e, "asan": run_asan, "gcstress": run_gcstress, "tsan": run_tsan,
         "all": run_all, "lint": run_lint}


def journal_in(folder):
    """A new one, or none where nothing may be written."""
    path = os.path.join(folder, "times.txt")
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path, "w", encoding="utf-8"):
            return path
    except OSError:
        return None


def main():
    parser = argparse.ArgumentParser(description="runs tests that are built, and counts")
    parser.add_argument("--build", default="build")
    parser.add_argument("--make", default="make", help="all: what builds")
    parser.add_argument("--first", type=int, default=1, help="sim: the first seed")
    parser.add_argument("--count", type=int, default=0, help="sim: how many seeds")
    parser.add_argument("--seconds", type=int, default=15, help="fuzz: for all targets together")
    parser.add_argument("--only", action="append", metavar="FILE", help="end to end: this file of tests/e2e")
    parser.add_argument("step", nargs="+", choices=STEPS)
    options = parser.parse_args()
    options.folder = options.build  # as make names it
    options.build = os.path.abspath(options.build)
    runner = Runner(journal_in(options.build))
    try:
        for step in options.step:
            STEPS[step](runner, options)
    finally:
        FORKS.stop()
    print("{} passed, {} failed, {} skipped".format(*runner.totals))
    return 1 if runner.totals[1] else 0


if __name__ == "__main__":
    sys.exit(main())
