"""Figures for operators: exact values under a scripted load, our own names, what happened before somebody looked, lines of the log."""
import hashlib
import os
import re
import signal
import socket
import subprocess
import time

import pytest

import process
import scripts
import wire
from conftest import require

DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end }"


def samples(api):
    """{name{labels}: value} of a scrape."""
    found = {}
    for line in api.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name not in found, name
            found[name] = float(value)
    return found


def stats(api):
    return api.get("/stats?format=json").json()


def test_our_names_beside_the_contracts(ruled, origin):
    """The same figures by both names; those that neosocksd does not have."""
    target = origin()
    proxy, api = ruled(DIRECT, "--workers", "2", "-m", "50")
    for _ in range(7):
        with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
            client.send(b"12345")
            assert client.read(5) == b"12345"
    held = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    waiting = wire.greet(wire.Client(proxy.address))
    closed = process.free_port()
    assert wire.Client(proxy.address).send(f"CONNECT 127.0.0.1:{closed} HTTP/1.1\r\n\r\n".encode()).read_all().startswith(b"HTTP/1.1 502")
    assert process.wait_until(lambda: samples(api)['sluice_sessions{state="established"}'] == 1)
    got = samples(api)
    for ours, theirs, value in [
            ('sluice_sessions{state="established"}', "sessions_active", 1), ('sluice_sessions{state="handshake"}', "halfopen_connections", 1),
            ("sluice_connections_accepted_total", "connections_served_total", 10), ("sluice_requests_total", "requests_total", 9),
            ("sluice_requests_established_total", "requests_success_total", 8), ('sluice_bytes_total{direction="up"}', "uplink_bytes_total", 35),
            ('sluice_bytes_total{direction="down"}', "downlink_bytes_total", 35), ("sluice_sessions_peak", "sessions_peak", None),
            ('sluice_api_requests_total{outcome="success"}', "api_requests_success_total", None)]:
        assert got[ours] == got["neosocksd_" + theirs] and value in (None, got[ours]), (ours, got[ours], got["neosocksd_" + theirs])
    assert got['sluice_failures_total{reason="refused"}'] == 1 and got["sluice_connect_seconds_count"] == 8
    assert got['sluice_connect_seconds_bucket{le="+Inf"}'] == 8 and got["sluice_connect_seconds_sum"] > 0
    bounds = [(float(re.search(r'le="([^"]+)"', name).group(1)), value) for name, value in got.items() if name.startswith("sluice_connect_seconds_bucket")]
    assert bounds == sorted(bounds) and bounds[0][0] < 1e-5 and bounds[-2][0] > 60
    version = subprocess.run([process.BINARY, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    assert got[f'sluice_build_info{{version="{version}"}}'] == 1
    assert abs(got["sluice_start_time_seconds"] - time.time()) < 120
    assert got["sluice_workers"] == 2 and got["sluice_api_connections_total"] >= 2
    for client in [held, waiting]:
        client.close()


def test_descriptors(ruled):
    proxy, api = ruled(DIRECT, files=4000)
    crowd = [wire.greet(wire.Client(proxy.address)) for _ in range(40)]
    seen = [samples(api)["sluice_open_fds"], stats(api)["descriptors"]["open"]]
    truth = proxy.descriptors()
    assert all(abs(one - truth) <= 3 for one in seen), (seen, truth)
    assert samples(api)["sluice_max_fds"] == stats(api)["descriptors"]["limit"] == 4000
    for client in crowd:
        client.close()


def test_hash_of_the_ruleset(ruled, sluice, tmp_path):
    """Of what was installed: the file at the start, the body of an update, the file at SIGHUP; nothing that failed, no module."""
    def shown():
        got, everything = samples(api), stats(api)["ruleset"]
        infos = [name for name in got if name.startswith("sluice_ruleset_info")]
        assert infos == [f'sluice_ruleset_info{{sha256="{everything["sha256"]}"}}'] and got["sluice_ruleset_revision"] == everything["revision"]
        return everything["sha256"]

    def digest(text):
        return hashlib.sha256(text.encode()).hexdigest()

    proxy, api = ruled(DIRECT)
    assert shown() == digest(DIRECT)
    api.update("return { new = 1 }")
    assert shown() == digest("return { new = 1 }")
    assert api.post("/ruleset/update", "return 5").status == 500 and api.update("return {}", "?module=other")
    assert shown() == digest("return { new = 1 }")
    (tmp_path / "rules.lua").write_text("return { third = 3 }")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: shown() == digest("return { third = 3 }"))
    (tmp_path / "rules.lua").write_text("return 3")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "the old one stays" in proxy.log()) and shown() == digest("return { third = 3 }")
    _, bare = ruled(None)
    assert stats(bare)["ruleset"]["sha256"] == "" and "sluice_ruleset_info" not in bare.get("/metrics").text


def refused(proxy):
    """The name of a client that has been reset."""
    with socket.socket() as client:
        client.settimeout(10)
        client.bind(("127.0.0.1", 0))
        try:
            client.connect(proxy.address)
            assert client.recv(1) == b"reset was expected"
        except ConnectionResetError:
            return "%s:%d" % client.getsockname()


def test_refusals_by_limits(sluice, origin):
    """Each limit has its count, and at level 5 a line that names the client."""
    port = process.free_port()
    proxy = sluice("--api", f"127.0.0.1:{port}", "--workers", "1", "-m", "3", "--max-startups", "2:100:3", "--loglevel", "5")
    api = scripts.Api(("127.0.0.1", port))
    starting = [wire.greet(wire.Client(proxy.address)) for _ in range(2)]
    name = refused(proxy)
    target = origin()
    for client in starting:
        client.send(wire.socks5("127.0.0.1", target.port))
        assert wire.read_socks5_reply(client)[0] == 0
    third = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    assert refused(proxy)
    assert stats(api)["refusals"] == {"max_sessions": 1, "max_startups": 1, "share": 0, "half_open": 0, "pool": 0, "resource": 0} and stats(api)["refused"] == 2
    got = samples(api)
    assert got['sluice_connections_refused_total{reason="max_sessions"}'] == got['sluice_connections_refused_total{reason="max_startups"}'] == 1
    assert proxy.says(f"connection from {name} refused: --max-startups") and proxy.says("refused: --max-sessions")
    assert re.search(r"I \S+ accept\.c:\d+ connection from 127\.0\.0\.1:\d+ refused: --max-sessions", proxy.log())
    connections = stats(api)["api"]["connections"]
    assert len(re.findall(r"I \S+ \S+ api: connection from 127\.0\.0\.1:\d+", proxy.log())) == connections >= 4
    for client in [*starting, third]:
        client.close()


def test_last_minute_and_history(ruled, origin):
    """What happened before anybody asked is there, in order; latencies are of the last minute."""
    target = origin()
    proxy, api = ruled(DIRECT, "--workers", "2")
    with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
        client.send(b"x" * 5000)
        assert client.read(5000) == b"x" * 5000
    assert process.wait_until(lambda: api.get("/history").json()["seconds"]["bytes_up"][-1:] == [5000])
    history = api.get("/history").json()
    seconds = history["seconds"]
    assert seconds["uptime"] == sorted(seconds["uptime"]) and seconds["uptime"][-1] <= history["uptime"]
    assert len(seconds["uptime"]) <= seconds["uptime"][-1] + 1  # a second each, or more on a busy machine
    assert {len(column) for column in [*seconds.values()]} == {len(seconds["uptime"])} and len(history["minutes"]["uptime"]) == 1
    for name, value in [("accepted", 1), ("requests", 1), ("successes", 1), ("failures", 0), ("bytes_down", 5000), ("revision", 1)]:
        assert seconds[name][-1] == value and seconds[name] == sorted(seconds[name])
    assert 0 < seconds["connect_p50"][-1] <= seconds["connect_p99"][-1] < 5 and 0 < seconds["decision_p50"][-1] < 5
    minute = stats(api)["last_minute"]
    assert minute["connect_latency"]["count"] == minute["decision_latency"]["count"] == 1
    assert minute["connect_latency"] == stats(api)["connect_latency"]


def test_history_has_a_gap_while_lua_holds_the_thread(ruled):
    _, api = ruled(DIRECT, "--lua-budget", "3000")
    assert process.wait_until(lambda: api.get("/history").json()["seconds"]["uptime"])
    api.post("/ruleset/invoke", "local t = time.monotonic() while time.monotonic() - t < 2.5 do end")
    assert process.wait_until(lambda: len(api.get("/history").json()["seconds"]["uptime"]) >= 3)
    uptime = api.get("/history").json()["seconds"]["uptime"]
    assert uptime == sorted(uptime) and max(b - a for a, b in zip(uptime, uptime[1:])) < 60


def test_lines_of_the_ruleset_in_a_scrape(ruled):
    """One wrong line, or a missing end, made the whole scrape unreadable."""
    proxy, api = ruled("""return { metrics = function() return _G.text end }""")
    for text, kept, dropped in [("mine 1", "mine 1\n", 0), ("a 1\nbroken\nb 2\n", "a 1\nb 2\n", 1),
                                ("# TYPE neosocksd_uptime_seconds gauge\nneosocksd_uptime_seconds 5\nmy{l=\"\xff\"} 1\nc 3", "c 3\n", 4), ("", "", 4),
                                ("sluice_ruleset_metrics_dropped_total 9\nd 4", "d 4\n", 5)]:
        assert api.post("/ruleset/invoke", ("_G.text = [==[\n" + text + "]==]").encode("latin-1")).status == 200
        answer = api.get("/metrics").text
        assert answer.endswith("\n") and answer.endswith(f"sluice_ruleset_metrics_dropped_total {dropped}\n{kept}"), answer[-300:]
    assert proxy.log().count("lines are left out") == 1
    assert api.update("return { metrics = function() return '<html>' end }")
    for _ in range(3):
        assert api.get("/metrics").status == 200
    assert proxy.log().count("lines are left out") == 2


def test_promtool_and_prometheus_read_it(ruled, origin, tmp_path):
    promtool = require("promtool", "prometheus")
    proxy, api = ruled("return { route = function(a) return a end, metrics = function() return '# HELP own_total x\\n# TYPE own_total counter\\n"
                       "own_total 1\\nbroken line here\\n' end }", "--workers", "2")
    wire.through_socks5(proxy.address, "127.0.0.1", origin().port).close()
    text = api.get("/metrics").text
    done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr
    assert "own_total 1" in text and "broken" not in text
