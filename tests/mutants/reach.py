"""Which test reaches which places, from one run of everything with clang's coverage; and which of them pass at all here, and
how long they take, from one run without.

What was found out about a program is kept in build/mutants/reach/ under the digest of its binary (of a file of end to end
tests: of that file as well), so that an edit makes only those run again that it touches."""
import bisect
import concurrent.futures
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile

import sandbox

HERE = os.path.dirname(os.path.abspath(__file__))
SIM_WORDS = ["1", "300", "1"]  # the first seed, how many, on one thread
FORMAT = "spans"  # of what is kept
SOURCE = re.compile(r".*/((?:protocols|core/\w+|lua/\w+|api|core)/\w+\.c)$")
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "watch_tests"]
E2E_SECONDS = 900
ATTEMPTS = 3  # of a unit program without a fault, on a machine that may be busy


class Reacher:
    """Something that may notice: a unit program, the simulator, or one end to end test. `spans`: of each file, where what it
    executes begins and ends, in turn, as [line, column]."""

    def __init__(self, name, seconds, spans):
        self.name, self.seconds, self.spans = name, seconds, spans
        self.sizes = {path: sum(end[0] - begin[0] + 1 for begin, end in zip(places[::2], places[1::2]))
                      for path, places in spans.items()}
        self.total = sum(self.sizes.values()) or 1
        self.is_e2e = "::" in name

    def reaches(self, change):
        """A line alone would not do: of `if (x) y();` everybody executes a part."""
        places = self.spans.get(change.path, [])
        return any(bisect.bisect_right(places, list(place)) % 2 for place in change.places)

    def cost(self, change):
        """Cheap ones first, and of those the ones that are about this file more than about others."""
        whole = (self.seconds + 0.4) / (0.02 + self.sizes[change.path] / self.total)
        return whole / 5 if self.is_named_after(change.path) else whole

    def is_named_after(self, path):
        """test_relay.py and core/session/relay_splice.c, test_sessions and core/session/session.c"""
        mine = self.name.split("::")[0].split("test_")[-1].removesuffix(".py")
        file = os.path.basename(path).removesuffix(".c")
        return file.startswith(mine) or mine.startswith(file)


def digest(*paths):
    state = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            state.update(file.read())
    return state.hexdigest()


def spans_of(segments):
    """Each segment says how often is executed what begins there; one is kept where that changes between never and ever."""
    places, inside = [], False
    for line, column, count, has_count, *_ in segments:
        if (has_count and count > 0) != inside:
            places.append([line, column])
            inside = not inside
    return places + [[1 << 30, 1]] if inside else places


def covered_spans(binary, profiles):
    """{path: places} of what was executed, from raw profiles."""
    if not profiles:
        return {}
    with tempfile.NamedTemporaryFile(suffix=".profdata") as merged:
        done = subprocess.run(["llvm-profdata", "merge", "--failure-mode=all", "-o", merged.name, *profiles],
                              capture_output=True, check=False, start_new_session=True)
        if done.returncode != 0:
            return {}
        report = subprocess.run(["llvm-cov", "export", "-format=text", "-skip-expansions", "-skip-functions",
                                 f"-instr-profile={merged.name}", binary], capture_output=True, text=True,
                                check=True, start_new_session=True).stdout
    spans = {}
    for file in json.loads(report)["data"][0]["files"]:
        found = SOURCE.search(file["filename"])
        places = spans_of(file["segments"]) if found else []
        if places:
            spans[found.group(1)] = places
    return spans


def read_results(path):
    """What the plugin has written, tests named as seen from the root; {} if pytest did not come to its end."""
    try:
        with open(path, encoding="utf-8") as file:
            return {f"tests/e2e/{name}": result for name, result in json.load(file).items()}
    except OSError:
        return {}


def timed_status(command, folder, timeout, **environment):
    before = os.times().elapsed
    status, output = sandbox.execute(command, folder, timeout, **environment)
    return status, output, os.times().elapsed - before


class Map:
    def __init__(self, root, build, say, check):
        """`check` is called before anything is run, and raises if the whole of it shall end."""
        self.root, self.build, self.say, self.check = root, build, say, check
        self.folder = os.path.join(build, "mutants", "reach")
        os.makedirs(self.folder, exist_ok=True)
        self.mutant, self.coverage = (os.path.join(build, flavour) for flavour in ("mutant", "coverage"))

    def kept(self, name, key, make):
        path = os.path.join(self.folder, re.sub(r"\W", "_", name) + ".json")
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            if found["key"] == [FORMAT, key]:
                return found["value"]
        except (OSError, ValueError, KeyError):
            pass
        self.check()
        self.say(f"reach: {name}")
        value = make()
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"key": [FORMAT, key], "value": value}, file)
        os.rename(path + ".new", path)
        return value

    def program(self, name, words):
        """One unit program or the simulator: {ok, seconds, spans}."""
        binary = os.path.join(self.coverage, name)

        def make():
            with tempfile.TemporaryDirectory() as profiles:
                sandbox.execute([binary, *words], self.root, 600, LLVM_PROFILE_FILE=os.path.join(profiles, "%m%c.profraw"))
                spans = covered_spans(binary, glob.glob(os.path.join(profiles, "*.profraw")))
            for _ in range(ATTEMPTS):
                status, _, seconds = timed_status([os.path.join(self.mutant, name), *words], self.root, 600)
                if status == 0:
                    break
            return {"ok": status == 0, "seconds": seconds, "spans": spans}
        return self.kept(name, digest(binary), make)

    def pytest(self, flavour, path, profiles, results):
        environment = {"SLUICE_BIN": os.path.join(self.build, flavour, "sluice"),
                       "E2E_BUILD": os.path.join(self.build, "e2e"), "PYTHONPATH": HERE,
                       "MUTANTS_TESTS": results}
        if profiles:
            environment.update(MUTANTS_PROFILES=profiles, LLVM_PROFILE_FILE=os.path.join(profiles, "rest-%m%c.profraw"))
        sandbox.execute([*PYTEST, path], self.root, E2E_SECONDS, **environment)
        return read_results(results)

    def e2e(self, path):
        """One file of end to end tests: {test: {ok, seconds, spans}}."""
        binary = os.path.join(self.coverage, "sluice")

        def make():
            with tempfile.TemporaryDirectory() as scratch:
                profiles = os.path.join(scratch, "profiles")
                os.mkdir(profiles)
                for folder in (scratch, profiles):  # a sluice that gave up its privileges writes, too
                    os.chmod(folder, 0o777)
                covered = self.pytest("coverage", path, profiles, os.path.join(scratch, "covered.json"))
                tests = self.pytest("mutant", path, None, os.path.join(scratch, "tests.json"))
                if not tests:
                    raise SystemExit(f"mutants: {path} does not come to its end")
                return {name: {"ok": test["outcome"] == "passed", "seconds": test["seconds"],
                               "spans": covered_spans(binary, glob.glob(
                                   os.path.join(profiles, f"{covered[name]['number']}-*.profraw")))}
                        for name, test in tests.items() if name in covered}
        return self.kept(path, digest(binary, os.path.join(self.root, path)), make)

    def reachers(self, jobs, with_e2e):
        """Of all that passes here without a fault."""
        units = [os.path.join("tests", os.path.basename(path)[:-2])
                 for path in sorted(glob.glob(os.path.join(self.root, "tests", "test_*.c")))]
        files = sandbox.run.e2e_files() if with_e2e else []
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool, concurrent.futures.ThreadPoolExecutor(2 * jobs) as waiting:
            later = [waiting.submit(self.e2e, os.path.join("tests", "e2e", file)) for file in files]
            now = [pool.submit(self.program, name, SIM_WORDS if name == "sim" else []) for name in [*units, "sim"]]
            found = {name: future.result() for name, future in zip([*units, "sim"], now)}
            for future in later:
                found.update(future.result())
        failing = [name for name, result in found.items() if not result["ok"]]
        for name in failing:
            self.say(f"reach: {name} does not pass without a fault, left out")
        return [Reacher(name, result["seconds"], result["spans"]) for name, result in found.items() if result["ok"]]
