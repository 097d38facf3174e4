"""What is to be reached: a table, and what the samples say of it.

A goal compares a row's subject with a peer, or with the best of several, in one figure: `value` (the row's own, CPU time or
memory), `rate` or `p99`. The limit is of the ratio of medians, at most where less is better. Goals for a fixed load are of the
set that was measured at that load."""
import dataclasses

import figures
from peers import FLOOR
from rows import LIMITED, METRICS, UNLIMITED

LOOPBACK, VETH = "loopback", "veth"
BOTH = (LOOPBACK, VETH)
FLOOR_MAX = 1.15
HALF_LOAD = 50
IDLE_BYTES_MAX, SPEEDUP_MIN = 1024, 1.8


@dataclasses.dataclass
class Goal:
    row: str
    against: tuple  # labels of contestants; the best of them counts. (): the limit is absolute
    limits: dict  # network: limit
    figure: str = "value"
    percent: int = 0  # of the load; 0: as fast as it goes


def both(row, against, loopback, veth=None, **more):
    return Goal(row, (against,) if isinstance(against, str) else against, {LOOPBACK: loopback, VETH: veth or loopback}, **more)


BEST_RELAYS = ("neosocksd-pipe", "neosocksd", "nginx", "haproxy")


def long_messages():
    goals = []
    for size in "64k", "256k":
        goals += [both(f"rtt-{size}-1", BEST_RELAYS, 1.0, figure="rate"), both(f"rtt-{size}-1", BEST_RELAYS, 1.0, figure="p99"),
                  both(f"rtt-{size}-16", "neosocksd-pipe", 0.9)]
    return goals


GOALS = [
    both("rtt-1", "nginx", 0.90),
    both("rtt-64", "nginx", 0.78, 0.70),
    both("rtt-64", "haproxy", 0.78, 0.70),
    both("rtt-512", "nginx", 0.66, 0.64),
    both("forward-reset", "haproxy", 0.80, 0.68),
    both("socks-reset", "neosocksd", 0.72, 0.60),
    both("socks-reset", "microsocks", 0.48, 0.42),
    both("name-cached", "by address", 1.15),
    both("ruleset", "neosocksd-ruleset", 0.78, 0.56),
    both("users", "sluice", 1.05),
    *long_messages(),
    both("bulk-1", "neosocksd-pipe", 1.05, figure="rate"),
    both("bulk-1", "neosocksd-pipe", 0.85, 0.75),
    both("bulk-4", "haproxy", 0.17, 0.25),
    both("bulk-4", "neosocksd-pipe", 0.72, 0.65),
    both("bulk-256", "haproxy", 0.19, 0.24),
    both("bulk-256", "neosocksd-pipe", 0.70, 0.75),
    *(both(f"limited-{flows}", UNLIMITED, 1.05) for flows in LIMITED),
    both("bulk-256-nobody", "haproxy-nobody", 0.19, 0.24),
    both("bulk-256-nobody", "neosocksd-pipe-nobody", 0.70, 0.75),
    both("http-1k", "squid", 0.35),
    both("http-64k", "squid", 0.35),
    both("udp-64", "dante", 0.35),
    both("udp-1400", "dante", 0.35),
    both("idle", (), IDLE_BYTES_MAX),
    both("idle-forward", (), IDLE_BYTES_MAX),
    both("workers", (), SPEEDUP_MIN),
]


def goals_of(row):
    """Those of the table, and those that every row has."""
    goals = [goal for goal in GOALS if goal.row == row.name]
    if row.paced and row.peers:
        goals.append(both(row.name, row.peers, 1.0, figure="p99", percent=HALF_LOAD))
    if row.floor:
        goals.append(both(row.name, FLOOR, FLOOR_MAX))
    return goals


def low_is_good(row, figure):
    return METRICS[row.metric].low_is_good if figure == "value" else figure != "rate"


@dataclasses.dataclass
class Outcome:
    goal: Goal
    row: object
    against: str  # the contestant that counts; "": absolute
    measured: object  # the ratio or the value; None: not measured
    limit: float
    low_is_good: bool
    verdict: str


def judge(goal, row, network, samples):
    """`samples`: of that row at that load in that network, by label."""
    limit, low = goal.limits[network], low_is_good(row, goal.figure)
    ours = samples.get(row.subject, [])
    nothing = Outcome(goal, row, " or ".join(goal.against), None, limit, low, "not measured")
    if not figures.values_of(ours, goal.figure):
        return nothing
    if not goal.against:
        return Outcome(goal, row, "", figures.median(ours, goal.figure), limit, low,
                       figures.verdict_absolute(ours, limit, low, goal.figure))
    peer = figures.best_of(samples, goal.against, low, goal.figure)
    if peer is None or not figures.ratio(ours, samples[peer], goal.figure):
        return nothing
    return Outcome(goal, row, peer, figures.ratio(ours, samples[peer], goal.figure), limit, low,
                   figures.verdict(ours, samples[peer], limit, low, goal.figure))
