"""An API whose figures a test chooses: states of the dashboard that a real server reaches rarely, or on no two days alike."""
import http.server
import json
import math
import os
import re
import threading
import time
import urllib.parse

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../api/dashboard.html")


def read_policy():
    """The Content-Security-Policy that the program sends, as its source has it."""
    with open(os.path.join(os.path.dirname(PAGE), "response.c"), encoding="utf-8") as source:
        words = re.search(r'"Content-Security-Policy",\s*((?:"[^"]*"\s*)+)\)', source.read()).group(1)
    return "".join(re.findall(r'"([^"]*)"', words))


POLICY = read_policy()
HOSTILE = ["<img src=x onerror=alert(1)>", "evil\u202etxt.exe", "a" * 200, "\u0000\u0007", "", "</script><script>alert(2)"]


def wave(seconds, period, low, high):
    return low + (high - low) * (0.5 + 0.5 * math.sin(2 * math.pi * seconds / period))


class FakeApi:
    """Counters grow as on a busy box, from time alone. Tests change: token, status (an HTTP status in place of every
    answer), body (octets in place of every answer), stats (merged over the figures), revision."""

    def __init__(self, port=0):
        self.token = self.status = self.body = None
        self.stats = {}
        self.revision, self.rows, self.start = 7, 1700, time.monotonic() - 3 * 86400
        self.talkers, self.missed, self.keys = 10, 0, 10000
        self.groups = []  # of upstreams
        self.asked = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802, the library's name
                fake.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, handler):
        path, _, query = handler.path.partition("?")
        self.asked.append(handler.path)
        if path == "/":
            with open(PAGE, "rb") as page:
                self.send(handler, 200, page.read(), "text/html; charset=utf-8")
        elif self.token and handler.headers["Authorization"] != f"Bearer {self.token}":
            self.send(handler, 401, b"a bearer token is required", "text/plain")
        elif self.status:
            self.send(handler, self.status, b"not <b>now</b>", "text/plain")
        elif self.body is not None:
            self.send(handler, 200, self.body)
        elif path == "/stats":
            self.send(handler, 200, json.dumps(self.figures()).encode())
        elif path == "/history":
            self.send(handler, 200, json.dumps(self.history()).encode())
        elif path == "/top":
            by = urllib.parse.parse_qs(query)["by"][0]
            self.send(handler, 200, json.dumps({"top": [self.talker(by, i) for i in range(self.talkers)], "missed": self.missed}).encode())
        elif path == "/limits":
            self.send(handler, 200, json.dumps(self.limits(urllib.parse.parse_qs(query))).encode())
        elif path == "/upstreams":
            self.send(handler, 200, json.dumps({"upstreams": self.groups, "next": None}).encode())
        elif path == "/sessions":
            first = int(urllib.parse.parse_qs(query).get("cursor", ["0-0"])[0].split("-")[1], 16)
            self.send(handler, 200, json.dumps(self.sessions(first)).encode())
        else:
            self.send(handler, 404, b"no such path", "text/plain")

    @staticmethod
    def send(handler, status, body, kind="application/json"):
        handler.send_response(status)
        for name, value in [("Content-Type", kind), ("Content-Length", len(body)), ("Content-Security-Policy", POLICY)]:
            handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(body)

    def grown(self, rate, swing=0.4, period=97.0, ago=0):
        """A counter: the integral of a rate that swings around its mean."""
        t = time.monotonic() - self.start - ago
        return int(rate * (t + swing * period / (2 * math.pi) * math.sin(2 * math.pi * t / period)))

    def worker(self, index):
        share = [1.1, 0.9, 1.0, 0.8][index % 4]
        return {"index": index, "active": int(1200 * share), "half_open": 3 + index, "accepted": self.grown(700 * share),
                "bytes_up": self.grown(6e6 * share), "bytes_down": self.grown(90e6 * share),
                "ring": {"submissions": self.grown(90e3), "completions": self.grown(120e3), "enters": self.grown(14e3),
                         "overflows": 0},
                "starved": 12 if index == 2 else 0, "pipes_in_use": 14 + index, "pipes_missing": 0, "queue_in": 0,
                "queue_out": index, "datagrams_up": 0, "datagrams_down": 0}

    def figures(self):
        t = time.monotonic() - self.start
        latency = {"p50": wave(t, 80, 0.0008, 0.0021), "p90": wave(t, 120, 0.011, 0.024), "p99": wave(t, 60, 0.09, 0.4),
                   "max": 4.2, "count": int(2000 * t)}
        figures = {
            "version": "0.0-fake", "uptime": t, "time": time.time(), "accepted": self.grown(2800), "refused": 41,
            "sessions": {"active": int(wave(t, 140, 3900, 5200)), "half_open": int(wave(t, 33, 10, 90)), "peak": 8211},
            "requests": self.grown(2790), "successes": self.grown(2700),
            "failures": {"peer": self.grown(4), "refused": self.grown(31, 0.9, 40), "connect_timeout": self.grown(12, 0.9),
                         "resolve": self.grown(22, 0.8, 61), "rejected": self.grown(9), "auth": self.grown(0.8),
                         "handshake_timeout": self.grown(2.2), "proxy_closed": 113},
            "bytes": {"up": self.grown(24e6), "down": self.grown(360e6, 0.5), "copy": self.grown(64e6, 0.2, 45),
                      "splice": self.grown(320e6, 0.5)},
            "connect_latency": latency, "decision_latency": {n: v / 40 if n != "count" else v for n, v in latency.items()},
            "last_minute": {"connect_latency": latency, "decision_latency": {n: v / 40 if n != "count" else v for n, v in latency.items()}},
            "descriptors": {"open": 9911, "limit": 20000},
            "refusals": {"max_sessions": 11, "max_startups": 22, "pool": 3, "resource": 5},
            "workers": [self.worker(i) for i in range(4)],
            "dns": {"queries": self.grown(40), "cache_hits": self.grown(900), "coalesced": self.grown(30),
                    "failures": self.grown(3), "timeouts": 91, "cached": 8120},
            "ruleset": {"revision": self.revision, "loaded": True, "sha256": "5e" * 32, "memory_bytes": int(wave(t, 20, 3.1e6, 6.2e6)),
                        "objects": 31877, "threads": 18, "threads_peak": 644,
                        "event_latency": {"p50": 9e-6, "p90": 22e-6, "p99": 140e-6, "max": 0.004, "count": 2000}},
            "api": {"connections": int(t / 9), "requests": int(t), "errors": 3},
        }
        figures.update(self.stats)
        return figures

    def ring(self, step, size):
        """Counters of the past: each had half of its rate of today, so that a test knows one from the other."""
        times = [i * step for i in range(size, 0, -1)]
        ring = {"uptime": [time.monotonic() - self.start - ago for ago in times]}
        for name, rate in [("bytes_up", 12e6), ("bytes_down", 180e6), ("bytes_copy", 32e6), ("bytes_splice", 160e6), ("accepted", 1400),
                           ("requests", 1395), ("successes", 1350), ("failures", 40)]:
            ring[name] = [self.grown(rate, 0, ago=ago) for ago in times]
        for name, value in [("active", 2000), ("half_open", 20), ("connect_p50", 0.001), ("connect_p90", 0.01), ("connect_p99", 0.1),
                            ("decision_p50", None), ("decision_p90", None), ("decision_p99", None)]:
            ring[name] = [value] * size
        ring["revision"] = [self.revision - (ago > 90) for ago in times]
        return ring

    def history(self):
        return {"time": time.time(), "uptime": time.monotonic() - self.start, "seconds": self.ring(1, 200), "minutes": self.ring(60, 70)}

    def row(self, i):
        names = ["objects.mirror.example:443", "video-cdn-7.example.net:443", "[2001:db8:12::77]:8443", "10.40.2.17:5432",
                 "registry.internal:5000", *HOSTILE]
        target = names[i % 13 % len(names)] if i % 3 else f"host-{i % 97}.example.org:443"
        weight = 1 + 40 * (i % 13 == 1) + 11 * (i % 13 == 2)
        return {"id": f"0-{i:x}-1", "worker": i % 4, "age": 60.0 + i, "user": ["alice", "", HOSTILE[0]][i % 3],
                "client": f"192.0.2.{i % 40}:{40000 + i}", "target": target, "rule": f"rule {i % 5}", "hops": 0, "chain": [],
                "bytes": {"up": self.grown(200 * weight), "down": self.grown(9000 * weight)},
                "path": {"up": "copy", "down": "splice"}, "state": "RELAY", "protocol": "socks5"}

    def sessions(self, first):
        last = min(first + 1000, self.rows)
        return {"sessions": [self.row(i) for i in range(first, last)], "next": f"0-{last:x}" if last < self.rows else None}

    def limit(self, key, i):
        """Each third key has spent its quota."""
        return {"key": key, "each": False, "put": True, "connections": i % 7, "half_open": 0, "resolving": 0, "waiting": 0, "admitted": 9,
                "refused": i, "bytes": {"up": 1, "down": 2}, "rate": {"up": 1000 * i, "down": 250000} if i % 2 else None,
                "terms": {"connections": 6, "down": "1000000B/s", "quota": "5368709120B/month"},
                "used": {"quota": 5368709120 if i % 3 == 0 else 1368709120}}

    @staticmethod
    def member(i, state="up", **more):
        return {"member": f"192.0.2.{i}:1080", "backup": i == 2, "max": 0, "state": state, "checked": "none", "out_seconds": 0.0,
                "sessions": i, "connected": 10 * i, "failed": 0, "checks_passed": 0, "checks_failed": 0, "last_failure": None, **more}

    def talker(self, by, i):
        name = [*HOSTILE, "alice", "bob"][i % 8]
        rate = {"up": 1000 * (20 - i), "down": 50000 * (20 - i)}
        return {"name": name, "key": f"{by}:{i}", "rate": rate if i < 9 else None, "connections": i, "limit": self.limit(f"{by}:{i}", i) if i % 2 else None}

    def limits(self, asked):
        """Keys user:0 to user:9999, and what is asked of them."""
        prefix, size = asked.get("prefix", [""])[0], int(asked["limit"][0])
        keys = [key for key in (f"user:{i}" for i in range(self.keys)) if key.startswith(prefix)]
        first = int(asked.get("cursor", ["0"])[0])
        more = first + size < len(keys) and "sort" not in asked
        return {"limits": [self.limit(key, first + i) for i, key in enumerate(keys[first:first + size])], "next": str(first + size) if more else None}
