"""/limits: who is bounded by what, what is used of it, and changes that act on sessions which run."""
import json
import signal
import socket
import threading
import urllib.parse

import pytest

import origins
import process
import wire
from test_keys import is_refused, pour, read_until_cut, serves


def put(api, key, **terms):
    return api.ask("PUT", "/limits/" + key, json.dumps({name.replace("_", "-"): value for name, value in terms.items()}))


def all_limits(api, limit=100):
    rows, cursor = [], None
    while True:
        page = api.get(f"/limits?limit={limit}" + (f"&cursor={cursor}" if cursor else "")).json()
        assert len(page["limits"]) <= limit
        rows += page["limits"]
        cursor = page["next"]
        if cursor is None:
            return rows


def test_limits_are_put_shown_and_taken_away(ruled, origin):
    proxy, api = ruled(None, "--limit", "total: down=8Mbit/s connections=9")
    target = origin()
    answer = put(api, "source", connections=2, rate="50/s", quota="5GiB/month")
    assert answer.status == 200
    assert answer.json()["terms"] == {"connections": 2, "rate": "50/s", "quota": "5368709120B/month"}
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(2)]
    assert clients[0].send(b"x" * 1000).read(1000) == b"x" * 1000
    assert is_refused(proxy, target)
    process.becomes(lambda: api.get("/limits/source:127.0.0.1").json()["bytes"], {"up": 1000, "down": 1000})
    row = api.get("/limits/source:127.0.0.1").json()
    assert row["connections"] == 2 and row["refused"] == 1 and row["admitted"] == 2 and not row["each"] and not row["put"]
    assert row["used"] == {"quota": 2000}
    assert put(api, "source:127.0.0.1", connections=3).json()["put"] is True
    assert serves(proxy, target)
    assert {one["key"]: one["each"] for one in all_limits(api)} == {"source": True, "source:127.0.0.1": False, "total": False}
    assert process.wait_until(lambda: api.get("/limits/total").json()["connections"] == 2)  # the last one has been closed
    assert all_limits(api, 1) == all_limits(api)
    assert api.ask("DELETE", "/limits/source:127.0.0.1").status == 204
    assert api.ask("DELETE", "/limits/source:127.0.0.1").status == 404
    assert is_refused(proxy, target)
    assert api.ask("DELETE", "/limits/source").status == 204
    assert serves(proxy, target)
    assert api.get("/limits/user:nobody").status == 404


def test_a_change_acts_on_sessions_that_run(ruled, origin):
    """A transfer that would take hours, faster; then a quota that is used up already."""
    proxy, api = ruled(None, "--workers", "2", "--limit", "total: down=1kB/s")
    target = origin(pour(30000000))
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(4)]
    assert process.wait_until(lambda: api.get("/limits/total").json()["waiting"] >= 1)
    assert put(api, "total", down="1Gbit/s").status == 200
    assert clients[0].read(2000000) == bytes(2000000)
    assert put(api, "total", quota="1MB").status == 200
    for client in clients:
        assert len(read_until_cut(client)) < 30000000
    assert process.wait_until(lambda: api.get("/limits/total").json()["connections"] == 0)
    row = api.get("/limits/total").json()
    assert row["used"]["quota"] == row["bytes"]["up"] + row["bytes"]["down"]
    assert is_refused(proxy, target)
    assert put(api, "total", quota="1GB").status == 200
    assert serves(proxy, target)


def test_figures_follow_a_transfer(ruled, origin):
    """Spliced octets count while they move, not at the end, and never more than were sent."""
    proxy, api = ruled(None, "--limit", "source: down=20MB/s")
    target = origin(pour(30000000))
    client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    read = 0
    while read < 30000000:
        data = client.read(min(5000000, 30000000 - read))
        assert data
        read += len(data)
        # Those of a piece are counted when it has moved, when the client may have read them already.
        assert process.wait_until(lambda: read <= api.get("/limits/source:127.0.0.1").json()["bytes"]["down"] <= 30000000)


@pytest.mark.parametrize("key, terms, text", [
    ("user:", {"connections": 1}, "a name is missing"),
    ("source:nobody", {"connections": 1}, "give an address"),
    ("gold", {}, "nothing is bounded"),
    ("gold", {"speed": "5"}, "an unknown term"),
    ("gold", {"down": 5}, "give a speed"),
    ("gold", {"down": None}, "neither a whole number nor a string"),
    ("gold", {"connections": 1.5}, "neither a whole number nor a string"),
    ("gold", [1], "no JSON object"),
])
def test_what_is_wrong_changes_nothing(ruled, key, terms, text):
    _, api = ruled(None)
    answer = api.ask("PUT", "/limits/" + key, json.dumps(terms))
    assert answer.status == 400 and text in answer.text
    assert all_limits(api) == []


def test_five_kinds_are_too_many(ruled):
    _, api = ruled(None)
    for kind in ["source", "user", "rule", "listener"]:
        assert put(api, kind, connections=5).status == 200
    assert put(api, "total", connections=5).status == 409
    assert put(api, "anything", connections=5).status == 200


def test_names_of_any_octets(ruled, origin):
    proxy, api = ruled(None)
    target = origin()
    for user in [b"a b", b"100%", b"x/y", b"\xff\xfe", b"user:a?b#c"]:
        key = "user:" + urllib.parse.quote(user, safe="!$&'()*+,;=:@")
        assert put(api, urllib.parse.quote(key, safe=":"), connections=0).status == 200
        with wire.Client(proxy.address) as client:
            assert client.send(wire.socks4("127.0.0.1", target.port, user)).read(9) == wire.SOCKS4_REJECTED
        assert api.get("/limits/" + urllib.parse.quote(key, safe=":")).json()["refused"] == 1
    assert len(all_limits(api)) == 5


def test_pages_of_many_keys(ruled):
    _, api = ruled(None)
    for i in range(300):
        assert put(api, f"user:u{i}", connections=1).status == 200
    assert len({row["key"] for row in all_limits(api, 7)}) == 300


def keys_of(api, query):
    return [row["key"] for row in api.get("/limits?" + query).json()["limits"]]


def test_keys_by_their_beginning(ruled):
    """A page is filled with those that begin so, whatever stands between them."""
    _, api = ruled(None)
    assert put(api, "user", connections=7).status == 200
    for i in range(40):
        assert put(api, f"user:al%2520{i}" if i % 4 == 0 else f"target:al{i}.test", connections=1).status == 200
    wanted = {f"user:al%20{i}" for i in range(0, 40, 4)}
    assert set(keys_of(api, "prefix=user:al%2520")) == wanted and set(keys_of(api, "prefix=user:")) == wanted
    assert set(keys_of(api, "prefix=user")) == wanted | {"user"}
    first = api.get("/limits?prefix=user:al&limit=7").json()
    rest = api.get(f"/limits?prefix=user:al&limit=7&cursor={first['next']}").json()
    assert len(first["limits"]) == 7 and rest["next"] is None
    assert {row["key"] for row in first["limits"] + rest["limits"]} == wanted
    assert keys_of(api, "prefix=user:al%25200&limit=1") == ["user:al%200"] and keys_of(api, "prefix=al") == []
    for query in ["prefix=" + "a" * 784, "prefix=", "sort=key", "sort=", "sort=rate&cursor=7"]:
        assert api.get("/limits?" + query).status == 400, query


def test_who_moves_most(ruled, origin):
    """Users without any limit and with one, and rules; what has ended is gone, and so is what only has been asked."""
    script = """return { route = function(address, user)
        if user then sluice.tag(user:sub(1, 1) == "s" and "slow" or "fast") end
        if user == "fast" then sluice.limit("gold", { connections = 5 }) end
        return address end }"""
    proxy, api = ruled(script, "--workers", "2", "--limit", "user:fast: both=4MB/s quota=1GB", "--limit", "user:slow: both=40kB/s")
    target = origin(origins.flood)
    assert api.get("/top").json() == {"top": [], "missed": 0}
    clients = {name: wire.greet(wire.Client(proxy.address), name, b"x").send(wire.socks5("127.0.0.1", target.port))
               for name in [b"silent", b"slow", b"fast", b"\xff<b>"]}
    nobody = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    threads = [threading.Thread(target=swallow, args=(clients[name],)) for name in [b"slow", b"fast"]]
    for thread in threads:
        thread.start()
    def order(query, name="name"):
        return [row[name] for row in next(iter(api.get(query).json().values()))]

    assert process.wait_until(lambda: order("/top")[:2] == ["fast", "slow"] and len(order("/top")) == 4, 30), order("/top")
    rows = {row["name"]: row for row in api.get("/top?limit=1000").json()["top"]}
    assert set(rows) == {"fast", "slow", "silent", "?<b>"} and rows["?<b>"]["key"] == "user:%FF<b>"
    assert all(row["connections"] == 1 for row in rows.values())
    assert rows["silent"]["limit"] is None and rows["fast"]["limit"]["terms"]["both"] == "4000000B/s"
    assert rows["fast"]["limit"]["used"]["quota"] > 0
    assert process.wait_until(lambda: order("/top?by=rule") == ["fast", "slow"] and order("/top?by=rule&limit=1") == ["fast"], 30)
    assert all((row["connections"], row["limit"]) == (2, None) for row in api.get("/top?by=rule").json()["top"])
    first = process.wait_until(lambda: (found := api.get("/limits?sort=rate").json())["limits"][0]["rate"]["down"] > 0 and found, 30)
    assert first["next"] is None and {row["key"] for row in first["limits"]} == {"user:fast", "user:slow", "gold"}
    assert process.wait_until(lambda: keys_of(api, "sort=rate&prefix=user:&limit=1") == ["user:fast"], 30)
    assert keys_of(api, "sort=rate&prefix=user:s") == ["user:slow"]
    for client in clients.values():
        client.socket.shutdown(socket.SHUT_RDWR)  # who reads comes back
    for thread in threads:
        thread.join()
    for client in [*clients.values(), nobody]:
        client.close()
    assert process.wait_until(lambda: api.get("/top").json()["top"] == [], 30)
    for query in ["by=source", "by=", "limit=0", "limit=1001", "limit=x"]:
        assert api.get("/top?" + query).status == 400, query


def swallow(client):
    """Until the test has shut it down, which may be a reset where octets still come."""
    try:
        while client.socket.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass


def test_the_server_stops_while_lists_are_made(ruled):
    """Those that rest are answered, and the end does not wait for them."""
    proxy, api = ruled(None)
    assert put(api, "user:a", connections=1).status == 200
    waiting = [wire.Client(api.address).send(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path) for path in [b"/limits?sort=rate", b"/top", b"/top?by=rule"]]
    assert process.wait_until(lambda: api.get("/stats?format=json").json()["api"]["requests"] >= 5)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    for client in waiting:
        assert client.read_head().split()[1] in (b"503", b"200")
