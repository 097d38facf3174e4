"""The rows: what is measured, of whom. goals.py says what is to be reached in them."""
import dataclasses
import fnmatch

import measure
from measure import DATAGRAMS, ECHO, FILL, HTTP, IDLE, PACED, SOURCE
from peers import FLOOR
from processes import Failed

SUBJECT = "sluice"
IDLE_SESSIONS = 4000
MOVED_SESSIONS = 9000
LIMITED = {4: 4, 256: 4, 4700: 1}  # flows: Gbit/s that they share; the last are as many as 20,000 descriptors allow
UNLIMITED, UNREACHED = "no limit, paced", "a limit that is not reached, paced"
SOCKS_PEERS = ("neosocksd", "microsocks", "hev", "dante")
FORWARD_PEERS = ("nginx", "haproxy", "neosocksd-pipe", "neosocksd")
BULK_PEERS = ("haproxy", "haproxy-splice", "nginx", "neosocksd-pipe")


@dataclasses.dataclass
class Metric:
    title: str
    low_is_good: bool
    text: str  # format of a value


METRICS = {
    "cpu_us": Metric("CPU µs per operation", True, "{:,.1f}"),
    "cpu_per_gb": Metric("CPU s per GB", True, "{:.3f}"),
    "p99": Metric("p99, µs", True, "{:,.0f}"),
    "bytes_per_session": Metric("PSS growth, bytes per session", True, "{:,.0f}"),
    "speedup": Metric("two workers against one", False, "{:.2f}"),
}


@dataclasses.dataclass
class Row:
    """One kind of work, by `subject` and its peers. Names are those of peers.tsv, sluice_proxies() and floor_proxies()."""

    name: str
    title: str
    mode: str
    metric: str
    peers: tuple
    load: tuple  # words for bench/load
    measure: object = measure.measure_load
    service: int = ECHO
    subject: str = SUBJECT
    floor: str = ""
    variants: dict = dataclasses.field(default_factory=dict)  # label: (proxy, words); beside the peers
    churns: bool = False  # leaves TIME_WAIT behind
    every_core: bool = False  # proxy, load and origin share all cores
    paced: bool = False  # is measured at fixed loads as well
    congested: bool = False  # depends on the congestion control: in the extra runs
    unit: str = "/s"  # of the rate


@dataclasses.dataclass
class Contestant:
    label: str
    proxy: object
    load: tuple = ()  # instead of the row's


def operations(name, title, mode, peers, load, **more):
    more.setdefault("paced", True)
    return Row(name, title, mode, "cpu_us", tuple(peers), tuple(load.split()), **more)


def bulk(name, title, peers, flows, **more):
    return Row(name, title, "forward", "cpu_per_gb", tuple(peers), ("bulk", "--flows", str(flows)), service=SOURCE,
               floor="floor-bulk", congested=True, unit=" Gbit/s", **more)


def limited(flows, gbits):
    """What a limit costs: by itself it holds flows to a speed, or they come at that speed and have none, or a wider one."""
    def load(mbits):
        return "bulk", "--flows", str(flows), "--pace", str(mbits)

    variants = {UNLIMITED: ("sluice", load(1000 * gbits)), UNREACHED: ("sluice-unreached", load(1000 * gbits))}
    return Row(f"limited-{flows}", f"Bulk, {flows:,} flows that share a limit of {gbits} Gbit/s, against flows that come at that speed", "forward",
               "cpu_per_gb", (), load(0), service=PACED, subject=f"sluice-limited-{gbits}", variants=variants, congested=True, unit=" Gbit/s")


def sessions(name, title, mode, peers, load, **more):
    return Row(name, title, mode, "bytes_per_session", tuple(peers), tuple(load.split()), measure.measure_idle, **more)


def round_trips():
    def rtt(name, title, peers, load, **more):
        floor = "floor-splice" if "--message" in load else FLOOR  # what copying costs is more from some size on
        return operations(name, f"Round trips of {title}", "forward", peers, f"rtt {load}", floor=floor, **more)

    best = ("neosocksd-pipe", "neosocksd", "nginx", "haproxy")
    return [
        rtt("rtt-1", "64 octets, 1 connection", FORWARD_PEERS, "--flows 1"),
        rtt("rtt-64", "64 octets, 64 connections", FORWARD_PEERS, "--flows 64", congested=True),
        rtt("rtt-512", "64 octets, 512 connections", FORWARD_PEERS, "--flows 512"),
        rtt("rtt-idle", "64 octets, 16 busy connections beside 1,000 that are mostly idle (one round trip each in 10 s)",
            FORWARD_PEERS, "--flows 16 --idle-flows 1000 --idle-every 10", paced=False),
        rtt("rtt-64k-1", "64 KiB, 1 connection", best, "--flows 1 --message 65536", congested=True),
        rtt("rtt-256k-1", "256 KiB, 1 connection", best, "--flows 1 --message 262144", congested=True),
        rtt("rtt-64k-16", "64 KiB, 16 connections", best, "--flows 16 --message 65536"),
        rtt("rtt-256k-16", "256 KiB, 16 connections", best, "--flows 16 --message 262144"),
        Row("rtt-beside-bulk", "Round trips of 64 octets beside 256 bulk flows of the same proxy", "socks5", "p99",
            ("neosocksd-pipe", "neosocksd", "microsocks", "hev", "dante"), ("rtt", "--flows", "1"), measure.measure_beside),
        operations("two-rtt-512", "Two workers each: round trips of 64 octets, 512 connections", "forward",
                   ("haproxy-two", "nginx-two"), "rtt --flows 512", subject="sluice-two", every_core=True, paced=False),
    ]


def connections():
    def connect(name, title, mode, peers, load="", **more):
        return operations(name, title, mode, peers, f"connect --flows 64 --close reset {load}", churns=True, **more)

    by_address = ("connect", "--flows", "64", "--close", "reset")
    return [
        connect("forward-reset", "TCP forward, connections, client resets", "forward", ("haproxy", "nginx", "neosocksd"), floor=FLOOR),
        connect("two-forward-reset", "Two workers each: TCP forward, connections, client resets", "forward",
                ("haproxy-two", "nginx-two"), subject="sluice-two", every_core=True, paced=False),
        connect("socks-reset", "SOCKS5 connections, client resets", "socks5", SOCKS_PEERS, floor=FLOOR),
        operations("socks-close", "SOCKS5 connections, client closes", "socks5", SOCKS_PEERS,
                   "connect --flows 64 --close orderly", churns=True, floor=FLOOR),
        connect("name-cached", "SOCKS5 by name, the same eight names", "socks5", SOCKS_PEERS, "--by-name", floor=FLOOR,
                variants={"by address": (SUBJECT, by_address)}),
        connect("name-fresh", "SOCKS5 by name, each connection another name", "socks5", SOCKS_PEERS, "--fresh-names",
                variants={"by address": (SUBJECT, by_address)}),
        connect("chain", "SOCKS5 connections through a chain of two SOCKS5 hops", "chain", ("neosocksd",)),
        connect("access-log", "SOCKS5 connections, each with a line in an access log", "socks5", ("sluice",), subject="sluice-logged",
                variants={"with a reader that sleeps": ("sluice-unread", by_address)}),
        connect("limits", "SOCKS5 connections, each under three limits", "socks5", ("sluice",), subject="sluice-limits", paced=False),
        connect("users", "SOCKS5 connections with user and password, judged by a file of users", "users", ("sluice",),
                subject="sluice-users", paced=False),
        connect("ruleset", "SOCKS5 connections with a pass-through ruleset, client resets", "socks5",
                ("sluice", "neosocksd-ruleset"), subject="sluice-ruleset", floor=FLOOR),
        connect("ruleset-cache", "The same with a verdict that is declared constant", "socks5", ("sluice-ruleset", "sluice"),
                subject="sluice-cached", paced=False),
        connect("ruleset-million", "libruleset with a million names and 100,000 networks", "socks5", ("sluice-ruleset",),
                subject="sluice-million", paced=False),
        operations("ruleset-latency", "One connection at a time: what a decision adds", "socks5",
                   ("sluice-cached", "sluice", "neosocksd-ruleset", "neosocksd"), "connect --flows 1 --close reset", churns=True,
                   subject="sluice-ruleset", paced=False),
        Row("decisions", "Decisions of the coordinator alone", "socks5", "cpu_us", ("sluice-million",), (),
            measure.measure_decisions, subject="sluice-ruleset"),
        Row("workers", "SOCKS5 connections, two workers against one", "socks5", "speedup", (), (), measure.measure_workers,
            churns=True),
    ]


def bulks():
    return [
        bulk("bulk-1", "Bulk, 1 flow", BULK_PEERS, 1),
        bulk("bulk-4", "Bulk, 4 flows", BULK_PEERS, 4),
        bulk("bulk-256", "Bulk, 256 flows", BULK_PEERS, 256),
        *(limited(flows, gbits) for flows, gbits in LIMITED.items()),
        bulk("bulk-256-nobody", "Bulk, 256 flows, as user nobody", ("haproxy-nobody", "neosocksd-pipe-nobody"), 256,
             subject="sluice-nobody"),
    ]


def requests():
    peers = ("squid", "tinyproxy", "nginx", "haproxy")
    return [operations(f"http-{size}k", f"Plain HTTP through the proxy, 32 connections, keep-alive, bodies of {size} KiB", "http",
                       peers, f"http --flows 32 --message {size * 1024}", service=HTTP, floor=FLOOR, churns=True)
            for size in (1, 64)]


def datagrams():
    return [operations(f"udp-{size}", f"UDP ASSOCIATE, 8 associations with 4 datagrams of {size:,} octets in flight, each there and back",
                       "udp", ("dante", "hev", "gost", "neosocksd"), f"udp --flows 8 --in-flight 4 --message {size}",
                       service=DATAGRAMS, floor=FLOOR) for size in (64, 1400)]


def memory():
    return [
        sessions("idle", f"{IDLE_SESSIONS:,} idle SOCKS5 sessions", "socks5", SOCKS_PEERS[:3], f"idle --flows {IDLE_SESSIONS}",
                 service=IDLE),
        sessions("idle-forward", f"{IDLE_SESSIONS:,} idle forwarded sessions", "forward", ("haproxy", "nginx", "neosocksd"),
                 f"idle --flows {IDLE_SESSIONS}", service=IDLE),
        sessions("idle-moved", f"{MOVED_SESSIONS:,} idle SOCKS5 sessions that have moved 1 MiB each", "socks5", SOCKS_PEERS[:3],
                 f"idle --fill --flows {MOVED_SESSIONS} --timeout 20", service=FILL),
    ]


def tools():
    return [
        Row("wrk-forward", "wrk, 64 connections, HTTP through TCP forward", "forward", "cpu_us", ("haproxy", "nginx", "neosocksd-pipe"),
            (), measure.measure_wrk, HTTP),
        Row("iperf3-forward", "iperf3, one stream through TCP forward", "forward", "cpu_per_gb", ("haproxy", "nginx", "neosocksd-pipe"),
            (), measure.measure_iperf3, unit=" Gbit/s"),
        Row("proxychains", "proxychains4 wrk, 16 connections through SOCKS5", "socks5", "cpu_us", SOCKS_PEERS, (),
            measure.measure_proxychains, HTTP),
    ]


def make_rows():
    return round_trips() + connections() + bulks() + requests() + datagrams() + memory() + tools()


def choose_rows(patterns):
    """Rows by comma or blank; * and ? match. None, or nothing in it: all."""
    rows = make_rows()
    patterns = (patterns or "").replace(",", " ").split()
    if not patterns:
        return rows
    known = [row.name for row in rows]
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise Failed(f"{pattern}: no such row; there are {' '.join(known)}")
    return [row for row in rows if any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns)]


def contestants(row, proxies):
    """The subject first, then the peers that are here and can do it, what stands beside them, and the floor."""
    names = [(name, name, ()) for name in (row.subject, *row.peers)]
    names += [(label, name, load) for label, (name, load) in row.variants.items()]
    if row.floor:
        names.append((FLOOR, row.floor, ()))
    return [Contestant(label, proxies[name, row.mode], tuple(load)) for label, name, load in names if (name, row.mode) in proxies]
