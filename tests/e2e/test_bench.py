"""The programs of bench/ that read and write texts: sections of the document, folded stacks, flame graphs."""
import os
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from conftest import ROOT

BENCH = os.path.join(ROOT, "bench")
sys.path.insert(0, BENCH)
import document  # noqa: E402
import flamegraph  # noqa: E402

PERF = """\
sluice  5964/5965
\tffffffff81baf6b0 _copy_to_iter+0x20 ([kernel.kallsyms])
\tffffffff81000130 [unknown] ([kernel.kallsyms])
\tffffffff81000131 [unknown] ([kernel.kallsyms])
\t          10aae7 __libc_recvmsg (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t    55a34238dbf0 receive_step.lto_priv.0 (/build/sluice)
\t    55a34238dbf1 main (/build/sluice)
\t    7f4238dbf1ff __libc_start_main@@GLIBC_2.34 (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t    55a34238dbf2 _start (/build/sluice)

sluice  5964/5965
\t    55a34238dbf1 main (/build/sluice)

other name 7
\t               0 [unknown] ([unknown])
"""

GDB = """\
[New LWP 12]

Thread 2 (Thread 0x7f (LWP 12) "sluice"):
#0  0x00007f3 in recvmsg () from /lib/x86_64-linux-gnu/libc.so.6
#1  0x00005555 in receive_step.lto_priv.0 (L=0x5, status=0) at lua/socket/socket_message.c:99
#2  main (count=1) at core/main.c:3

Thread 1 (Thread 0x7f (LWP 11) "sluice"):
#0  main (count=1) at core/main.c:3
"""


def test_sections_of_the_document():
    old = document.put_section("# Title\n\ntext\n", "one", "first")
    assert old == "# Title\n\ntext\n\n<!-- kept: one -->\nfirst\n<!-- end: one -->\n"
    both = document.put_section(old, "two", "second\nlines\n")
    assert document.put_section(both, "one", "again") == both.replace("first", "again")
    assert document.keep_sections(both, "# New\n") == "# New\n\n" + both[both.index("<!-- kept: one"):]
    mine = document.put_section("# New\n", "one", "mine")
    kept = document.keep_sections(both, mine)
    assert "mine" in kept and "first" not in kept and "second\nlines" in kept
    assert document.keep_sections("no sections", "# New\n") == "# New\n"
    assert document.keep_sections(kept, kept) == kept


def test_perf_is_folded():
    assert flamegraph.fold_perf(PERF.splitlines()) == {
        ("sluice", "main", "receive_step", "__libc_recvmsg [l]", "[kernel]", "_copy_to_iter [k]"): 1,
        ("sluice", "main"): 1, ("other name", "[unknown]"): 1}


def test_backtraces_are_folded():
    assert flamegraph.fold_gdb(GDB.splitlines()) == {("sluice", "main", "receive_step", "recvmsg [l]"): 1, ("sluice", "main"): 1}


def test_functions_get_their_names(tmp_path):
    source = tmp_path / "x.lua"
    source.write_text("local function copy(a)\nend\nlocal M = {}\nM.run = function()\nend\nfunction M:go() end\n")
    stacks = {("function at 1 /a/x.lua:2", "function at 4 x.lua:5"): 2, ("function at 6 x.lua:6", "recv [C]"): 1,
              ("function at 1 y.lua:2", "function at 3 x.lua:3"): 1}
    assert flamegraph.name_functions(stacks, source) == {
        ("copy x.lua:2", "M.run x.lua:5"): 2, ("M:go x.lua:6", "recv [C]"): 1, ("function at 1 y.lua:2", "function at 3 x.lua:3"): 1}


def run(*words, text=""):
    return subprocess.run([sys.executable, os.path.join(BENCH, "flamegraph.py"), *map(str, words)], input=text, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


def test_a_picture(tmp_path):
    folded = tmp_path / "x.folded"
    folded.write_text(run("fold", text=PERF).stdout + "main;<&\"> 1000000\nmain;tiny 1\n")
    done = run("draw", "--title", "A & B", f"Panel <1>={folded}", text="")
    assert done.returncode == 0, done.stderr
    root = xml.etree.ElementTree.fromstring(done.stdout)
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "all: 1,000,004 samples, 100.0%"
    assert '<&">: 1,000,000 samples, 100.0%' in titles and not any(title.startswith("tiny") for title in titles)
    assert "http" not in done.stdout.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    assert "A & B" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_frames_lie_on_each_other():
    svg = xml.etree.ElementTree.fromstring(flamegraph.draw("t", [("p", {("a", "b"): 3, ("a", "c"): 1}, "ms")]))
    boxes = {}
    for group in svg.iter("{http://www.w3.org/2000/svg}g"):
        title, rect = group.find("{http://www.w3.org/2000/svg}title"), group.find("{http://www.w3.org/2000/svg}rect")
        if title is not None:
            boxes[title.text.split(":")[0]] = [float(rect.get(name)) for name in ("x", "y", "width")]
    assert boxes["a"][0] == boxes["b"][0] and boxes["b"][1] < boxes["a"][1] < boxes["all"][1]
    assert boxes["c"][0] == pytest.approx(boxes["b"][0] + 3 * (boxes["c"][2] + 0.5), abs=0.5)


def test_no_samples_and_no_stacks(tmp_path):
    assert "No samples." in flamegraph.draw("t", [("p", {}, "ms")])
    bad = tmp_path / "bad"
    bad.write_text("no count\n")
    assert "this is no folded stack" in run("draw", bad).stderr
