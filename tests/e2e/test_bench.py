"""The programs of bench/ that read and write texts: sections of the document, folded stacks, flame graphs, and what comes of
samples: medians, verdicts, goals, the document. test_bench_load.py has what measures."""
import datetime
import os
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from conftest import ROOT

BENCH = os.path.join(ROOT, "bench")
sys.path.insert(0, BENCH)
import document  # noqa: E402
import figures  # noqa: E402
import flamegraph  # noqa: E402
import goals  # noqa: E402
import measure  # noqa: E402
import networks  # noqa: E402
import peers  # noqa: E402
import processes  # noqa: E402
import record as records  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import run as bench  # noqa: E402

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


def taken(*values, **more):
    return [measure.sample(value, **more) for value in values]


NEAR_10 = taken(10, 10.1, 10.2, 9.9, 9.8, 10, 10)


def test_range_of_a_median():
    """Order statistics, as tables have them: all of seven, the second to the eighth of nine, the fourth to the twelfth of 15."""
    wanted = {1: (1, 1), 5: (1, 5), 7: (1, 7), 8: (1, 8), 9: (2, 8), 12: (3, 10), 15: (4, 12), 20: (6, 15)}
    for count, ends in wanted.items():
        assert figures.interval(list(range(count, 0, -1))) == ends, count


def test_verdicts():
    half, twice = taken(*[5] * 7), taken(*[20] * 7)
    assert figures.verdict(half, NEAR_10, 0.6, True) == figures.MET
    assert figures.verdict(half, NEAR_10, 0.4, True) == figures.NOT_MET
    assert figures.verdict(half, NEAR_10, 0.5, True) == figures.UNRESOLVED  # 5 lies between half of 9.8 and half of 10.2
    assert figures.verdict(twice, NEAR_10, 1.9, False) == figures.MET
    assert figures.verdict(twice, NEAR_10, 2.1, False) == figures.NOT_MET
    assert figures.verdict(twice, NEAR_10, 2.0, False) == figures.UNRESOLVED
    assert figures.verdict_absolute(half, 6, True) == figures.MET
    assert figures.verdict_absolute(half, 4, True) == figures.NOT_MET
    # One sample far off makes seven unresolved, and not fifteen.
    assert figures.verdict(taken(*[5] * 6, 50), NEAR_10, 0.6, True) == figures.UNRESOLVED
    assert figures.verdict(taken(*[5] * 14, 50), NEAR_10, 0.6, True) == figures.MET
    # Five say nothing, however clear they are.
    assert figures.verdict(taken(*[1] * 5), NEAR_10, 0.6, True) == figures.UNRESOLVED
    assert figures.verdict(half, NEAR_10[:5], 0.6, True) == figures.UNRESOLVED


def test_ratios_need_both():
    assert figures.ratio(taken(1, 2, 3), taken(4)) == 0.5
    assert figures.ratio([], taken(4)) is None and figures.ratio(taken(4), []) is None and figures.ratio(taken(4), taken(0)) is None
    assert figures.ratio(taken(1, rate=30), taken(1, rate=10), "rate") == 3
    assert figures.ratio(taken(1), taken(1), "rate") is None


def find_row(name):
    return next(row for row in rows.make_rows() if row.name == name)


def test_goals_are_judged():
    row, goal = find_row("rtt-1"), goals.both("rtt-1", "nginx", 0.6, 0.4)
    samples = {"sluice": taken(*[5] * 7), "nginx": NEAR_10}
    near, far = (goals.judge(goal, row, network, samples) for network in ("loopback", "veth"))
    assert (near.verdict, far.verdict) == (figures.MET, figures.NOT_MET) and near.measured == pytest.approx(0.5)
    assert goals.judge(goal, row, "veth", {"sluice": NEAR_10}).verdict == "not measured"
    assert goals.judge(goal, row, "veth", {"nginx": NEAR_10}).verdict == "not measured"


def test_the_best_peer_counts():
    """The one with the highest rate, or the lowest p99: not the one that is named first, or uses the least CPU time."""
    row = find_row("rtt-64k-1")
    samples = {"sluice": taken(*[1] * 7, rate=100, p99=10), "nginx": taken(*[1] * 7, rate=50, p99=5),
               "haproxy": taken(*[9] * 7, rate=200, p99=40)}
    rate = goals.judge(goals.both(row.name, ("nginx", "haproxy", "absent"), 1.0, figure="rate"), row, "veth", samples)
    p99 = goals.judge(goals.both(row.name, ("nginx", "haproxy", "absent"), 1.0, figure="p99"), row, "veth", samples)
    assert (rate.against, rate.measured, rate.verdict) == ("haproxy", 0.5, figures.NOT_MET)
    assert (p99.against, p99.measured, p99.verdict) == ("nginx", 2.0, figures.NOT_MET)


def names_of_peers():
    """(name, mode) of all that may take part, whether its program is here or not."""
    lines = [line.split("\t") for line in open(os.path.join(BENCH, "peers.tsv"), encoding="utf-8") if not line.startswith("#")]
    assert all(len(line) == 6 for line in lines)
    known = {(line[0], line[1]) for line in lines}
    return known | set(peers.sluice_proxies("sluice", [])) | set(peers.floor_proxies("floor")), lines


def test_rows_name_what_there_is():
    known, lines = names_of_peers()
    made = rows.make_rows()
    assert len({row.name for row in made}) == len(made)
    for row in made:
        names = [row.subject, *row.peers, *(name for name, _ in row.variants.values()), *filter(None, [row.floor])]
        assert [name for name in names if (name, row.mode) not in known] == [], row.name
        assert row.metric in rows.METRICS
    templates = {line[2] for line in lines} - {"-"}
    assert [name for name in templates if not os.path.exists(os.path.join(BENCH, "peers", name))] == []


def test_goals_name_what_there_is():
    by_name = {row.name: row for row in rows.make_rows()}
    for goal in goals.GOALS:
        row = by_name[goal.row]
        assert set(goal.against) <= {*row.peers, *row.variants}, goal
        assert goal.figure in ("value", "rate", "p99") and set(goal.limits) == {"loopback", "veth"}
    # What is to be reached in every row.
    for row in by_name.values():
        against = [(goal.against, goal.figure, goal.percent) for goal in goals.goals_of(row)]
        assert not row.floor or (("floor",), "value", 0) in against, row.name
        assert not row.paced or (tuple(row.peers), "p99", 50) in against, row.name


def test_rows_are_chosen():
    assert [row.name for row in rows.choose_rows("rtt-1, bulk-?")] == ["rtt-1", "bulk-1", "bulk-4"]
    assert [row.name for row in rows.choose_rows("udp-64 http-1k")] == ["http-1k", "udp-64"]
    assert len(rows.choose_rows("")) == len(rows.make_rows())
    with pytest.raises(processes.Failed, match="rtt-9: no such row"):
        rows.choose_rows("rtt-1,rtt-9")


def test_loads_are_read():
    assert bench.parse_arguments([]).loads == [25, 50, 75] and bench.parse_arguments(["--loads", "10, 50"]).loads == [10, 50]
    assert bench.parse_arguments(["--loads", "none"]).loads == bench.parse_arguments(["--quick"]).loads == []
    for text in "100", "0", "half":
        with pytest.raises(SystemExit):
            bench.parse_arguments(["--loads", text])


def test_contestants_of_a_row():
    known = {key: peers.Proxy(*key, "-", [], "", "") for key in names_of_peers()[0]}
    row = find_row("name-cached")
    found = rows.contestants(row, {key: value for key, value in known.items() if key[0] != "hev"})
    assert [one.label for one in found] == ["sluice", "neosocksd", "microsocks", "dante", "by address", "floor"]
    assert "--by-name" in row.load and "--by-name" not in found[4].load and found[4].proxy.name == "sluice"


def test_slowest_is_of_proxies():
    samples = {"a": taken(1, rate=30), "b": taken(1, rate=20), "floor": taken(1, rate=10), "none": taken(1)}
    assert bench.slowest_rate(samples) == 20 and bench.slowest_rate({"floor": samples["floor"]}) is None


def test_masks_of_cores():
    assert [networks.core_mask(core) for core in (0, 1, 31, 32, 70)] == ["1", "2", "80000000", "1,00000000", "40,00000000,00000000"]


def test_targets_are_all_different():
    seen = {network.name: {network.target(number) for number in range(7000)} for network in networks.NETWORKS.values()}
    for addresses in seen.values():
        assert len(addresses) == 7000
        octets = [list(map(int, address.split("."))) for address in addresses]
        assert all(max(one) <= 250 and min(one) >= 1 and one[3] + 7 <= 254 for one in octets)


def test_times_of_wrk():
    assert [measure.wrk_us(text) for text in ("41.00us", "1.25ms", "2.00s")] == [41, 1250, 2e6]
    text = "  50%  100.00us\n  99%    4.00ms\n  200 requests in 1.00s\n  Socket errors: connect 1, read 2, write 3, timeout 4\nRequests/sec: 200.5\n"
    one = measure.wrk_sample(text, 0.002)
    assert (one["value"], one["rate"], one["p50"], one["p99"], one["errors"]) == (pytest.approx(10), 200.5, 100, 4000, 10)
    with pytest.raises(processes.Failed):
        measure.wrk_sample("unable to connect", 1)


def make_record(results, run, missing=()):
    proxies = {"forward sluice": {"name": "sluice", "mode": "forward", "version": "1.0", "note": "as it is", "verified": "yes"}}
    return records.make_record(run, results, proxies, dict(missing))


def test_the_document():
    row = find_row("rtt-1")
    fast = {"sluice": taken(*[4] * 7, rate=1000, p50=1, p99=20, p999=30), "nginx": taken(*[8] * 7, rate=900, p50=2, p99=30, p999=40),
            "floor": taken(*[3.9] * 7, rate=1100, p50=1, p99=10, p999=20, core=0.5)}
    half = {"sluice": taken(*[5] * 7, rate=450, p50=1, p99=9, p999=10), "nginx": taken(*[6] * 7, rate=450, p50=1, p99=8, p999=10)}
    results = {("loopback", "cubic", 0): {"rtt-1": (fast, {"haproxy": "does not listen"})},
               ("loopback", "cubic", 50): {"rtt-1": (half, {})}, ("veth", "cubic", 0): {"rtt-1": ({"nginx": fast["nginx"]}, {})},
               ("loopback", "bbr", 0): {"rtt-1": (fast, {})}}
    text = report.format_document(make_record(results, {"date": "2026-01-02"}, {"gost": "gost"}), rows.make_rows(), False)
    lines = text.splitlines()
    title = row.title
    assert f"| {title} | nginx | CPU µs per operation | 0.50 | ≤ 0.9 | met | - | ≤ 0.9 | not measured |" in lines
    assert f"| {title} | the best peer | p99, 50 % load | 1.12 (nginx) | ≤ 1 | **not met** | - | ≤ 1 | not measured |" in lines
    assert f"| {title} | floor | CPU µs per operation | 1.03 | ≤ 1.15 | met | - | ≤ 1.15 | not measured |" in lines
    assert "| nginx | 8.0 | 8.0 .. 8.0 | 0.50 | better | 2.05 | 900/s | 2.00 | 30.0 | 40.0 |  |" in lines
    assert "| 50 % | nginx | 450 | 6.0 | 0.83 | better | 1.00 | 8.00 | 10.0 |  |  |" in lines
    assert "haproxy: it failed: does not listen" in lines and "### loopback, bbr" in lines
    assert "| gost |  |  | not here: no program `gost` |  |" in lines
    assert "partial" not in text and "Run 1." not in text and "| date | 2026-01-02 |" in lines
    assert "partial" in report.format_document(make_record(results, {}), rows.make_rows(), True)
    assert list(report.facts_of_run(measure.Bench(bench.parse_arguments([]), "/tmp"),
                                    datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)).items())[0] == (
                                        "date", "2026-01-02 03:04 UTC")


def test_rows_of_several_runs(tmp_path):
    """A run of some rows replaces those, and each row names its run; a run of which nothing is left goes."""
    def found(value):
        return {"sluice": taken(*[value] * 7)}, {"hev": "no \"hev\""}

    def keep(*words):
        return bench.make_keeper(bench.parse_arguments(["--json", str(tmp_path / "r.json"), "--output", str(tmp_path / "r.md"), *words]))

    both, key, far = ["rtt-1", "rtt-64"], ("loopback", "cubic", 0), ("veth", "cubic", 0)
    first = make_record({key: {name: found(4) for name in both}, far: {"rtt-1": found(5)}}, {"date": "one"}, {"gost": "gost"})
    keep()(first)
    assert records.read(tmp_path / "r.json") == first
    second = make_record({key: {"rtt-64": found(6)}}, {"date": "two"})
    keep("--keep", "--rows", "rtt-64")(second)
    results, runs = records.results_of(records.read(tmp_path / "r.json"))
    assert results == {key: {"rtt-1": found(4), "rtt-64": found(6)}, far: {"rtt-1": found(5)}}
    assert runs == {(*key, "rtt-1"): 0, (*key, "rtt-64"): 1, (*far, "rtt-1"): 0}
    text = (tmp_path / "r.md").read_text()
    assert "|  | run 1 | run 2 |\n|---|---|---|\n| date | one | two |" in text and "partial" not in text
    assert [line for line in text.splitlines() if line.startswith("`rtt")] == [
        f"`{name}`: CPU µs per operation, less is better. Run {number}." for name, number in (("rtt-1", 1), ("rtt-64", 2), ("rtt-1", 1))]
    # Until the last row of the first run has been measured anew.
    third = make_record({key: {name: found(7) for name in both}, far: {"rtt-1": found(8)}}, {"date": "three"})
    keep("--keep")(third)
    assert records.read(tmp_path / "r.json") == {**third, "missing": {"gost": "gost"}}
    for words in ["--keep", "--samples", "6"], ["--keep"]:
        with pytest.raises(SystemExit):
            bench.parse_arguments(words)


def test_a_proxy_that_has_come_is_not_missing():
    old = make_record({}, {}, {"gost": "gost", "hev": "hev"})
    new = {**old, "missing": {"hev": "hev"}, "proxies": {"udp gost": {"name": "gost"}}}
    assert records.merge(old, new)["missing"] == {"hev": "hev"}
