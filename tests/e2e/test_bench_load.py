"""What of bench/ measures: the load generator sees what a proxy spoils and what it delays, the floor does what proxies do, and a
whole run comes to a document. No test here looks at how fast anything is."""
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

import process
from conftest import BUILD, ROOT, build_lock, require

BLOCK = 256 * 1024  # of what the source sends
RUN = os.path.join(ROOT, "bench", "run.py")


@pytest.fixture(scope="session")
def floor():
    binary = os.path.join(BUILD, "floor")
    with build_lock():
        subprocess.run(["make", "-s", "-C", ROOT, f"BUILD={BUILD}", binary], check=True, stdout=subprocess.DEVNULL)
    return binary


@pytest.fixture
def floor_proxy(floor, daemon):
    """floor_proxy(words) starts one; its address."""
    def start(*words):
        address = f"127.0.0.1:{process.free_port()}"
        child = daemon([floor, "--listen", address, *words], int(address.split(":")[1]))
        return address, child
    return start


def run_load(load, *words, status=0):
    done = subprocess.run([load, *map(str, words)], capture_output=True, text=True, timeout=60 * process.SLOW)
    assert done.returncode == status, (words, done.stdout, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


class Relay:
    """A TCP proxy to one target, of which spoil(what it has passed to the client, the next piece) makes what the client gets."""

    def __init__(self, target, spoil):
        self.target, self.spoil = target, spoil
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                upstream = socket.create_connection(self.target)
                threading.Thread(target=self.copy, args=(client, upstream, lambda _at, data: data), daemon=True).start()
                threading.Thread(target=self.copy, args=(upstream, client, self.spoil), daemon=True).start()

    @staticmethod
    def copy(source, sink, change):
        at = 0
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(BLOCK):
                sink.sendall(change(at, data))
                at += len(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()


@pytest.fixture
def relay(load_origin):
    started = []

    def start(service, spoil):
        started.append(Relay(("127.0.0.1", load_origin + service), spoil))
        return started[-1].address
    yield start
    for one in started:
        one.close()


ECHO, SOURCE, HTTP, VERIFY, FILL, DATAGRAMS, PACED = 0, 2, 4, 5, 6, 7, 8


def flip(place):
    def change(at, data):
        if not at <= place < at + len(data):
            return data
        return data[:place - at] + bytes([data[place - at] ^ 1]) + data[place - at + 1:]
    return change


class Lose:
    """A whole block is missing, or is there twice: what follows would look right if all blocks were the same."""

    def __init__(self, twice):
        self.twice, self.held, self.done = twice, b"", False

    def __call__(self, at, data):
        if self.done:
            return data
        self.held += data
        if len(self.held) < 3 * BLOCK:
            return b""
        self.done = True
        middle = 2 * self.held[BLOCK:2 * BLOCK] if self.twice else b""
        return self.held[:BLOCK] + middle + self.held[2 * BLOCK:]


@pytest.mark.parametrize("spoil", [flip(0), flip(1_000_003), flip(2 * BLOCK + 7), Lose(False), Lose(True)],
                         ids=["first octet", "an octet", "number of a block", "lost block", "doubled block"])
def test_checked_bulk_sees(load, relay, spoil):
    result = run_load(load, "bulk", "--check", "--via", "forward", "--proxy", relay(SOURCE, spoil), "--seconds", 1 * process.SLOW, status=1)
    assert result["mismatches"] == 1 and result["first_error"] == "run: the stream differs"


def test_checked_bulk_of_an_honest_relay(load, relay):
    result = run_load(load, "bulk", "--check", "--flows", 3, "--via", "forward", "--proxy", relay(SOURCE, lambda _at, data: data),
                      "--seconds", 1)
    assert result["bytes"] > 0 and result["mismatches"] == result["errors"] == 0


def test_bulk_at_a_pace(load, load_origin, relay):
    """No more than that for all flows together, and every octet; without a pace more."""
    words = ["bulk", "--check", "--flows", 4, "--via", "forward", "--proxy", relay(PACED, lambda _at, data: data), "--seconds", 1, "--warmup", 0]
    result = run_load(load, *words, "--pace", 8)
    assert 0 < result["bytes"] <= 1_500_000 * result["seconds"] and result["mismatches"] == result["errors"] == 0
    assert run_load(load, "bulk", "--flows", 4, "--target", f"127.0.0.1:{load_origin + PACED}", "--pace", 0, "--seconds", 0.2)["bytes"] > 5_000_000


@pytest.mark.parametrize("size", [64, 65536])
def test_a_changed_echo_is_seen(load, relay, size):
    result = run_load(load, "rtt", "--message", size, "--via", "forward", "--proxy", relay(ECHO, flip(3 * size + 5)), "--seconds", 1,
                      "--warmup", 0, status=1)
    assert result["mismatches"] == 1 and result["count"] == 3


def test_a_changed_body_is_seen(load, load_origin, relay):
    words = ["http", "--message", 1000, "--via", "http-plain", "--target", f"127.0.0.1:{load_origin + HTTP}", "--warmup", 0, "--seconds", 1]
    result = run_load(load, *words, "--proxy", relay(HTTP, flip(900)), status=1)
    assert result["mismatches"] > 0 and result["count"] == 0  # each time on another connection
    result = run_load(load, *words, "--proxy", relay(HTTP, lambda _at, data: data))
    assert result["opened"] == 1 and result["errors"] == 0


def end_with_the_answer(client, answer):
    """In its own segment, so that nothing tells of the end afterwards."""
    client.send(answer, socket.MSG_MORE)
    client.shutdown(socket.SHUT_WR)
    client.recv(4096)


def end_with_the_next_request(client, answer):
    client.sendall(answer)
    client.recv(4096)


@pytest.mark.parametrize("end", [end_with_the_answer, end_with_the_next_request])
def test_connections_that_end_unannounced(load, load_origin, end):
    """A server of HTTP/1.1 that answers one request on each connection, and has not said so. No request is lost, and none
    fails."""
    with urllib.request.urlopen(f"http://127.0.0.1:{load_origin + HTTP}/1024") as origin:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + origin.read()

    def serve(client):
        with contextlib.suppress(OSError), client:
            if client.recv(4096):
                end(client, answer)

    def accept(listener):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        result = run_load(load, "http", "--flows", 4, "--target", "127.0.0.1:%d" % listener.getsockname()[1], "--seconds", 2,
                          "--warmup", 0, "--rate", 100)
        listener.shutdown(socket.SHUT_RDWR)
    assert result["errors"] == result["timeouts"] == result["mismatches"] == 0, result
    assert result["count"] > 2 * 4 and result["begun"] - 4 <= result["count"] <= result["begun"], result


def test_a_stall_is_not_hidden(load, relay):
    """The relay waits for a second once. Of the operations that should have begun meanwhile, each has waited: at a rate they
    are a large part of all; a client that waits with them makes one of it."""
    state = {"stalled": False}

    def stall(at, data):
        if at >= 64 * 20 and not state["stalled"]:
            state["stalled"] = True
            time.sleep(1)
        return data

    result = run_load(load, "rtt", "--via", "forward", "--proxy", relay(ECHO, stall), "--rate", 100, "--seconds", 2, "--warmup", 0)
    assert result["p50_us"] > 1000 and result["p99_us"] > 900_000, result


def test_a_rate_is_kept(load, load_origin):
    """No more than that, whatever the proxy could do; at the end all that should have begun has."""
    for words in ["rtt", "--flows", 4], ["connect", "--flows", 16], ["http", "--flows", 4]:
        service = HTTP if words[0] == "http" else ECHO
        result = run_load(load, *words, "--rate", 50, "--seconds", 1, "--warmup", 0, "--target", f"127.0.0.1:{load_origin + service}")
        assert 1 <= result["count"] <= 52 and result["errors"] == 0, result


def test_mostly_idle_connections(load, load_origin):
    result = run_load(load, "rtt", "--flows", 2, "--idle-flows", 50, "--idle-every", 1, "--seconds", 1, "--target",
                      f"127.0.0.1:{load_origin}")
    assert result["open"] == 52 and result["errors"] == 0


def test_what_does_not_go_together(load):
    for words in (["bulk", "--rate", 5], ["rtt", "--pace", 5], ["idle", "--check"], ["rtt", "--fill"], ["connect", "--by-name"], ["udp"],
                  ["rtt", "--via", "http-plain", "--proxy", "127.0.0.1:1"]):
        done = subprocess.run([load, *map(str, words), "--target", "127.0.0.1:1"], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("load: "), (words, done)


# ---- Names ----


def ask(port, name, kind):
    """(answer code, addresses, number of authority records)"""
    question = b"".join(bytes([len(label)]) + label for label in name.encode().split(b".")) + b"\0" + struct.pack("!HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(struct.pack("!HHHHHH", 0x1234, 0x100, 1, 0, 0, 0) + question, ("127.0.0.1", port))
        data = client.recv(512)
    number, flags, asked, answers, authority, more = struct.unpack("!HHHHHH", data[:12])
    assert (number, asked, more) == (0x1234, 1, 0) and flags & 0x8180 == 0x8180 and data[12:12 + len(question)] == question
    rest = data[12 + len(question):]
    assert not answers or len(rest) == 16
    return flags & 15, socket.inet_ntoa(rest[-4:]) if answers else None, authority


def test_name_server(load):
    port = process.free_port()
    server = subprocess.Popen([load, "names", "--listen", f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True)
    try:
        assert "ready" in server.stdout.readline()
        assert ask(port, "t127-1-2-3.bench.test", 1) == (0, "127.1.2.3", 0)
        assert ask(port, "n17.T127-1-2-3.Bench.test", 1) == (0, "127.1.2.3", 0)
        assert ask(port, "t127-1-2-3.bench.test", 28) == (0, None, 1)
        assert ask(port, "other.bench.test", 1) == (3, None, 1)
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


@pytest.mark.parametrize("fresh", [False, True])
def test_through_a_proxy_by_name(load, load_origin, sluice, fresh):
    port = process.free_port()
    server = subprocess.Popen([load, "names", "--listen", f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True)
    try:
        assert "ready" in server.stdout.readline()
        proxy = sluice("--nameserver", f"127.0.0.1:{port}")
        result = run_load(load, "connect", "--fresh-names" if fresh else "--by-name", "--flows", 4, "--targets", 3, "--via", "socks5",
                          "--proxy", proxy.url, "--target", f"127.9.8.1:{load_origin}", "--seconds", 0.5)
        assert result["count"] > 0 and result["errors"] == 0, result
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


# ---- Through proxies, and the floor ----


def test_datagrams(load, load_origin, sluice, floor_proxy):
    proxies = [sluice("--enable-socks5-udp").url, floor_proxy("--socks5")[0]]
    for proxy in proxies:
        for words in ["--message", 64], ["--message", 1400, "--in-flight", 16], ["--rate", 100]:
            result = run_load(load, "udp", "--flows", 3, *words, "--via", "socks5", "--proxy", proxy, "--target",
                              f"127.3.4.5:{load_origin + DATAGRAMS}", "--seconds", 0.5)
            assert result["count"] > 0 and result["mismatches"] == result["errors"] == 0, (proxy, words, result)


def test_sessions_that_have_moved_something(load, load_origin, sluice):
    """`idle --fill` holds them only when each has received all of it."""
    proxy = sluice()
    holder = subprocess.Popen([load, "idle", "--fill", "--flows", "20", "--via", "socks5", "--proxy", proxy.url, "--target",
                               f"127.0.0.1:{load_origin + FILL}", "--timeout", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        ready = json.loads(holder.stdout.readline())
        assert ready["open"] == 20 and ready["filled"] == 20 << 20 and ready["errors"] == 0
        holder.stdin.close()


@pytest.mark.parametrize("cache", [(), ("--no-conn-cache",)], ids=["kept", "new"])
def test_plain_http(load, load_origin, sluice, cache):
    proxy = sluice(*cache)
    for size in 1024, 65536:
        result = run_load(load, "http", "--flows", 4, "--message", size, "--via", "http-plain", "--proxy", proxy.url, "--target",
                          f"127.0.0.1:{load_origin + HTTP}", "--seconds", 0.5)
        assert result["count"] > 0 and result["errors"] == result["mismatches"] == 0, result
    assert proxy.flat(30)  # connections to the origin wait for 15 s


def descriptors(child):
    return len(os.listdir(f"/proc/{child.pid}/fd"))


@pytest.mark.parametrize("words", [[], ["--splice"]], ids=["copy", "splice"])
def test_floor_passes_streams(load, load_origin, floor_proxy, words):
    """Both ways at once, each with an end of its own, by SOCKS5 and by forwarding."""
    target = f"127.0.0.1:{load_origin + VERIFY}"
    for way, more in ("socks5", ["--socks5"]), ("forward", ["--target", target]):
        address, child = floor_proxy(*more, *words)
        before = descriptors(child)
        result = run_load(load, "verify", "--flows", 5, "--bytes", 3_000_001, "--via", way, "--proxy", address, "--target", target)
        assert result["verified"] == 5 and result["errors"] == 0
        assert process.wait_until(lambda: descriptors(child) <= before, 15), (before, descriptors(child))


def test_floor_gathers_bulk(load, load_origin, floor_proxy):
    address, _ = floor_proxy("--target", f"127.0.0.1:{load_origin + SOURCE}", "--splice", "--gather")
    result = run_load(load, "bulk", "--check", "--flows", 8, "--via", "forward", "--proxy", address, "--seconds", 0.5)
    assert result["bytes"] > 0 and result["errors"] == 0


def test_floor_keeps_nothing(load, load_origin, floor_proxy):
    """Clients reset, close and vanish in the middle of it, beside each other."""
    address, child = floor_proxy("--socks5")
    before = descriptors(child)
    for words in ["connect", "--close", "reset"], ["connect", "--close", "orderly"], ["connect", "--no-echo"], ["rtt"]:
        result = run_load(load, *words, "--flows", 32, "--via", "socks5", "--proxy", address, "--target", f"127.0.0.1:{load_origin}",
                          "--seconds", 0.5)
        assert result["count"] > 0
    assert process.wait_until(lambda: descriptors(child) <= before, 15), (before, descriptors(child))


# ---- A whole run ----


def names_of_programs():
    with open(os.path.join(ROOT, "bench", "peers.tsv"), encoding="utf-8") as table:
        return {line.split("\t")[3].split()[0] for line in table if not line.startswith("#")}


@pytest.fixture
def bench(load, floor, tmp_path):
    """bench(words) runs run.py without any peer: (status, what it says, its document, its samples)."""
    require("ip", "iproute2")
    require("nsenter", "util-linux")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("no network namespaces here")
    absent = {name.upper().replace("-", "_"): "/nonexistent" for name in names_of_programs()}
    document, samples = tmp_path / "document.md", tmp_path / "samples.json"

    def start(*words):
        done = subprocess.run([sys.executable, RUN, "--binary", process.BINARY, "--load", load, "--floor", floor, "--output", document,
                               "--json", samples, *map(str, words)], env={**os.environ, **absent}, capture_output=True, text=True,
                              timeout=300 * process.SLOW)
        return (done.returncode, done.stdout + done.stderr, document.read_text() if document.exists() else "",
                json.loads(samples.read_text())["rows"] if samples.exists() else {})
    return start


def check_samples(found, rows, said):
    assert set(found) == set(rows.split())
    for row in found.values():
        assert row["failures"] == {}, said
        assert {"sluice", "floor"} <= set(row["samples"])
        assert all(one["errors"] == 0 and one["value"] > 0 for taken in row["samples"].values() for one in taken), row


def test_a_run_on_loopback(bench):
    rows = "bulk-1 http-1k udp-64 socks-reset"
    status, said, document, samples = bench("--rows", rows, "--networks", "loopback", "--congestion", "reno", "--loads", "", "--samples", 1,
                                            "--seconds", 1)
    assert status == 0, said
    found = samples["loopback/reno/0"]
    check_samples(found, rows, said)
    assert "GB compared" in found["bulk-1"]["samples"]["sluice"][0]["note"]
    assert found["socks-reset"]["samples"]["sluice"][0]["segments"] > 5
    assert "not resolved" in document and "### loopback, reno" in document


def test_a_run_between_two_namespaces(bench):
    """By name, so that the name server is found as well; and at half of the load."""
    status, said, document, samples = bench("--rows", "name-cached", "--networks", "veth", "--congestion", "reno", "--loads", "50",
                                            "--samples", 1, "--seconds", 1)
    assert status == 0, said
    for load in "0", "50":
        check_samples(samples[f"veth/reno/{load}"], "name-cached", said)
        assert "by address" in samples[f"veth/reno/{load}"]["name-cached"]["samples"]
    assert "### veth, reno" in document and "At fixed loads" in document


def test_a_run_under_another_congestion_control_ends(bench):
    """The kernel says nothing when a namespace cannot have it, so that it has to be read back."""
    status, said, document, samples = bench("--rows", "rtt-1", "--networks", "loopback", "--congestion", "reno,nonsense")
    assert status == 1 and "has the congestion control reno, not nonsense" in said and "rtt-1" not in said, said
    assert not document and not samples


def test_a_run_without_such_a_row_ends(bench):
    status, said, _, _ = bench("--rows", "rtt-9")
    assert status == 1 and "rtt-9: no such row" in said
