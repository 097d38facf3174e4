"""What a source may have under way before its request is known: half-open connections, and questions to the resolver."""
import re

import pytest

import process
import wire
from test_keys import failures, serves
from test_udp import ON as UDP
from test_udp import Association, Target

HALF_OPEN = b"\5\1\0"  # a greeting that is answered, and behind which nothing comes


def refused(api):
    found = re.search(r'sluice_connections_refused_total\{reason="half_open"\} (\d+)', api.get("/metrics").text)
    return int(found.group(1))


def row(api, source="127.0.0.1"):
    return api.get(f"/limits/source:{source}").json()


def enter(proxy, source="127.0.0.1"):
    """A client that has begun its handshake; None: it was reset."""
    try:
        client = wire.Client(proxy.address, source=(source, 0)).send(HALF_OPEN)
        if client.read(2) == b"\5\0":
            return client
        client.close()
    except (ConnectionResetError, BrokenPipeError):
        pass
    return None


@pytest.mark.parametrize("workers", [1, 4])
def test_a_source_has_so_many_half_open_connections(ruled, origin, workers):
    """Exactly so many, after a thousand that were refused as before; neither others nor established ones count."""
    proxy, api = ruled(None, "--workers", workers, "--limit", "source: half-open=7")
    target = origin()
    relays = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(20)]
    for _ in range(2):
        assert process.wait_until(lambda: row(api)["half_open"] == 0)
        before, clients = refused(api), [enter(proxy) for _ in range(7)]
        assert None not in clients and row(api)["half_open"] == 7
        assert [enter(proxy) for _ in range(500)] == [None] * 500
        assert refused(api) - before == 500 and row(api)["half_open"] == 7
        other = enter(proxy, "127.0.0.2")
        assert other is not None
        clients[0].send(wire.socks5("127.0.0.1", target.port))
        assert wire.read_socks5_reply(clients[0])[0] == 0
        assert process.wait_until(lambda: row(api)["half_open"] == 6)
        one_more = enter(proxy)
        assert one_more is not None and enter(proxy) is None
        for client in (*clients, other, one_more):
            client.close()
    for client in relays:
        assert client.send(b"alive").read(5) == b"alive"
        client.close()
    assert process.wait_until(lambda: serves(proxy, target))


def test_requests_on_a_kept_connection_are_not_refused(ruled, origin):
    """The next request of a client that is there already makes it half-open again, which cannot be refused."""
    from test_keys import answer_with, get
    proxy, api = ruled(None, "--workers", "1", "--limit", "source: half-open=1")
    target = origin(answer_with(b"body"))
    with wire.Client(proxy.address) as client:
        for _ in range(3):
            client.send(get(target))
            assert b"200 OK" in client.read_head() and client.read(4) == b"body"
        other = enter(proxy)  # it waits between two requests: it is not half-open
        assert other is not None
        client.send(b"GET http://127.0.0.1")  # and now both are
        assert process.wait_until(lambda: row(api)["half_open"] == 2)
        assert enter(proxy) is None
        client.send(get(target)[len(b"GET http://127.0.0.1"):])
        assert b"200 OK" in client.read_head() and client.read(4) == b"body"
        other.close()
    assert process.wait_until(lambda: row(api)["half_open"] == 0)


def test_a_limit_that_comes_later_counts_who_comes_later(ruled, origin):
    proxy, api = ruled(None, "--workers", "1")
    target = origin()
    early = [enter(proxy) for _ in range(3)]
    assert api.ask("PUT", "/limits/source", '{"half-open": 2}').status == 200
    clients = [enter(proxy) for _ in range(2)]
    assert None not in clients and enter(proxy) is None
    assert api.ask("PUT", "/limits/source", '{"half-open": 3}').status == 200
    clients.append(enter(proxy))
    assert clients[2] is not None and enter(proxy) is None
    assert api.ask("DELETE", "/limits/source").status == 204
    clients.append(enter(proxy))
    assert clients[3] is not None
    for client in (*early, *clients):
        client.send(wire.socks5("127.0.0.1", target.port))
        assert wire.read_socks5_reply(client)[0] == 0
        client.close()
    assert process.wait_until(lambda: row(api)["half_open"] == 0)


def ask_name(proxy, name, source="127.0.0.1"):
    return wire.greet(wire.Client(proxy.address, source=(source, 0))).send(wire.socks5(name, 80))


@pytest.mark.parametrize("workers", [1, 4])
def test_a_source_asks_for_so_many_names(ruled, origin, dns, workers):
    server, target = dns(), origin()
    server.silent.add("*")
    proxy, api = ruled(None, "--workers", workers, "-t", "60", "--nameserver", server.text, "--limit", "source: resolving=4")
    for turn in range(2):  # with names of its own, for what times out is remembered for a while
        asking = [ask_name(proxy, f"silent{i}.{turn}.test") for i in range(4)]
        assert process.wait_until(lambda: row(api)["resolving"] == 4)
        before = failures(api, "limit_resolving")
        for i in range(100):
            with ask_name(proxy, f"other{i}.test") as client:
                assert client.read_all() == wire.socks5_failure(2)
        with wire.Client(proxy.address) as client:
            assert wire.status_of(client.send(wire.http_connect("other.test", 80)).read_all())[0] == 429
        assert failures(api, "limit_resolving") - before == 101 and row(api)["resolving"] == 4
        assert serves(proxy, target)  # an address is no question
        other = ask_name(proxy, f"silent.{turn}.test", "127.0.0.2")
        assert process.wait_until(lambda: row(api, "127.0.0.2")["resolving"] == 1)
        for client in (*asking, other):
            client.reset()
        assert process.wait_until(lambda: row(api)["resolving"] == 0)
        assert process.wait_until(lambda: row(api)["half_open"] == 0)
    assert all(name.startswith("silent") for name, _ in server.queries)


def test_names_of_datagrams_are_questions_too(ruled, dns):
    server, target = dns(), Target()
    server.add("known.test", "127.0.0.1")
    server.silent.add("silent.test")
    proxy, api = ruled(None, UDP, "-t", "60", "--nameserver", server.text, "--limit", "source: resolving=1")
    association = Association(proxy)
    association.send(b"one", "known.test", target.port)
    assert association.receive()[0] == b"one"
    assert process.wait_until(lambda: row(api)["resolving"] == 0)
    waiting = ask_name(proxy, "silent.test")
    assert process.wait_until(lambda: row(api)["resolving"] == 1)
    association.send(b"dropped", "unknown.test", target.port)
    association.send(b"two", "127.0.0.1", target.port)
    assert association.receive()[0] == b"two"
    assert [data for data, _ in target.seen] == [b"one", b"two"]
    assert "unknown.test" not in [name for name, _ in server.queries]
    waiting.reset()
    association.close()
    target.close()


def test_no_room_for_the_key_lets_nobody_in(ruled):
    """A full table of keys refuses newcomers, as it does later in their lives: none is let in uncounted."""
    proxy, api = ruled(None, "--workers", "1", "--limit-keys", "16", "--limit", "source: half-open=1")
    clients = []
    while len(clients) < 40 and (client := enter(proxy, f"127.0.1.{len(clients) + 1}")) is not None:
        clients.append(client)
    assert len(clients) == 12  # three quarters
    assert refused(api) == 1
    clients.pop().close()
    assert process.wait_until(lambda: (client := enter(proxy, "127.0.2.1")) is not None and not clients.append(client))
    for client in clients:
        client.close()
