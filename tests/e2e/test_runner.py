"""tests/run.py itself: what it counts, and that nothing makes it hang or outlives it."""
import argparse
import contextlib
import glob
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

import process  # noqa: E402
import run  # noqa: E402


def sleeping(mark):
    """Whether a process that was started with this word is still there."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as words:
            if mark in words.read().split("\0"):
                return True
    return False


def test_a_grandchild_does_not_hold_it():
    mark = f"9{os.getpid()}1"
    begin = time.monotonic()
    end = run.execute(["sh", "-c", f"echo seen; setsid sleep {mark} & exec sleep {mark}"], 0.5, dict(os.environ))
    assert end.status == 124 and end.output.startswith("seen\n\nkilled after 0.5 s: sh -c ")
    assert time.monotonic() - begin < 20 * process.SLOW
    assert process.wait_until(lambda: not sleeping(mark))


def test_what_is_left_over_ends_with_the_command():
    mark = f"9{os.getpid()}2"
    end = run.execute(["sh", "-c", f"echo seen; setsid sleep {mark} & exit 3"], 20, dict(os.environ))
    assert (end.status, end.output) == (3, "seen\n")
    assert process.wait_until(lambda: not sleeping(mark))


def test_a_missing_program():
    end = run.execute(["/nowhere/to/be/found"], 5, dict(os.environ))
    assert end.status == 127 and "No such file" in end.output


def test_its_cpu_time_is_that_of_its_children_too():
    compute = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass"]
    end = run.execute(["sh", "-c", '"$@"; exit $?', "sh", *compute], 60, dict(os.environ))
    assert end.status == 0 and end.cpu >= 0.2
    end = run.execute(["sh", "-c", "exec kill -9 $$"], 60, dict(os.environ))
    assert end.status == -9


def test_the_journal_has_a_line_for_each_command(tmp_path):
    journal = tmp_path / "times.txt"
    run.Runner(journal).run([run.Task("first", [["true"], ["echo", "x"]]), run.Task("second", [["false"]], waits=True)])
    names = sorted(line.split(maxsplit=3)[3] for line in journal.read_text().splitlines())
    assert names == ["first: true", "first: x", "second: false"]


def test_counts():
    tap = "1..4\nok 1 - a\nnot ok 2 - b\nok 3 - c\nnot ok 4 # SKIP d\n"
    assert run.count_tap(1, tap) == (2, 1, 1)
    assert run.count_tap(0, "1..2\nok 1 - a\n") == (1, 1, 0)  # ended before its plan was fulfilled
    assert run.count_tap(-11, "") == (0, 1, 0)
    assert run.count_pytest(1, "2 failed, 3 passed, 1 skipped in 4.56s") == (3, 2, 1)
    assert run.count_pytest(0, "3 passed in 1.00s\n4 passed, 1 xfailed in 2.00s") == (7, 0, 1)
    assert run.count_pytest(2, "nothing that it knows") == (0, 1, 0)


def test_the_runner_runs_side_by_side(capsys):
    one = run.Runner()
    commands = [["sh", "-c", "echo out; exit 1"], ["true"]]
    one.run([run.Task("first", commands), run.Task("second", [["true"]], waits=True)])
    assert one.totals == [1, 1, 0]
    shown = capsys.readouterr().out
    assert "FAIL first" in shown and "     | out" in shown and "ok   second" in shown


def test_what_needs_a_build_begins_behind_it(tmp_path, capsys):
    made = tmp_path / "made"
    build = run.Task("build", [["sh", "-c", f"sleep 0.2; touch {made}"]], run.count_build)
    tasks = run.needing(build, *(run.Task("needs it", [["test", "-e", made]], waits=waits) for waits in (False, True)))
    one = run.Runner()
    one.run([*tasks, run.Task("needs nothing", [["true"]])], builds=[build])
    assert one.totals == [3, 0, 0], capsys.readouterr().out


def test_what_needs_a_build_that_has_failed_has_failed(tmp_path, capsys):
    mark = tmp_path / "mark"
    broken = run.Task("broken", [["sh", "-c", "echo why; exit 2"]], run.count_build)
    whole = run.Task("whole", [["true"]], run.count_build)
    one = run.Runner()
    one.run([*run.needing(broken, run.Task("lost", [["touch", mark]])), *run.needing(whole, run.Task("kept", [["true"]]))],
            builds=[broken, whole])
    assert one.totals == [1, 2, 0] and not mark.exists()
    shown = capsys.readouterr().out
    assert "FAIL broken" in shown and "     | why" in shown and "FAIL lost" in shown and "ok   kept" in shown


def collected(*options):
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", *options, __file__]
    lines = run.execute(words, 60, dict(os.environ)).output.splitlines()
    return [line for line in lines if "::" in line]


def test_parts_have_every_test_once():
    parts = [collected(f"--part={part}/3") for part in (1, 2, 3)]
    assert all(parts) and sorted(sum(parts, [])) == sorted(collected())


def test_a_long_file_is_run_in_parts():
    options = argparse.Namespace(build="build", only=["test_relay.py", "test_udp.py"])
    commands = run.e2e_task(options, "sluice", "e2e").commands
    ends = [[word for word in words if word.startswith("--part") or word.endswith(".py")] for words in commands]
    path = os.path.join("tests", "e2e", "test_")
    parts = run.E2E_PARTS.get("test_relay.py", 1)
    expected = [[f"--part={part}/{parts}", f"{path}relay.py"] for part in range(1, parts + 1)] if parts > 1 else [[f"{path}relay.py"]]
    assert ends == [*expected, [f"{path}udp.py"]]
