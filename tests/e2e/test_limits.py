"""Many of them, too many of them: limits, descriptors, slow clients, starts and stops."""
import json
import os
import re
import resource
import signal
import subprocess
import time

import pytest

import origins
import process
import wire


def is_refused(proxy):
    """Whether a fresh connection is turned away at once."""
    try:
        client = wire.Client(proxy.address)
        client.send(b"\5\1\0")
        answer = client.read(2)
        client.close()
        return answer == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


def serves(proxy, target):
    try:
        with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
            client.send(b"ping")
            return client.read(4) == b"ping"
    except (ConnectionResetError, BrokenPipeError, AssertionError):
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_max_sessions(sluice, origin, workers):
    proxy, target = sluice("--max-sessions", "10", "--workers", workers), origin()
    clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(10)]
    for _ in range(20):
        assert is_refused(proxy)
    for client in clients:
        client.send(b"alive")
        assert client.read(5) == b"alive"
    clients.pop().close()
    assert process.wait_until(lambda: serves(proxy, target))
    for client in clients:
        client.close()


def is_let_in(proxy, source, clients):
    """Whether a client from that address gets an answer to its first word; it says nothing more."""
    try:
        client = wire.Client(proxy.address, source=(source, 0)).send(b"\5\1\0")
        clients.append(client)
        return client.read(2) == b"\5\0"
    except (ConnectionResetError, BrokenPipeError):
        return False


def test_one_source_cannot_take_all_handshakes(ruled):
    """Silent clients of one address fill half of what there is; everybody else gets in, and it is counted and logged once."""
    proxy, api = ruled(None, "--max-sessions", "300", "--workers", "1")
    clients = []
    taken = sum(is_let_in(proxy, "127.0.0.1", clients) for _ in range(320))
    assert 100 <= taken <= 200
    for last in range(2, 40):
        assert is_let_in(proxy, f"127.0.0.{last}", clients)
    assert not is_let_in(proxy, "127.0.0.1", clients)
    assert api.get("/stats?format=json").json()["refusals"]["share"] == 321 - taken
    assert proxy.says("handshakes under way")
    assert len([line for line in proxy.log().splitlines() if "handshakes under way" in line]) == 1
    for client in clients:
        client.close()
    clients = []
    assert process.wait_until(lambda: is_let_in(proxy, "127.0.0.1", clients))


def test_max_sessions_counts_handshakes(sluice, origin):
    proxy, target = sluice("--max-sessions", "5", "--workers", "1"), origin()
    clients = [wire.greet(wire.Client(proxy.address)) for _ in range(5)]
    assert is_refused(proxy)
    for client in clients:
        client.close()
    assert process.wait_until(lambda: serves(proxy, target))


def test_peak_is_of_all_workers_at_a_time(ruled):
    """The kernel spreads each crowd over the workers in another way: the sum of their peaks is of no moment."""
    proxy, api = ruled("return {}", "--workers", "4")

    def sessions():
        return api.get("/stats?format=json").json()["sessions"]

    for _ in range(6):
        clients = [wire.greet(wire.Client(proxy.address)) for _ in range(32)]
        for client in clients:
            client.close()
        assert process.wait_until(lambda: sessions()["half_open"] == 0)
    assert sessions()["peak"] == 32
    assert api.call("return neosocksd.stats().num_sessions_peak").endswith(",32")


def test_startups_full(sluice, origin):
    proxy, target = sluice("--max-startups", "3:0:3"), origin()
    clients = [wire.greet(wire.Client(proxy.address)) for _ in range(3)]
    for _ in range(10):
        assert is_refused(proxy)
    clients[0].send(wire.socks5("127.0.0.1", target.port))
    assert wire.read_socks5_reply(clients[0])[0] == 0
    assert process.wait_until(lambda: serves(proxy, target))  # an established session does not count
    for client in clients:
        client.close()


def test_startups_rate(sluice):
    """From start on, rate percent are refused: of 300 some 150."""
    proxy = sluice("--max-startups", "5:50:0")
    clients = [wire.greet(wire.Client(proxy.address)) for _ in range(5)]
    refused = sum(is_refused(proxy) for _ in range(300))
    assert 90 < refused < 210
    for client in clients:
        client.close()


def test_startups_rate_100(sluice, origin):
    proxy, target = sluice("--max-startups", "2:100:0"), origin()
    clients = [wire.greet(wire.Client(proxy.address)) for _ in range(2)]
    for _ in range(20):
        assert is_refused(proxy)
    clients.pop().close()
    assert process.wait_until(lambda: serves(proxy, target))
    for client in clients:
        client.close()


def test_small_descriptor_limit(sluice, origin):
    """As many as descriptors allow, no more; the others are refused, and accepted again when there is room."""
    proxy, target = sluice("--workers", "1", "--relay", "copy", files=128), origin()
    clients = []
    for _ in range(100):
        try:
            client = wire.greet(wire.Client(proxy.address))
            client.send(wire.socks5("127.0.0.1", target.port))
            if wire.read_socks5_reply(client)[0] == 0:
                clients.append(client)
        except (ConnectionResetError, BrokenPipeError, AssertionError):
            pass
    assert 10 <= len(clients) < 64
    assert is_refused(proxy)
    assert_calm(proxy)
    for client in clients:
        client.send(b"alive")
        assert client.read(5) == b"alive"
        client.close()
    assert process.wait_until(lambda: serves(proxy, target))


def test_descriptors_suffice_for_the_sessions_of_all_workers(ruled, origin):
    """The number that the start tells is the process's: beyond it a connection is refused, and the API still answers."""
    target = origin(origins.hold)
    proxy, api = ruled(None, "--workers", "4", "--relay", "copy", "--max-sessions", "100000", files=400)
    told = int(re.search(r"open files suffice for (\d+) sessions only", proxy.log())[1])
    clients = []
    for _ in range(2 * told):
        try:
            client = wire.greet(wire.Client(proxy.address)).send(wire.socks5("127.0.0.1", target.port))
            assert wire.read_socks5_reply(client)[0] == 0
            clients.append(client)
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert told - 4 <= len(clients) <= told + 4  # workers judge side by side
    assert api.get("/ready").status == api.get("/healthy").status == 200
    assert "no descriptor left" not in proxy.log()
    for client in clients:
        client.close()


def is_calm(proxy, seconds=1.0):
    before = proxy.cpu()
    time.sleep(seconds)
    return proxy.cpu() - before < 0.2 * process.SLOW


def assert_calm(proxy, seconds=1.0):
    assert is_calm(proxy, seconds), "it spins"


def test_waiting_for_a_limit_costs_nothing(sluice, origin):
    """A server that has begun its answer while the request waits for its turn: --timeout passes, and that is nobody's
    fault. The timer must not come due again and again."""

    def serve(one, connection):
        origins.read_http_head(connection)
        connection.sendall(b"H")
        return origins.collect(one, connection)

    target = origin(serve)
    proxy = sluice("--timeout", "5", "--limit", "total: up=1kB/s up-burst=1kB")
    clients = [wire.Client(proxy.address) for _ in range(40)]
    for client in clients:
        client.send(b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" % target.port)
        client.send(b"x" * 9000)
    target.wait("connections", 40)
    time.sleep(6)
    assert any(is_calm(proxy) for _ in range(5)), "it spins"  # which it would do in each of those seconds
    for client in clients:
        client.reset()


# EMFILE itself. The pools are sized by the limit, so that it cannot happen by sessions alone: the process inherits a
# hundred descriptors that it knows nothing of.

def exhaust(proxy, target):
    """Opens sessions until their upstreams find no descriptor, then handshakes until accept does not."""
    sessions, handshakes = [], []
    try:
        while len(sessions) < 100:
            client = wire.greet(wire.Client(proxy.address))
            client.send(wire.socks5("127.0.0.1", target.port))
            if wire.read_socks5_reply(client)[0] != 0:
                client.close()
                held = proxy.sockets_at_start + 2 * len(sessions)
                assert process.wait_until(lambda: proxy.sockets() == held)  # it has given that one back
                break
            sessions.append(client)
        while len(handshakes) < 10:
            handshakes.append(wire.greet(wire.Client(proxy.address)))
    except (ConnectionResetError, BrokenPipeError):
        pass
    assert process.wait_until(lambda: "no descriptor left" in proxy.log()), proxy.log()
    assert 20 < len(sessions) < 60 and len(handshakes) < 10
    return sessions, handshakes


@pytest.fixture(params=[1, 2])
def starved(request, sluice, origin):
    """(proxy, target, sessions, handshakes) with no descriptor left."""
    proxy, target = sluice("--workers", request.param, "--relay", "copy", files=200, inherit=100), origin()
    yield (proxy, target, *exhaust(proxy, target))


def test_no_descriptor_left_at_accept(starved):
    proxy, target, sessions, handshakes = starved
    for _ in range(10):
        assert is_refused(proxy)
    assert_calm(proxy)
    # Said, but not for every client: once per worker in each pause of accept, which is 100 ms.
    assert proxy.log().count("no descriptor left") < 40 + 20 * (time.monotonic() - proxy.begin)
    for client in sessions:
        client.send(b"alive")
        assert client.read(5) == b"alive"
    for client in sessions[:3]:
        client.close()
    assert process.wait_until(lambda: serves(proxy, target))  # the limit is what it was
    for client in sessions + handshakes:
        client.close()


def test_no_descriptor_left_for_the_upstream(sluice, origin):
    """Handshakes take one descriptor each; with all but one of them taken, the next one's upstream finds none."""
    proxy, target = sluice("--workers", "1", "--relay", "copy", files=200, inherit=150), origin()
    handshakes = []
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while len(handshakes) < 200:
            handshakes.append(wire.greet(wire.Client(proxy.address)))
    client = handshakes.pop()
    client.send(wire.socks5("127.0.0.1", target.port))
    assert client.read_all() == wire.socks5_failure(1)
    for one in [client, *handshakes]:
        one.close()
    assert process.wait_until(lambda: serves(proxy, target))


def test_no_descriptor_left_for_a_crowd(starved):
    """Hundreds that come while there is no room: none hangs, the CPU rests, and afterwards all is well."""
    proxy, target, sessions, handshakes = starved
    for _ in range(10):
        crowd = []
        for _ in range(30):
            try:
                crowd.append(wire.Client(proxy.address))
            except ConnectionResetError:  # it was quicker than we
                pass
        for client in crowd:
            try:
                client.send(b"\5\1\0")
                assert client.read(2) == b""
            except (ConnectionResetError, BrokenPipeError):
                pass
            client.close()
    assert_calm(proxy)
    for client in sessions + handshakes:
        client.close()
    assert process.wait_until(lambda: serves(proxy, target))


# --- crowds ---

def test_slow_loris(sluice, origin):
    """500 clients that dribble, of each protocol, beside normal traffic."""
    proxy, target = sluice("-t", "60"), origin()
    texts = [b"\4\1\0\x50\x7f\0\0\1" + b"u" * 200, b"\5\xff" + b"\0" * 200, b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nX: " +
             b"x" * 200, b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: " + b"h" * 200]
    crowd = [(wire.Client(proxy.address), texts[i % len(texts)]) for i in range(500)]
    slowest = 0.0
    for turn in range(20):
        for client, text in crowd:
            client.send(text[turn:turn + 1])
        start = time.monotonic()
        assert serves(proxy, target)
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 30 * process.SLOW
    if not process.SANITIZED:
        assert proxy.rss() < 100 << 20
    for client, _ in crowd:
        client.close()
    assert proxy.flat()


def test_idle_crowd(sluice, load, load_origin):
    """9,000 sessions at once; they hold nothing but their two sockets, and go without a trace. Fewer where there are fewer
    descriptors, or more than two workers, whose pipes need some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    flows = 9000 if hard >= 20000 else (hard - 1400) // 2
    proxy = sluice("--max-sessions", "9001", "--no-conn-cache")  # one more asks in the end; descriptors are for sessions alone
    told = re.search(r"open files suffice for (\d+) sessions only", proxy.log())
    if told and (hard < 20000 or len(os.sched_getaffinity(0)) > 2):
        flows = min(flows, int(told[1]) - 1)
    before = proxy.rss()
    crowd = subprocess.Popen([load, "idle", "--via", "socks5", "--proxy", proxy.url, "--target",
                              f"127.0.0.1:{load_origin + 3}", "--flows", str(flows), "--timeout", "200"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        ready = json.loads(crowd.stdout.readline())
        assert ready["open"] == flows and ready["errors"] == 0, ready
        assert proxy.sockets() >= 2 * flows
        if not process.SANITIZED:
            assert proxy.rss() - before < flows * 2048 + (8 << 20)
        assert_calm(proxy)
        with wire.through_socks5(proxy.address, "127.0.0.1", load_origin) as client:
            client.send(b"among many")
            assert client.read(10) == b"among many"
        crowd.stdin.close()
        last = json.loads(crowd.stdout.read().splitlines()[-1])
        assert last["open"] == flows and last["errors"] == 0, last
    finally:
        crowd.kill()
        crowd.wait()
        crowd.stdout.close()
    assert proxy.flat(15)


@pytest.mark.parametrize("way", ["socks5", "http"])
@pytest.mark.parametrize("ending", ["reset", "orderly"])
def test_churn(sluice, load, load_origin, way, ending):
    """Until there were enough of them: how long that takes says something about the machine alone."""
    proxy, count, rounds = sluice(), 0, 0
    while count <= 200:
        rounds += 1
        assert rounds < 60, count
        done = subprocess.run([load, "connect", "--via", way, "--proxy", proxy.url, "--target", f"127.0.0.1:{load_origin}",
                               "--flows", "64", "--seconds", "1", "--timeout", "60", "--close", ending],
                              capture_output=True, text=True, timeout=300)
        result = json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == 0 and result["errors"] == result["timeouts"] == 0, result
        count += result["count"]
    assert proxy.flat()


# --- starts and stops ---

def test_start_and_stop_50_times(origin, tmp_path):
    target = origin()
    port = process.free_port()
    for turn in range(50):
        proxy = process.Sluice(str(tmp_path), "-l", f"127.0.0.1:{port}", listen=None)
        proxy.address = ("127.0.0.1", port)
        try:
            with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
                client.send(b"%d" % turn)
                assert client.read(len(b"%d" % turn)) == b"%d" % turn
                if turn % 2:  # half of them are stopped with a session under way
                    proxy.signal(signal.SIGINT if turn % 4 == 1 else signal.SIGTERM)
                    assert client.ends_with() == "reset"
                    assert proxy.wait() == 0
            proxy.check_descriptors = turn % 2 == 0
        finally:
            proxy.finish()


def test_descriptors_are_flat_after_all_kinds(sluice, origin):
    proxy, target = sluice("--relay", "copy"), origin()
    before = sorted(os.listdir(f"/proc/{proxy.pid}/fd"))
    for _ in range(20):
        for way in wire.WAYS.values():
            with way(proxy.address, "127.0.0.1", target.port) as client:
                client.send(b"x" * 100000)
                assert len(client.read(100000)) == 100000
        assert is_refused(proxy) is False
    assert proxy.flat()
    assert process.wait_until(lambda: len(os.listdir(f"/proc/{proxy.pid}/fd")) == len(before))


def test_pipes_go_back_to_the_pool(sluice, origin):
    proxy, target = sluice("--relay", "splice"), origin(origins.flood)
    for _ in range(3):
        clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(20)]
        for client in clients:
            assert len(client.read(1 << 20)) == 1 << 20
            client.close()
        assert proxy.flat()
    held = proxy.pipes()
    for _ in range(3):
        clients = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(20)]
        for client in clients:
            assert len(client.read(1 << 20)) == 1 << 20
            client.close()
        assert proxy.flat()
    assert proxy.pipes() <= max(held, 40) + 8
