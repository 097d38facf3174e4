"""A plugin of pytest: which test came out how and took how long goes to the file MUTANTS_TESTS names; and each one's
coverage, where MUTANTS_PROFILES names a folder, to files of its own."""
import json
import os

import pytest

FOLDER = os.environ.get("MUTANTS_PROFILES")
results = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    results[item.nodeid] = {"outcome": "passed", "seconds": 0.0, "number": len(results)}
    if FOLDER:
        os.environ["LLVM_PROFILE_FILE"] = os.path.join(FOLDER, f"{results[item.nodeid]['number']}-%m%c.profraw")


def pytest_runtest_logreport(report):
    result = results[report.nodeid]
    result["seconds"] += report.duration
    if report.outcome != "passed":
        result["outcome"] = report.outcome


def pytest_sessionfinish():
    if os.environ.get("MUTANTS_TESTS"):
        with open(os.environ["MUTANTS_TESTS"], "w", encoding="utf-8") as file:
            json.dump(results, file)
