"""docs/benchmarks.md from a record of what was measured."""
import os
import platform
import re
import resource

import figures
import goals
import record as records
from networks import NETWORKS
from peers import FLOOR, HERE
from processes import command_output, read_setting
from rows import METRICS

FIGURES = {"value": "", "rate": "rate", "p99": "p99"}
TIMES = ("p50", "p99", "p999")


def git(*words):
    status, text = command_output("git", "-C", HERE, *words)
    return text if status == 0 else ""


def commit_name():
    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short", "HEAD") or "?") + changed


def machine_name():
    match = re.search(r"^model name\s*:\s*(.+)$", read_setting("/proc/cpuinfo"), re.M)
    return f"{match.group(1) if match else platform.machine()}, {os.cpu_count()} CPUs"


def table(head, rows, right=()):
    """Markdown; columns whose place is in `right` are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---:" if i in right else "---" for i in range(len(head))) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percent(value):
    return "" if value is None else f"{value:.0%}"


# ---- One row ----


def compare(row, label, samples):
    """Ratio of the subject to this one, and whether the ranges tell them apart."""
    ours, theirs = samples.get(row.subject, []), samples[label]
    quotient = figures.ratio(ours, theirs)
    if label == row.subject or quotient is None:
        return "", ""
    low = METRICS[row.metric].low_is_good
    better = figures.verdict(ours, theirs, 1.0, low)
    return f"{quotient:.2f}", {figures.MET: "better", figures.NOT_MET: "worse"}.get(better, better)


def over_floor(label, samples):
    quotient = figures.ratio(samples[label], samples.get(FLOOR, []))
    return f"{quotient:.2f}" if quotient is not None and label != FLOOR else ""


def notes_of(taken):
    """The middle sample's note, and all errors."""
    values = figures.values_of(taken)
    middle = min(taken, key=lambda one: abs(one["value"] - figures.median(taken)))
    errors = sum(one["errors"] for one in taken)
    spread = f"{min(values):.4g} .. {max(values):.4g}" if (min(values), max(values)) != figures.interval(values) else ""
    return ", ".join(filter(None, [middle["note"], f"{errors} errors" if errors else "", f"all: {spread}" if spread else ""]))


def line_of(row, label, samples):
    taken, text = samples[label], METRICS[row.metric].text
    low, high = figures.interval(figures.values_of(taken))
    rate = figures.median(taken, "rate")
    cells = [label, text.format(figures.median(taken)), f"{text.format(low)} .. {text.format(high)}", *compare(row, label, samples),
             over_floor(label, samples), f"{number(rate)}{row.unit}" if rate is not None else ""]
    cells += [number(figures.median(taken, name)) for name in (*TIMES, "segments")]
    return cells + [percent(figures.median(taken, "core")), notes_of(taken)]


HEAD = ["proxy", "median", "range", "ours / this", "", "over the floor", "rate", "p50 µs", "p99 µs", "p99.9 µs", "segments each", "core busy", ""]


def drop_empty(head, lines):
    """Columns in which nobody has anything."""
    kept = [i for i in range(len(head)) if i == 0 or any(line[i] for line in lines)]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def format_row(row, samples, failures, run=""):
    metric = METRICS[row.metric]
    lines = [f"#### {row.title}", "", f"`{row.name}`: {metric.title}, {'less' if metric.low_is_good else 'more'} is better.{run}", ""]
    head, cells = drop_empty(HEAD, [line_of(row, label, samples) for label in samples])
    lines += table(head, cells, [i for i in range(1, len(head)) if head[i]]) if cells else []
    for label, why in failures.items():
        lines.append(f"{label}: {'some samples' if label in samples else 'it'} failed: {why}\n")
    return "\n".join(lines)


def format_loads(row, by_percent, run=""):
    """One table for all loads."""
    cells = []
    for load, (samples, failures) in sorted(by_percent.items()):
        for label, taken in samples.items():
            cells.append([f"{load} %", label, number(figures.median(taken, "rate")), METRICS[row.metric].text.format(figures.median(taken)),
                          *compare(row, label, samples), *(number(figures.median(taken, name)) for name in TIMES),
                          percent(figures.median(taken, "core")), notes_of(taken)])
        cells += [[f"{load} %", label, "", "", "", "", "", "", "", "", f"failed: {why}"] for label, why in failures.items()
                  if label not in samples]
    head = ["load", "proxy", "operations/s", "CPU µs each", "ours / this", "", "p50 µs", "p99 µs", "p99.9 µs", "core busy", ""]
    return "\n".join([f"#### {row.title}", "", f"`{row.name}`{run}", "", *table(head, cells, [2, 3, 4, 6, 7, 8, 9])])


# ---- The document ----


def facts_of_run(bench, started):
    """What holds for all rows of one run."""
    options = bench.options
    return {
        "date": started.strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit_name(),
        "machine": machine_name(),
        "kernel": platform.release(),
        "cores": f"proxy on {bench.proxy_core}; load generator, origin, name server and hops on {bench.load_core}",
        "transparent huge pages": read_setting("/sys/kernel/mm/transparent_hugepage/enabled"),
        "open files": str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        "samples": f"{options.samples} of each, {bench.seconds:g} s long, alternating; medians, and their range with 95 % confidence",
    }


def format_runs(runs):
    """A column for each run."""
    names = dict.fromkeys(name for run in runs for name in run)
    head = ["", ""] if len(runs) == 1 else ["", *(f"run {number + 1}" for number in range(len(runs)))]
    return "\n".join(table(head, [[name, *(run.get(name, "") for run in runs)] for name in names]))


def format_outcome(outcome):
    """Cells: measured, to reach, verdict."""
    if outcome is None:
        return ["", "", "not measured"]
    sign = "≤" if outcome.low_is_good else "≥"
    measured = "-" if outcome.measured is None else number(outcome.measured) if not outcome.against else f"{outcome.measured:.2f}"
    best = f" ({outcome.against})" if len(outcome.goal.against) > 1 and outcome.measured is not None else ""
    return [measured + best, f"{sign} {outcome.limit:g}", outcome.verdict]


def samples_of(results, network, congestion, row, percent):
    return results.get((network, congestion, percent), {}).get(row.name, ({}, {}))[0]


def format_goals(results, rows, networks, congestion):
    cells = []
    for row in rows:
        for goal in goals.goals_of(row):
            against = goal.against[0] if len(goal.against) == 1 else "the best peer" if goal.against else "itself"
            what = ", ".join(filter(None, [FIGURES[goal.figure] or METRICS[row.metric].title, f"{goal.percent} % load" if goal.percent else ""]))
            line = [row.title, against, what]
            for network in networks:
                samples = samples_of(results, network, congestion, row, goal.percent)
                line += format_outcome(goals.judge(goal, row, network, samples))
            cells.append(line)
    head = ["work", "against", "figure"] + [cell for network in networks for cell in (network, "to reach", "")]
    text = ("Ratios of ours to the peer's. \"Not resolved\": the ranges of both medians overlap at that limit, so that more or longer"
            " samples are needed to tell.")
    return "\n".join(["## What was to be reached", "", text, "", *table(head, cells)])


def format_proxies(record):
    lines = ["## Who took part", "",
             "\"Streams equal\": two pseudo-random streams at once, compared octet by octet, each direction ended by itself, before the"
             " samples. In bulk rows each proxy then moves more of the same behind each sample, of which every octet is compared; HTTP"
             " bodies, echoes and datagrams are compared while they are measured.", ""]
    cells = [[one["name"], one["mode"], one["version"], one["note"], one["verified"]] for one in record["proxies"].values()]
    cells += [[name, "", "", f"not here: no program `{program}`", ""] for name, program in record["missing"].items()]
    return "\n".join(lines + table(["proxy", "mode", "version", "set up", "streams equal"], cells))


class Document:
    """What the parts of the document are made from."""

    def __init__(self, record, rows):
        self.record = record
        self.results, self.runs = records.results_of(record)
        self.rows = [row for row in rows if any(row.name in found for found in self.results.values())]
        self.networks = [name for name in NETWORKS if any(key[0] == name for key in self.results)]
        congestions = list(dict.fromkeys(key[1] for key in self.results))
        self.congestions = [name for name in congestions if name == "cubic"] + [name for name in congestions if name != "cubic"]
        self.percents = sorted({key[2] for key in self.results} - {0})

    def run_of(self, *key):
        """A sentence, where there are several runs."""
        return f" Run {self.runs[key] + 1}." if len(self.record["runs"]) > 1 else ""

    def format_set(self, network, congestion):
        measured = self.results.get((network, congestion, 0), {})
        parts = [format_row(row, *measured[row.name], self.run_of(network, congestion, 0, row.name))
                 for row in self.rows if row.name in measured]
        return [f"### {network}, {congestion}\n", *parts] if parts else []

    def format_fixed_loads(self):
        parts, congestion = [], self.congestions[0]
        for network in self.networks:
            for row in self.rows:
                by_percent = {percent: self.results[network, congestion, percent][row.name] for percent in self.percents
                              if row.name in self.results.get((network, congestion, percent), {})}
                if by_percent:
                    run = self.run_of(network, congestion, min(by_percent), row.name)
                    parts.append(f"{network}, {congestion}:\n\n" + format_loads(row, by_percent, run))
        text = ("Operations begin at a fixed rate, whatever becomes of earlier ones, and each one's time counts from when it should have"
                " begun: a stall is charged with all that had to wait. The load is that part of what the slowest proxy of the row did at most.")
        return ["## At fixed loads\n", text + "\n", *parts] if parts else []


def format_document(record, rows, partial):
    """`partial`: with fewer or shorter samples than a verdict needs, or of some rows only."""
    document = Document(record, rows)
    head = ("# Benchmarks\n\nWritten by `bench/run.py`; bench/README.md says what is measured and how. A row is measured in alternation"
            " within one run, and its ratios compare medians of that run; numbers of different machines do not compare.\n")
    if partial:
        head += "\nThis is a partial or quick run, not the full measurement.\n"
    parts = [head, format_runs(record["runs"]), format_goals(document.results, document.rows, document.networks, document.congestions[0]),
             format_proxies(record), "## As fast as it goes\n"]
    for congestion in document.congestions:
        for network in document.networks:
            parts += document.format_set(network, congestion)
    return "\n".join(parts + document.format_fixed_loads())
