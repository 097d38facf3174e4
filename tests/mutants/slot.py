"""A copy of the checkout and of what is built, in which one fault after the other is planted and tried."""
import collections
import glob
import os
import shutil
import subprocess

import reach
import sandbox

Verdict = collections.namedtuple("Verdict", "outcome by")  # noticed, survived, unreached, equal, uncompiled
NOT_COUNTED = ("equal", "uncompiled")


def copy_checkout(root, build, folder):
    """Times are kept, so that make finds everything up to date."""
    os.makedirs(folder)
    for name in set(os.listdir(root)) - {".git", "build", os.path.basename(build)}:
        path = os.path.join(root, name)
        if os.path.isdir(path):
            shutil.copytree(path, os.path.join(folder, name))
        elif os.path.isfile(path):
            shutil.copy2(path, folder)


class Slot:
    def __init__(self, number, root, build, reachers, effort):
        self.folder = os.path.join(build, "mutants", f"slot-{os.getpid()}-{number}")
        self.e2e_build, self.reachers, self.effort = os.path.join(build, "e2e"), reachers, effort
        copy_checkout(root, build, self.folder)
        os.mkdir(os.path.join(self.folder, "build"))
        shutil.copy2(os.path.join(build, "embedded.c"), os.path.join(self.folder, "build"))
        subprocess.run(["cp", "-a", os.path.join(build, "mutant"), os.path.join(self.folder, "build")], check=True)

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def make(self, target):
        words = ["make", "-s", "CFLAGS=", "LDFLAGS=", "LTO=", os.path.join("build", "mutant", target)]
        ours = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        done = subprocess.run(words, cwd=self.folder, env=ours, stdin=subprocess.DEVNULL, capture_output=True,
                              check=False, start_new_session=True)  # who interrupts us shall not interrupt it
        return done.returncode == 0

    def attempt(self, change):
        """Plants the fault, looks who notices it, and puts everything back."""
        source, target = self.path(change.path), change.path[:-2] + ".o"
        built = self.path("build", "mutant", target)
        linked = []
        os.rename(built, built + ".kept")
        shutil.copy2(source, source + ".kept")
        try:
            with open(source, encoding="utf-8") as file:
                content = file.read()
            with open(source, "w", encoding="utf-8") as file:
                file.write(change.apply(content))
            if not self.make(target):
                return Verdict("uncompiled", "")
            if reach.digest(built) == reach.digest(built + ".kept"):
                return Verdict("equal", "")
            return self.judge(change, linked)
        finally:
            os.rename(source + ".kept", source)
            os.rename(built + ".kept", built)
            archives = glob.glob(self.path("build", "mutant", "*.a"))
            for program in linked + archives:  # older than what they were made of, as make sees it
                if os.path.exists(program):
                    os.remove(program)

    def judge(self, change, linked):
        reaching = sorted((one for one in self.reachers if one.reaches(change)), key=lambda one: one.cost(change))
        if not reaching:
            return Verdict("unreached", "")
        for one in (one for one in reaching if not one.is_e2e):
            linked.append(self.path("build", "mutant", one.name))
            if not self.make(one.name):
                return Verdict("uncompiled", "")
            if self.fails(one):
                return Verdict("noticed", one.name)
        chosen = self.choose([one for one in reaching if one.is_e2e])
        if chosen:
            linked.append(self.path("build", "mutant", "sluice"))
            if not self.make("sluice"):
                return Verdict("uncompiled", "")
        return self.judge_e2e(chosen)

    def fails(self, one):
        """Twice: a machine that is busy may make a test fail once. Who hangs does not get a second chance."""
        words = reach.SIM_WORDS if one.name == "sim" else []
        for _ in range(2):
            status, _ = sandbox.execute([self.path("build", "mutant", one.name), *words], self.folder,
                                        30 + 10 * one.seconds)
            if status == 0:
                return False
            if status is None:
                return True
        return True

    def choose(self, tests):
        """As many as fit into `effort` seconds: of each file one in turn, for tests of one file are alike, and of those the
        likeliest first."""
        chosen, seconds, taken, turns = [], 0.0, collections.Counter(), []
        for one in tests:
            file = one.name.split("::")[0]
            turns.append(taken[file])
            taken[file] += 1
        for _, one in sorted(zip(turns, tests), key=lambda pair: pair[0]):
            if seconds + one.seconds <= self.effort:
                chosen.append(one)
                seconds += one.seconds
        return chosen

    def judge_e2e(self, tests):
        while tests:
            status, failed = self.pytest(tests)
            if status is None:
                return Verdict("noticed", "a test hangs")
            if status == 0:
                break
            if failed is None:
                return Verdict("noticed", "pytest does not come to its end")
            if self.pytest([tests[failed]])[0] != 0:
                return Verdict("noticed", tests[failed].name)
            tests = tests[failed + 1:]
        return Verdict("survived", "")

    def pytest(self, tests):
        """(status as of execute(), the index of the first test that did not pass)."""
        results = self.path("tests.json")
        if os.path.exists(results):
            os.remove(results)
        status, _ = sandbox.execute([*reach.PYTEST, "-x", *(one.name for one in tests)], self.folder,
                                    60 + 4 * sum(one.seconds for one in tests),
                                    SLUICE_BIN=self.path("build", "mutant", "sluice"), E2E_BUILD=self.e2e_build, PYTHONPATH=reach.HERE,
                                    MUTANTS_TESTS=results)
        found = reach.read_results(results)
        failed = [i for i, one in enumerate(tests) if found.get(one.name, {}).get("outcome", "passed") != "passed"]
        return status, failed[0] if failed else None
