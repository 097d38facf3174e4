"""The REST API: routes, codings, who may call, sessions, metrics; against the document that describes it."""
import errno
import gzip
import hashlib
import os
import re
import signal
import socket
import subprocess
import time
import zlib

import pytest

import process
import scripts
import wire
from conftest import ROOT, require

yaml = pytest.importorskip("yaml", reason="apt-get install python3-yaml")
DIRECT = "return { resolve = function(a) return a end, route = function(a) return a end }"


def raw(api, request, timeout=15):
    client = wire.Client(api.address, timeout=timeout)
    client.send(request)
    return client


# --- routes ---

def test_healthy(ruled):
    _, api = ruled("return { healthy = function() if broken then error(broken, 0) end return complaint end }")
    for method in ["GET", "HEAD", "POST"]:
        answer = api.ask(method, "/healthy")
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    api.call("_G.complaint = 'tired'")
    assert (api.get("/healthy").status, api.get("/healthy").text) == (503, "tired")
    api.call("_G.broken = 'ill'")
    assert (api.get("/healthy").status, api.get("/healthy").text) == (503, "ill")


@pytest.mark.parametrize("path,status", [("/healthy/", 404), ("/stats/x", 404), ("/nothing", 404), ("/ruleset", 500),
                                         ("/ruleset/update", 500), ("/ruleset/nothing", 500), ("/sessions/", 404)])
def test_paths_that_are_none(shared_ruled, path, status):
    _, api = shared_ruled(None)
    answer = api.get(path)
    assert answer.status == status and answer.headers["connection"] == "close"
    if status == 500:
        assert answer.text == "ruleset is not enabled on the server"


@pytest.mark.parametrize("method,path,allow", [("PUT", "/stats", "GET, HEAD, POST"), ("POST", "/metrics", "GET, HEAD"),
                                               ("GET", "/ruleset/gc", "POST"), ("GET", "/sessions/0-0-0", "DELETE")])
def test_methods(shared_ruled, method, path, allow):
    _, api = shared_ruled(DIRECT)
    answer = api.ask(method, path)
    assert answer.status == 405 and answer.headers["allow"] == allow


LINES = ["Server Time", "Uptime", "Num Sessions", "Num Rejected", "Conn Accepts", "Name Resolves", "Requests", "API Requests",
         "Handshake Dial", "Traffic", "API Client", "Connect Latency"]
RATES = ["Accept Rate", "Request Rate", "Reject Rate", "Throughput", "Server Load"]


def labels(text):
    return [line[:20].rstrip() for line in text.splitlines() if line[20:22] == ": "]


def test_stats_text(ruled, origin):
    proxy, api = ruled("return { resolve = function(a) return a end, stats = function(dt, q) return 'dt=' .. math.type(dt) .. "
                       "' q=' .. tostring(q) end }")
    with wire.through_http(proxy.address, "127.0.0.1", origin().port) as client:
        client.send(b"12345")
        assert client.read(5) == b"12345"
    answer = api.get("/stats")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8" and answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text.startswith("neosocksd 1.5.1 (sluice ") and labels(answer.text) == LINES
    assert process.wait_until(lambda: re.search(r"^Traffic             : Up 5B, Down 5B$", api.get("/stats").text, re.MULTILINE))
    assert labels(api.get("/stats?nobanner=1&runtime=yes").text) == [
        *LINES[:-1], "Ruleset Allocated", "Ruleset Threads", "Ruleset Events", LINES[-1]]
    post = api.post("/stats?nobanner=true")
    assert labels(post.text) == LINES + RATES and post.text.endswith("dt=float q=nil") and "(unknown)" in post.text
    assert re.search(r"^Server Load         : [\d.]+% \(last .*\)$", api.post("/stats").text, re.MULTILINE)
    assert api.post("/stats?nobanner=1&server=0&q=a%20b").text == "dt=float q=a b"
    assert api.get("/stats?format=yaml").status == 400
    assert not re.search(r"^API Requests .* Rx 0,", api.get("/stats").text, re.MULTILINE)  # heads count


def test_stats_since_the_last_time(ruled):
    """What the ruleset is told is the time since the last POST, at first since the start, and no more than that."""
    begin = time.monotonic()
    _, api = ruled("return { stats = function(dt) return ('%.9f'):format(dt) end }")
    told = [float(api.post("/stats?nobanner=1&server=0").text) for _ in range(5)]
    assert min(told) > 0 and sum(told) <= time.monotonic() - begin


def test_stats_json(ruled, origin):
    proxy, api = ruled(DIRECT, "--workers", "2")
    client = wire.through_socks5(proxy.address, "127.0.0.1", origin().port)
    everything = api.get("/stats?format=json").json()
    assert everything["sessions"]["active"] == 1 and everything["accepted"] == 1 and len(everything["workers"]) == 2
    assert everything["ruleset"]["loaded"] and everything["ruleset"]["revision"] == 1
    assert everything["connect_latency"]["count"] == 1 and everything["decision_latency"]["count"] == 1
    assert sum(worker["accepted"] for worker in everything["workers"]) == 1
    assert sum(worker["ring"]["submissions"] for worker in everything["workers"]) > 0
    for name in ["bytes_up", "bytes_down", "accepted", "requests", "successes"]:
        whole = everything["bytes"][name[6:]] if name.startswith("bytes") else everything[name]
        assert sum(worker[name] for worker in everything["workers"]) == whole
    assert everything["api"]["requests"] == 1 and everything["api"]["errors"] == 0
    labels = re.findall(r'^sluice_failures_total\{reason="(\w+)"\}', api.get("/metrics").text, re.MULTILINE)
    assert len(labels) > 20 and list(everything["failures"]) == labels
    api.get("/nothing")
    raw(api, b"POST /stats HTTP/1.1\r\nContent-Length: x\r\n\r\n").read_all()  # answered below us
    assert process.wait_until(lambda: api.get("/stats?format=json").json()["api"]["errors"] == 2)
    client.close()


def families(text):
    """Names in the order of their first sample; a family that comes twice fails."""
    seen = []
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            assert line.split()[2] not in seen
            seen.append(line.split()[2])
        elif not line.startswith("#"):
            name = re.match(r"[a-z_]+", line).group()
            assert seen[-1] in (name, re.sub(r"_(sum|count|bucket)$", "", name)), line
    return seen


# As emitted by neosocksd, in its order; ours stand behind.
FAMILIES = """sessions_active sessions_peak halfopen_connections uptime_seconds process_cpu_seconds_total connections_accepted_total
connections_served_total requests_total requests_success_total rejects_ruleset_total rejects_timeout_total rejects_upstream_total
dns_queries_total dns_success_total api_requests_total api_requests_success_total uplink_bytes_total downlink_bytes_total
protocol_bytes_total api_client_requests_total connect_latency_seconds lua_memory_bytes lua_objects lua_threads_active
lua_threads_peak""".split()
OURS = """ring_submissions_total ring_completions_total ring_overflows_total buffers_starved_total pipes_in_use relay_bytes_total
queue_depth queue_full_total worker_accepted_total worker_refused_limit_total worker_refused_resource_total""".split()


def test_every_family_is_there(ruled, origin):
    proxy, api = ruled(DIRECT, "--workers", "2")
    wire.through_socks5(proxy.address, "127.0.0.1", origin().port).close()
    text = api.get("/metrics").text
    assert [name[10:] for name in families(text) if name.startswith("neosocksd_")] == FAMILIES
    for name in OURS:
        for worker in "01":
            assert re.search(rf'^sluice_{name}\{{worker="{worker}"[^}}]*\}} \d+$', text, re.MULTILINE), name
    for path in ["copy", "splice"]:
        assert f'sluice_relay_bytes_total{{worker="0",path="{path}"}}' in text
    for module in ["api_server", "proxy_server", "proxy_client", "api_client"]:
        for direction in ["rx", "tx"]:
            assert f'neosocksd_protocol_bytes_total{{direction="{direction}",module="{module}"}}' in text
    assert 'sluice_decision_seconds_bucket{le="+Inf"} 1' in text and "sluice_decision_seconds_count 1" in text
    reasons = set(re.findall(r'^sluice_failures_total\{reason="(\w+)"\}', text, re.MULTILINE))
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as document:
        table = re.findall(r"^\| ([a-z_, ]+) \| [^|]+ \| (?:5B|-) \|", document.read(), re.MULTILINE)
    assert reasons == {label for cell in table for label in cell.split(", ")}


LAYOUT = r"""Server Time         : \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d
Uptime              : \S+
Num Sessions        : \d+ \(\+\d+\) peak=\d+
Num Rejected        : ruleset=\d+, timeout=\d+, upstream=\d+
Conn Accepts        : \d+ \(\+\d+\)
Name Resolves       : \d+ \(\+\d+\)
Requests            : \d+ \([+-]\d+\), Rx \S+, Tx \S+
API Requests        : \d+ \([+-]\d+\), Rx \S+, Tx \S+
Handshake Dial      : Rx \S+, Tx \S+
Traffic             : Up \S+, Down \S+
API Client          : \d+ reqs, Rx \S+, Tx \S+
Ruleset Allocated   : \S+ < 64\.0MiB \(\S+ objects\)
Ruleset Threads     : \d+ \(peak \d+\)
Ruleset Events      : P50=\S+ P90=\S+ P99=\S+ MAX=\S+
Connect Latency     : (P50=\S+ P90=\S+ P99=\S+ MAX=\S+|\(never\))
Accept Rate         : \d+\.\d/s \([+-]\d+\.\d/s\)
Request Rate        : \d+\.\d/s \(API[+-]\d+\.\d/s\)
Reject Rate         : ruleset=\d+\.\d/s, timeout=\d+\.\d/s, upstream=\d+\.\d/s
Throughput          : Up \S+/s, Down \S+/s
Server Load         : (\d+\.\d{3}% \(last \S+\)|\(unknown\))
"""


def test_layout_of_the_text(ruled, origin):
    """Line by line, as scrapers of neosocksd read it; before the first connection and after it."""
    proxy, api = ruled(DIRECT, "--memlimit", "64")
    for _ in range(2):
        text = api.post("/stats?nobanner=1&runtime=1").text
        assert re.fullmatch(LAYOUT, text), text
        wire.through_socks5(proxy.address, "127.0.0.1", origin().port).close()
    assert re.fullmatch(r"neosocksd \S+ \(sluice \S+\)\n  \S.*\n\n(.|\n)*", api.get("/stats").text)
    assert re.fullmatch(r"Difference          : -?\S+ \(-?\S+ objects\)\nRuleset Allocated   : .*\nRuleset Threads     : .*\n"
                        r"Ruleset Events      : .*\nTime Cost           : \S+\n", api.post("/ruleset/gc").text)


def test_metrics(ruled, origin):
    proxy, api = ruled("return { route = function(a) return a end, metrics = function() return '# TYPE mine counter\\nmine 7\\n' end }")
    wire.through_socks5(proxy.address, "127.0.0.1", origin().port).close()
    answer = api.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    names = families(answer.text)
    assert names[0] == "neosocksd_sessions_active" and names[-1] == "mine" and "sluice_decision_seconds" in names
    assert 'sluice_failures_total{reason="refused"} 0' in answer.text


def test_promtool_likes_the_metrics(ruled, origin):
    promtool = require("promtool", "prometheus")
    proxy, api = ruled(DIRECT, "--workers", "2")
    wire.through_socks5(proxy.address, "127.0.0.1", origin().port).close()
    text = api.get("/metrics").text
    assert "neosocksd_connect_latency_seconds_sum" in text
    done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr
    done = subprocess.run([promtool, "check", "metrics"], input=text + "# TYPE x counter\nx 1\n", text=True, capture_output=True,
                          timeout=60)
    assert done.returncode != 0  # it would have told us


def test_names_are_counted_once(ruled, dns):
    """A name that nobody answers for has failed once, though that was for want of time; one that is still sought is not found."""
    server = dns()
    server.add("there.test", "127.0.0.1")
    server.silent.add("silent.test")
    _, api = ruled(DIRECT, "-t", "5", "--nameserver", server.text)
    found = []

    def look():
        found.append(int(re.search(r"^neosocksd_dns_success_total (\d+)$", api.get("/metrics").text, re.MULTILINE).group(1)))

    assert "127.0.0.1" in api.call("return await.resolve('there.test')")
    api.post("/ruleset/invoke", "neosocksd.async(print, await.resolve, 'silent.test')")
    look()
    assert process.wait_until(lambda: re.search(r"^Name Resolves       : 1 \(\+1\)$", api.get("/stats").text, re.MULTILINE))
    look()
    assert found == [1, 1]
    assert api.call("local s = neosocksd.stats() return s.num_dns_query, s.num_dns_success").endswith("2,1")
    assert api.get("/stats?format=json").json()["dns"]["timeouts"] == 1


# --- the ruleset ---

def test_invoke(ruled):
    _, api = ruled(DIRECT)
    answer = api.post("/ruleset/invoke", "x = 1 _G.y = 2")
    assert (answer.status, answer.body) == (200, b"")
    assert api.call("return x, y") == "return true,nil,2"
    for code, part in [("error('no')", "(invoke):1: no"), ("error()", "(nil)"), ("error({})", "(error object is not a string)"),
                       ("await.sleep(1)", "not in asynchronous routine"), ("syntax error", "(invoke):1: syntax error"),
                       ("\x1bLua", "attempt to load a binary chunk (mode is 't')")]:
        answer = api.post("/ruleset/invoke", code)
        assert answer.status == 500 and part in answer.text, answer.text


def test_update(ruled):
    _, api = ruled(DIRECT)
    assert re.fullmatch(r"Time Cost           : \S+\n", api.update("return { ... }").text)
    assert api.call("return ruleset[1]") == 'return true,"ruleset"'
    assert api.post("/ruleset/update", "return 1").text == "ruleset: expected table, got number"
    assert api.call("return ruleset[1]") == 'return true,"ruleset"'
    assert ":1: here" in api.post("/ruleset/update?chunkname=%40my.lua", "error('here')").text
    api.update("return { name = ... }", "?module=sample")
    assert api.call("return require('sample').name, sample") == 'return true,"sample",nil'
    api.call("_G.sample = require('sample')")
    api.update("return { name = 'new' }", "?module=sample")
    assert api.call("return require('sample').name, sample.name") == 'return true,"new","new"'
    api.update("", "?module=nothing")
    assert api.call("return require('nothing')") == "return true,true"


def test_rpcall(ruled):
    proxy, api = ruled(DIRECT)
    assert api.call("return 1, nil, 'x'") == 'return true,1,nil,"x"'
    digest = hashlib.sha256(b"return 1, nil, 'x'").hexdigest()
    assert re.search(r"api: 127\.0\.0\.1:\d+: /ruleset/rpcall rpcall, sha256 " + digest, proxy.log())
    assert api.call("") == "return true"
    assert api.call("error('broken', 0)") == 'return false,"broken"'
    assert api.call("return print") .startswith('return false,"function: ')
    assert api.call("await.sleep(0.05) await.idle() return 'later'") == 'return true,"later"'
    assert api.post("/ruleset/rpcall", "(", {"Content-Type": scripts.RPC_TYPE}).status == 500
    for kind in [None, "text/plain", "application/x-neosocksd-rpc", "application/x-neosocksd-rpc; version=2"]:
        assert api.post("/ruleset/rpcall", "return 1", {"Content-Type": kind} if kind else {}).status == 400
    for kind in ["Application/X-Neosocksd-RPC; Version=\"1\"", "application/x-neosocksd-rpc;a=b; version=1"]:
        assert api.post("/ruleset/rpcall", "return 1", {"Content-Type": kind}).body == b"return true,1"


def test_rpcall_that_takes_too_long(ruled):
    _, api = ruled(DIRECT, "-t", "5")
    start = time.monotonic()
    assert api.post("/ruleset/rpcall", "await.sleep(60)", {"Content-Type": scripts.RPC_TYPE}).status == 504
    assert time.monotonic() - start < 30  # and not the minute that it sleeps
    assert api.call("return neosocksd.stats().num_thread_active") == "return true,1"


def test_peer_that_does_not_wait(ruled):
    """Up to 1.4.3 neosocksd closes when it has sent an invoke: it is executed all the same."""
    _, api = ruled(DIRECT)
    code = b"_G.done = (_G.done or 0) + 1"
    for _ in range(20):
        client = raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(code), code))
        client.close()
    assert process.wait_until(lambda: api.call("return done") == "return true,20")


def test_peer_that_closes_behind_any_length(ruled):
    _, api = ruled(DIRECT)
    for size in [0, 60000, 70000, 1 << 20, 4 << 20]:
        code = b"_G.done = (_G.done or 0) + 1 --"
        code += b"x" * max(0, size - len(code))
        raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(code), code)).close()
    assert process.wait_until(lambda: api.call("return done") == "return true,5")


def test_half_closed_peer_is_answered(shared_ruled):
    _, api = shared_ruled(DIRECT)
    code = b"await.sleep(0.2) return 7"
    client = raw(api, b"POST /ruleset/rpcall HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        scripts.RPC_TYPE.encode(), len(code), code)).shut()
    assert client.read_all().endswith(b"\r\n\r\nreturn true,7")


# --- HTTP ---

def test_keep_alive_and_pipelining(shared_ruled):
    _, api = shared_ruled(DIRECT)
    client = raw(api, b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3 + b"GET /healthy HTTP/1.1\r\nConnection: close\r\n\r\n")
    answers = client.read_all().lower()
    assert answers.count(b"http/1.1 200 ok") == 4
    assert answers.count(b"\r\nconnection: keep-alive\r\n") == 3 and answers.count(b"\r\nconnection: close\r\n") == 1


def test_without_host_and_absolute(shared_ruled):
    _, api = shared_ruled(DIRECT)
    assert raw(api, b"GET /healthy HTTP/1.1\r\nConnection: close\r\n\r\n").read_all().startswith(b"HTTP/1.1 200")
    assert raw(api, b"GET http://127.0.0.1/healthy HTTP/1.1\r\nConnection: close\r\n\r\n").read_all().startswith(b"HTTP/1.1 200")
    assert raw(api, b"GET http://evil.test/healthy HTTP/1.1\r\nConnection: close\r\n\r\n").read_all().startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("url", ["/stats?q=%zz", "/stats?q=%", "/stats?%4", "/healthy%00", "/stats?q=a%00b", "*"])
def test_wrong_urls(shared_ruled, url):
    _, api = shared_ruled(DIRECT)
    head = raw(api, f"GET {url} HTTP/1.1\r\n\r\n".encode()).read_head()
    assert head.startswith(b"HTTP/1.1 400") and b"Content-Length: " in head
    assert api.get("/%68ealthy").status == 200


@pytest.mark.parametrize("fields", [b"Host: localhost\r\nHost: evil.test\r\n", b"Content-Length: 3\r\nContent-Length: 4\r\n",
                                    b"Content-Length: -1\r\n", b"Content-Length: 1x\r\n", b"Content-Length: \r\n"])
def test_doubtful_fields(shared_ruled, fields):
    _, api = shared_ruled(DIRECT)
    client = raw(api, b"POST /ruleset/invoke HTTP/1.1\r\n" + fields + b"\r\nx=1")
    assert client.read_head().startswith(b"HTTP/1.1 400")


def test_a_refusal_reaches_who_is_still_sending(ruled):
    _, api = ruled(DIRECT)
    for size in [10, 100_000, 4 << 20]:
        client = raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nHost: evil.test\r\nContent-Length: %d\r\n\r\n" % size)
        time.sleep(0.1)
        assert client.send(b"x" * size).read_all().startswith(b"HTTP/1.1 403"), size
    client = raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    assert client.read_all().startswith(b"HTTP/1.1 403")  # nobody asks for what is thrown away


def trickle(client, seconds):
    """How long a client lasts that sends an octet now and then."""
    start = time.monotonic()
    try:
        while time.monotonic() - start < seconds:
            client.send(b"a")
            time.sleep(0.2)
    except OSError:
        pass
    return time.monotonic() - start


def test_slow_requests_have_an_end(ruled):
    """All connections that there are, each sending an octet now and then: the operator gets in all the same."""
    proxy, api = ruled(DIRECT, "-t", "5")
    crowd = [raw(api, b"GET /hea") for _ in range(255)]
    body = raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
    start = time.monotonic()
    assert trickle(body, 60) < 50
    assert api.get("/healthy").status == 200 and time.monotonic() - start < 55
    for client in [*crowd, body]:
        client.close()
    assert proxy.flat()


def test_idle_connections(ruled):
    """One that may be used again is kept for the timeout; one whose client has gone, for a moment."""
    proxy, api = ruled(DIRECT, "-t", "20")
    connection = api.connect()
    for pause in [6, 0]:
        connection.request("GET", "/healthy")
        assert connection.getresponse().read() == b""
        time.sleep(pause)
    before = proxy.sockets()
    for _ in range(20):
        raw(api, b"GET /healthy HTTP/1.1\r\n\r\n").close()
    assert process.wait_until(lambda: proxy.sockets() <= before, timeout=15 / process.SLOW)
    connection.close()


@pytest.mark.parametrize("descriptors", [220, 4000])
def test_more_callers_than_there_is_room_for(ruled, descriptors):
    """Out of descriptors, or at the limit of connections: when callers have gone, the next ones are heard."""
    require("prlimit", "util-linux")
    proxy, api = ruled(DIRECT, "--workers", "1", prefix=("prlimit", f"--nofile={descriptors}:{descriptors}"))
    for _ in range(2):
        crowd = []
        for _ in range(300):
            client = socket.socket()  # the backlog fills up: those behind it would wait for a long time
            client.setblocking(False)
            client.connect_ex(api.address)
            crowd.append(client)
        process.wait_until(lambda: proxy.descriptors() >= min(descriptors, 256))
        used = proxy.cpu()
        time.sleep(0.5)
        assert proxy.cpu() - used < 0.25  # it waits for room, it does not ask for it all the time
        for client in crowd:
            client.close()
        assert process.wait_until(lambda: api.get("/healthy").status == 200)
        assert api.post("/ruleset/invoke", "x=1").status == 200
    assert proxy.flat()


def test_no_descriptor_for_who_knocks(ruled):
    """A script has taken all descriptors: a caller waits until there is one, and we do not turn in circles meanwhile."""
    require("prlimit", "util-linux")
    proxy, api = ruled(DIRECT, prefix=("prlimit", "--nofile=220:220"))
    assert api.post("/ruleset/invoke", """
        neosocksd.async(print, function()
            local files = {}
            await.sleep(0.3)
            for i = 1, 300 do files[i] = io.open('/dev/null') end
            await.sleep(3)
            for _, file in ipairs(files) do file:close() end
        end)""").status == 200
    assert process.wait_until(lambda: proxy.descriptors() >= 219)
    client = raw(api, b"GET /healthy HTTP/1.1\r\nConnection: close\r\n\r\n")
    used = proxy.cpu()
    time.sleep(1)
    assert proxy.cpu() - used < 0.25
    assert client.read_all().startswith(b"HTTP/1.1 200")
    assert proxy.flat()


def test_body_limits(shared_ruled):
    _, api = shared_ruled(DIRECT)
    assert raw(api, b"POST /ruleset/invoke HTTP/1.1\r\n\r\n").read_head().startswith(b"HTTP/1.1 411")
    assert raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nContent-Length: 4194305\r\n\r\n").read_head().startswith(b"HTTP/1.1 413")
    assert raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").read_head().startswith(b"HTTP/1.1 501")
    client = raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nContent-Length: 1\r\nExpect: magic\r\nConnection: close\r\n\r\n")
    answer = client.read_all()
    assert answer.startswith(b"HTTP/1.1 417") and b"that expectation cannot be met" in answer
    client = raw(api, b"POST /ruleset/invoke HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert client.read_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.send(b"x=1").read_head().startswith(b"HTTP/1.1 200")
    big = "-- " + "x" * ((4 << 20) - 3)
    assert api.post("/ruleset/invoke", big).status == 200


def test_content_codings(ruled):
    _, api = ruled(DIRECT)
    code = b"_G.got = #'" + b"x" * 5000 + b"'"
    for coding, data in [("deflate", zlib.compress(code)), ("gzip", gzip.compress(code)), ("identity", code), ("GZIP", gzip.compress(code))]:
        assert api.post("/ruleset/invoke", data, {"Content-Encoding": coding}).status == 200
        assert api.call("local g = got got = nil _G.got = nil return g") == "return true,5000"
    assert api.post("/ruleset/invoke", code, {"Content-Encoding": "br"}).status == 415
    assert api.post("/ruleset/invoke", code, {"Content-Encoding": "deflate"}).status == 400
    assert api.post("/ruleset/invoke", scripts.bomb(80), {"Content-Encoding": "deflate"}).status == 413
    for accept, coding in [("deflate", "deflate"), ("gzip, deflate", "deflate"), ("gzip", "gzip"), ("*", "deflate"), ("br", None),
                           ("deflate;q=0.5", "deflate"), ("deflate; q=0, gzip;q=0.1", "gzip"), ("identity, *;q=0", None)]:
        answer = api.get("/stats", Accept_Encoding=accept)
        assert answer.headers.get("content-encoding") == coding and answer.text.startswith("neosocksd 1.5.1 (sluice ")
    for size in [241, 242, 300]:  # from 256 octets on
        answer = api.post("/ruleset/rpcall", f"return ('x'):rep({size})", {"Content-Type": scripts.RPC_TYPE, "Accept-Encoding": "deflate"})
        assert answer.text == 'return true,"' + "x" * size + '"'
        assert answer.headers.get("content-encoding") == ("deflate" if size >= 242 else None), size


def test_slow_and_broken_clients(ruled):
    proxy, api = ruled(DIRECT)
    crowd = [raw(api, b"GET /hea") for _ in range(50)]
    assert api.get("/healthy").status == 200
    for client in crowd:
        client.reset()
    for garbage, status in [(b"\0\1\2\3\r\n\r\n", None), (b"GET\r\n\r\n", None), (b"\xff" * 70000, b"414"), (b"GET / HTTP/9.9\r\n\r\n", b"505")]:
        try:
            answer = raw(api, garbage).shut().read_all()
        except OSError as error:  # closed before it had read all of that
            assert len(garbage) == 70000 and error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN), error
            continue
        assert answer.split(b" ")[1:2] == ([status] if status else []), answer
    assert api.get("/healthy").status == 200
    assert proxy.flat()


def test_full_proxy_does_not_lock_the_operator_out(ruled):
    proxy, api = ruled(DIRECT, "--max-sessions", "1")
    client = wire.greet(wire.Client(proxy.address))
    assert api.get("/stats").status == 200
    client.close()


# --- who may call ---

@pytest.mark.parametrize("headers,status", [
    ({"Host": "evil.test"}, 403), ({"Host": "evil.test:9080"}, 403), ({"Host": "localhost"}, 200), ({"Host": "LOCALHOST:1"}, 200),
    ({"Host": "127.0.0.1:5"}, 200), ({"Host": "[::1]:5"}, 200), ({"Host": "192.0.2.1"}, 403), ({"Host": "127.0.0.1.evil.test"}, 403),
    ({"Host": "localhost", "Origin": "http://evil.test"}, 403), ({"Host": "localhost", "Origin": "null"}, 403),
    ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200), ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"Host": "localhost", "Sec-Fetch-Site": "same-origin"}, 200)])
def test_pages_of_others(shared_ruled, headers, status):
    _, api = shared_ruled(DIRECT)
    assert api.ask("GET", "/stats", headers=headers).status == status
    assert api.ask("POST", "/ruleset/invoke", "x=1", headers).status == status


def test_tokens(ruled, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("# people\nsecret-admin\nsecret-read read # dashboards\n")
    tokens.chmod(0o600)
    proxy, api = ruled(DIRECT, "--api-token-file", str(tokens))
    admin, read = {"Authorization": "Bearer secret-admin"}, {"Authorization": "bearer secret-read"}
    for headers in [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Basic c2VjcmV0"},
                    {"Authorization": "secret-admin"}, {"Authorization": "Bearer secret-admin2"}]:
        answer = api.ask("GET", "/stats", headers=headers)
        assert answer.status == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    assert api.ask("GET", "/stats", headers=read).status == api.ask("GET", "/stats", headers=admin).status == 200
    assert api.ask("POST", "/ruleset/invoke", "x=1", read).status == 403
    assert api.ask("POST", "/ruleset/invoke", "x=1", {**admin, "Host": "box.example"}).status == 200
    assert re.search(r"api: 127\.0\.0\.1:\d+, token [0-9a-f]{8}: /ruleset/invoke invoke, sha256 [0-9a-f]{64}", proxy.log())
    assert "secret" not in proxy.log()
    tokens.write_text("other\n")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "1 token in force" in proxy.log())
    assert api.ask("GET", "/stats", headers=admin).status == 401
    assert api.ask("GET", "/stats", headers={"Authorization": "Bearer other"}).status == 200
    tokens.write_text("other forever\n")
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: "neither read nor admin" in proxy.log())
    assert api.ask("GET", "/stats", headers={"Authorization": "Bearer other"}).status == 200


def test_tokens_between_peers(ruled, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("between-us\n")
    tokens.chmod(0o600)
    _, one = ruled(DIRECT, "--api-token-file", str(tokens), name="one.lua")
    _, two = ruled(DIRECT, name="two.lua")
    where = f"127.0.0.1:{one.address[1]}"
    assert two.call(f"local ok, f = await.invoke('return 7', 'http://between-us@{where}') return ok, f()") == "return true,true,true,7"
    assert two.call(f"return await.invoke('return 7', '{where}')").startswith('return true,false,"HTTP/1.1 401')


@pytest.mark.parametrize("address", ["0.0.0.0:{port}", ":{port}", "[::]:{port}"])
def test_open_addresses_need_tokens(address, tmp_path):
    """A start and --check say the same, wherever the address comes from."""
    api, listener = address.format(port=process.free_port()), f"127.0.0.1:{process.free_port()}"
    (tmp_path / "rules.lua").write_text(DIRECT)
    (tmp_path / "c.lua").write_text(f"return {{ listen = '{listener}', restapi = '{api}' }}")
    for words in [["--api", api], ["-l", listener, "--api", api], ["-l", listener, "--api", api, "-r", str(tmp_path / "rules.lua")],
                  ["-c", str(tmp_path / "c.lua")]]:
        for mode in [[], ["--check"]]:
            code, out, err = process.run(*words, *mode)
            assert code == 1 and "valid" not in out and err.count("give --api-token-file") == 1, (words, mode, err)


def test_unusable_token_files(tmp_path):
    (tmp_path / "empty").write_text("# nothing\n")
    (tmp_path / "rules.lua").write_text(DIRECT)
    for name in ["empty", "none"]:
        words = ["-l", f"127.0.0.1:{process.free_port()}", "--api", f"127.0.0.1:{process.free_port()}",
                 "--api-token-file", str(tmp_path / name)]
        for more in [[], ["--check"], ["-r", str(tmp_path / "rules.lua")], ["-r", str(tmp_path / "rules.lua"), "--check"]]:
            code, out, err = process.run(*words, *more)
            assert code == 1 and "valid" not in out and "--api-token-file" in err and err.count("\n") == 1, (more, err)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_token_file_of_somebody_else(tmp_path):
    """It is read by the user of -u, so that is who --check reads it as."""
    (tmp_path / "tokens").write_text("secret\n")
    (tmp_path / "tokens").chmod(0o600)
    words = ["-l", f"127.0.0.1:{process.free_port()}", "--api", f"127.0.0.1:{process.free_port()}",
             "--api-token-file", str(tmp_path / "tokens")]
    assert process.run(*words, "--check")[0] == 0
    for mode in [[], ["--check"]]:
        code, out, err = process.run(*words, "-u", "nobody:", *mode)
        assert code == 1 and out == "" and "the user of -u has to be able to read it" in err, err


def test_check_needs_no_ports(ruled, tmp_path):
    """Whoever is to be replaced still has them."""
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    tokens.chmod(0o600)
    proxy, api = ruled(DIRECT)
    assert process.run("-l", "%s:%d" % proxy.address, "--api", "%s:%d" % api.address, "--api-token-file", str(tokens),
                       "--check") == (0, "configuration is valid\n", "")


def test_port_in_use(origin):
    code, _, err = process.run("-l", f"127.0.0.1:{process.free_port()}", "--api", f"127.0.0.1:{origin().port}")
    assert code == 1 and "another process listens there" in err


def test_unix_socket(sluice, tmp_path):
    path = str(tmp_path / "api")
    proxy = sluice("--api", f"unix:{path}")
    api = scripts.Api(path)
    assert api.get("/stats", Host="whatever.test").status == 200
    assert api.post("/ruleset/gc").status == 500  # there is none
    assert api.ask("DELETE", "/sessions/0-0-0").status == 404
    assert f"api: uid {os.getuid()}, pid {os.getpid()}: /sessions 0-0-0" in proxy.log()
    proxy.finish()
    assert not os.path.exists(path)
    stale = socket.socket(socket.AF_UNIX)  # what a crash leaves behind is no obstacle
    stale.bind(path)
    stale.close()
    sluice("--api", f"unix:{path}")
    assert scripts.Api(path).get("/healthy").status == 200


# --- sessions ---

def test_sessions(ruled, origin):
    target = origin()
    proxy, api = ruled(DIRECT, "--workers", "2")
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(25)]
    clients[0].send(b"12345")
    assert clients[0].read(5) == b"12345"
    named = wire.greet(wire.Client(proxy.address), b"us\xffer", b"x").send(wire.socks5("127.0.0.1", target.port))
    assert wire.read_socks5_reply(named)[0] == 0
    handshake = wire.greet(wire.Client(proxy.address))
    rows, query = [], "/sessions?limit=7"
    while True:
        page = api.get(query).json()
        assert len(page["sessions"]) <= 7
        rows += page["sessions"]
        if not page["next"]:
            break
        query = "/sessions?limit=7&cursor=" + page["next"]
    assert len(rows) == 27 and len({row["id"] for row in rows}) == 27
    by_client = {row["client"]: row for row in rows}
    row = by_client["%s:%d" % clients[0].socket.getsockname()]
    assert row["bytes"] == {"up": 5, "down": 5} and row["state"] == "relay" and row["target"] == f"127.0.0.1:{target.port}"
    assert row["protocol"] == "socks5" and row["path"] == {"up": "copy", "down": "copy"} and row["age"] >= 0
    assert by_client["%s:%d" % named.socket.getsockname()]["user"] == "us?er"
    assert by_client["%s:%d" % handshake.socket.getsockname()]["state"] == "request"
    assert api.ask("DELETE", "/sessions/" + row["id"]).status == 204
    assert clients[0].ends_with() == "reset"
    assert api.ask("DELETE", "/sessions/" + row["id"]).status == 404
    for bad in ["0-0", "x", "0-0-0-0", "ffffffff-0-0", "0-ffffff-0", "-", "0-0-zz"]:
        assert api.ask("DELETE", "/sessions/" + bad).status == 404
    for bad in ["limit=0", "limit=1001", "limit=x", "cursor=1", "cursor=0-0-0", "limit="]:
        assert api.get("/sessions?" + bad).status == 400, bad
    for client in [*clients[1:], named, handshake]:
        client.close()


def test_sessions_show_rule_and_chain(ruled, sluice, origin):
    target, hops = origin(), [sluice() for _ in range(2)]
    proxy, api = ruled(f"""
        _G.libruleset = require("libruleset")
        _G.redirect_name = {{ {{ match.host("far.test"), rule.redirect("127.0.0.1:{target.port}",
            "socks5://someone:secret@127.0.0.1:{hops[0].port}", "http://127.0.0.1:{hops[1].port}"), "by way of two" }} }}
        return libruleset""")
    client = wire.through_socks5(proxy.address, b"far.test", 80)
    row = api.get("/sessions").json()["sessions"][0]
    assert row["rule"] == "by way of two" and row["hops"] == 2 and row["target"] == "far.test:80"
    assert row["chain"] == [f"socks5://127.0.0.1:{hops[0].port}", f"http://127.0.0.1:{hops[1].port}"]
    direct = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    rows = {row["target"]: row for row in api.get("/sessions").json()["sessions"]}
    assert rows[f"127.0.0.1:{target.port}"]["rule"] is None and rows[f"127.0.0.1:{target.port}"]["chain"] == []
    assert api.update("return {}").status == 200  # it outlives the ruleset that let it in
    assert {row["rule"] for row in api.get("/sessions").json()["sessions"]} == {"by way of two", None}
    for one in [client, direct]:
        one.close()


def test_sessions_show_the_chain_of_the_command_line(sluice, origin):
    hop, target, port = sluice(), origin(), process.free_port()
    proxy = sluice("-x", f"socks4a://127.0.0.1:{hop.port}", "--api", f"127.0.0.1:{port}")
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    row = scripts.Api(("127.0.0.1", port)).get("/sessions").json()["sessions"][0]
    assert (row["hops"], row["chain"], row["rule"]) == (1, [f"socks4a://127.0.0.1:{hop.port}"], None)
    client.close()


# --- the document ---

def documented():
    with open(os.path.join(ROOT, "docs", "openapi.yaml"), encoding="utf-8") as text:
        return yaml.safe_load(text)["paths"]


def disagreements(value, schema, schemas, where):
    """What a value has that its schema does not, and the other way round: a small part of OpenAPI, but strict."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    if value is None and schema.get("nullable"):
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r}"
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{where}: {value!r} is no {kind}"
    elif kind == "array":
        for item in value:
            yield from disagreements(item, schema["items"], schemas, where + "[]")
    elif kind == "object" and "properties" in schema:
        for name in value.keys() ^ schema["properties"].keys():
            yield f"{where}.{name} is missing on one side"
        for name in value.keys() & schema["properties"].keys():
            yield from disagreements(value[name], schema["properties"][name], schemas, f"{where}.{name}")
    elif kind == "object":
        for name, item in value.items():
            yield from disagreements(item, schema["additionalProperties"], schemas, f"{where}.{name}")


@pytest.mark.parametrize("path,name", [("/stats?format=json", "Stats"), ("/sessions?limit=1", "Sessions"), ("/history", "History"), ("/limits", "Limits"), ("/limits/total", "Limit"),
                                       ("/upstreams", "Upstreams")])
def test_json_is_what_the_document_says(ruled, origin, path, name):
    proxy, api = ruled(DIRECT, "--workers", "2", "--limit", "total: quota=5GiB/month rate=1000/s", "--upstream", "pool=127.0.0.1:1")
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", origin().port) for _ in range(2)]
    with open(os.path.join(ROOT, "docs", "openapi.yaml"), encoding="utf-8") as text:
        schemas = yaml.safe_load(text)["components"]["schemas"]
    assert process.wait_until(lambda: api.get("/history").json()["minutes"]["uptime"])
    answer = api.get(path).json()
    assert list(disagreements(answer, schemas[name], schemas, name)) == []
    assert list(disagreements({"sessions": [{}], "next": 1}, schemas["Sessions"], schemas, ""))  # it does look
    for client in clients:
        client.close()


def test_every_route_is_documented():
    with open(os.path.join(ROOT, "api", "endpoints.c"), encoding="utf-8") as source:
        rows = re.findall(r'\{\.path = "([^"]+)",(.*?)\.(?:handle|outside)', source.read(), re.DOTALL)
    paths = documented()
    assert len(rows) >= 10
    for path, rest in rows:
        if "takes_id" in rest:
            path += "/{id}"
        names = [name for name, flag in [("get", "READ"), ("head", "READ"), ("post", "CALL_POST"), ("delete", "CALL_DELETE"), ("put", "CALL_PUT")]
                 if re.search(r"\.methods = [^,]*\b" + flag, rest)]
        for name in names:
            assert name in paths[path], (name, path)
