"""What rulesets and scrapers that were written for neosocksd rely on: each was compared with the original on the same input."""
import json
import re
import time

import pytest

import process
import scripts
import wire

GIVES_UP = """
_G.words = {}
local function handler(addr)
    table.insert(words, { await.forward(addr) })
    return nil
end
return { resolve = handler, route = handler }
"""


def counters(api):
    return api.call("local s = neosocksd.stats() return s.num_reject_ruleset, s.num_reject_timeout, s.num_reject_upstream, "
                    "s.num_forward_failed")


def test_a_ruleset_that_tries_and_gives_up_has_rejected(ruled):
    """The client is told what went wrong; the contract's counters call it a rejection."""
    dead = process.free_port()
    proxy, api = ruled(GIVES_UP)
    for _ in range(2):
        client = wire.greet(wire.Client(proxy.address)).send(wire.socks5("127.0.0.1", dead))
        assert client.read_all() == wire.socks5_failure(5)
    connect = wire.Client(proxy.address).send(wire.http_connect("127.0.0.1", dead))
    assert wire.status_of(connect.read_all())[0] == 502
    assert counters(api) == "return true,3,0,0,3"
    assert "Num Rejected        : ruleset=3, timeout=0, upstream=0" in api.get("/stats").text
    metrics = api.get("/metrics").text
    assert "neosocksd_rejects_ruleset_total 3" in metrics and "neosocksd_rejects_upstream_total 0" in metrics
    everything = api.get("/stats?format=json").json()
    assert everything["failures"]["refused"] == 3 and everything["rejects"] == {"ruleset": 3, "timeout": 0, "upstream": 0}
    assert api.call("return words[1]") == 'return true,{false,"connection failed","refused",}'


def test_a_failure_of_the_servers_own_dial_is_upstream(ruled):
    dead = process.free_port()
    proxy, api = ruled("return { route = function(a) return a end }")
    wire.greet(wire.Client(proxy.address)).send(wire.socks5("127.0.0.1", dead)).read_all()
    assert counters(api) == "return true,0,0,1,0"


def test_false_is_as_nil(ruled):
    proxy, api = ruled("return { route = function() return false end, resolve = function() return false, 'why' end }")
    for host in ["192.0.2.1", b"name.test"]:
        client = wire.greet(wire.Client(proxy.address)).send(wire.socks5(host, 80))
        assert client.read_all() == wire.socks5_failure(1)
    assert counters(api) == "return true,2,0,0,0" and "ruleset error" not in proxy.log()


def test_words_of_forward(ruled, dns):
    """Scripts compare them; behind them, ours, stands the label that metrics have."""
    proxy, api = ruled(GIVES_UP, "--block-outbound", "local", "--nameserver", dns().text)
    wire.greet(wire.Client(proxy.address)).send(wire.socks5("10.9.9.9", 1)).read_all()
    wire.greet(wire.Client(proxy.address)).send(wire.socks5(b"nowhere.test", 1)).read_all()
    assert api.call("return table.unpack(words)") == (
        'return true,{false,"connection blocked by policy","blocked",},{false,"name resolution failed","resolve",}')


def test_calls_of_the_api_are_counted_at_once(ruled):
    """A call sees those before it as answered, and itself as begun; so does what runs between calls."""
    _, api = ruled("""
        _G.seen = {}
        neosocksd.setinterval(0.05)
        return { tick = function()
            local s = neosocksd.stats()
            _G.seen = { s.num_api_request, s.num_api_success }
        end }""")
    read = "local s = neosocksd.stats() return s.num_api_request, s.num_api_success"
    assert [api.call(read) for _ in range(3)] == [f"return true,{n},{n - 1}" for n in (1, 2, 3)]

    def is_even():
        """A tick that comes when the call that reads it has begun sees that one, too."""
        time.sleep(0.1)
        _, *counts = api.call("return table.unpack(seen)").split(",")
        return len(counts) == 2 and counts[0] == counts[1]

    assert process.wait_until(is_even), "a tick in between is behind"
    # one that waits sees what has happened meanwhile
    assert api.call("local s = neosocksd.stats().num_api_success await.sleep(0.01) return neosocksd.stats().num_api_request > s") == (
        "return true,true")


def exchange(api, request):
    with wire.Client(api.address) as client:
        return client.send(request).read_all()


STATS = b"GET /stats?format=json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("request_head", [
    b"GET /healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /healthy HTTP/1.0\r\n\r\n",
    b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"PUT /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    b"GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n",
    b"POST /ruleset/gc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /healthy HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /healthy HTTP/1.0\r\n\r\n",
], ids=["close", "old", "head", "404", "405", "coded", "post", "persists", "old that persists"])
def test_octets_of_the_api_count_heads(ruled, request_head):
    _, api = ruled("return {}")
    first, answer, last = (exchange(api, head) for head in (STATS, request_head, STATS))
    before, after = (json.loads(text.partition(b"\r\n\r\n")[2])["api"]["bytes_out"] for text in (first, last))
    assert after - before == len(first) + len(answer), answer


def test_healthy_answers_any_method(ruled):
    _, api = ruled("return { healthy = function() return nil end }")
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"]:
        head = f"{method} /healthy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        assert exchange(api, head.encode()).startswith(b"HTTP/1.1 200 "), method
        head = f"{method} /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        assert exchange(api, head.encode()).startswith(b"HTTP/1.1 200 " if method in ("GET", "HEAD") else b"HTTP/1.1 4"), method


def test_port_zero_takes_any(sluice, origin):
    """Listeners and the API say which one they took: in the log and in neosocksd.config()."""
    proxy = sluice("-l", "127.0.0.1:0", "--http", "[::1]:0", "--api", "127.0.0.1:0", "--workers", "2", listen=None)
    assert process.wait_until(lambda: proxy.log().count("listening on") == 2 and "API on" in proxy.log())
    socks = re.search(r"listening on 127.0.0.1:(\d+)$", proxy.log(), re.MULTILINE).group(1)
    http = re.search(r"listening on \[::1\]:(\d+)$", proxy.log(), re.MULTILINE).group(1)
    api = scripts.Api(("127.0.0.1", int(re.search(r"API on 127.0.0.1:(\d+)", proxy.log()).group(1))))
    assert int(socks) > 0 and int(http) > 0
    target = origin()
    for _ in range(8):  # by both workers
        with wire.through_socks5(("127.0.0.1", int(socks)), "127.0.0.1", target.port) as client:
            assert client.send(b"x").read(1) == b"x"
    with wire.through_http(("::1", int(http)), "127.0.0.1", target.port) as client:
        assert client.send(b"y").read(1) == b"y"
    assert api.get("/healthy").status == 200


def test_port_zero_in_the_settings(ruled):
    proxy, api = ruled("return {}", "--http", "127.0.0.1:0")
    found = process.wait_until(lambda: re.search(r"listening on 127.0.0.1:(?!%d$)(\d+)$" % proxy.port, proxy.log(), re.MULTILINE))
    port = found.group(1)
    assert api.call("local c = neosocksd.config() return c.http_listen") == f'return true,"127.0.0.1:{port}"'


def test_a_forward_target_without_a_port_is_the_rulesets(ruled, origin):
    target, ports = origin(), [process.free_port() for _ in range(3)]
    proxy, api = ruled(f"""
        _G.asked = {{}}
        local function handler(name)
            return function(addr) table.insert(asked, name .. " " .. addr) return "127.0.0.1:{target.port}" end
        end
        return {{ resolve = handler("resolve"), route = handler("route"), route6 = handler("route6") }}""",
                       "-l", f"127.0.0.1:{ports[0]}", "-f", "192.0.2.1:", "-l", f"127.0.0.1:{ports[1]}", "-f", "name:0",
                       "-l", f"127.0.0.1:{ports[2]}", "-f", "[2001:db8::1]:0")
    for port in ports:
        with wire.Client(("127.0.0.1", port)) as client:
            assert client.send(b"z").read(1) == b"z"
    assert api.call("return table.unpack(asked)") == (
        'return true,"route 192.0.2.1:0","resolve name:0","route6 [2001:db8::1]:0"')


def test_a_verdict_is_kept_for_the_ruleset_that_gave_it(ruled, origin):
    """The old ruleset answers after an update, and wants its answer remembered: the new one is asked all the same."""
    old, new = origin(), origin()
    proxy, api = ruled(f"""return {{ route = function()
        _G.begun = true
        repeat await.sleep(0.01) until _G.asked
        sluice.cache(3600)
        return "127.0.0.1:{old.port}"
    end }}""", "--workers", "1")
    waiting = wire.greet(wire.Client(proxy.address)).send(wire.socks5("192.0.2.1", 80))
    assert process.wait_until(lambda: api.call("return begun") == "return true,true")
    assert api.post("/ruleset/update", f'_G.asked = 0 return {{ route = function() asked = asked + 1 return "127.0.0.1:{new.port}" end }}'
                    ).status == 200
    assert waiting.read(10)[1] == 0, "the old one still answers"
    with wire.through_socks5(proxy.address, "192.0.2.1", 80):
        assert api.call("return asked") == "return true,1"
    waiting.close()
