"""--usage redis://: quotas that several boxes share, by way of a real Redis server that is killed, forgets, stalls and lies."""
import re
import socket
import subprocess
import threading
import time

import pytest

import process
import wire
from conftest import require
from test_keys import pour, read_until_cut
from test_usage import MB, as_user, ask_as, kill, metric, stop

QUOTA = ("--limit", "user: quota=5MB/month")


class Redis:
    """A server of its own, in memory."""

    def __init__(self, folder, *options, tls=False):
        self.program = require("redis-server", "redis-server")
        self.port, self.folder, self.options, self.tls = process.free_port(), folder, options, tls
        self.process = None
        self.start()

    def start(self):
        words = [self.program, "--bind", "127.0.0.1", "--port", "0" if self.tls else str(self.port), "--save", "", "--dir", str(self.folder), *self.options]
        if self.tls:
            words += ["--tls-port", str(self.port)]
        self.log = open(self.folder / "redis.log", "ab")
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

        def listens():
            assert self.process.poll() is None, open(self.folder / "redis.log", errors="replace").read()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        assert process.wait_until(listens)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def ask(self, *words):
        """The reply as plain values; errors are raised."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20 * process.SLOW) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in map(str.encode, words)))
            return self.read(connection.makefile("rb"))

    def read(self, file):
        line = file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        assert kind != b"-", line
        if kind == b"$":
            return None if rest == b"-1" else file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.read(file) for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest.decode()

    def sums(self, key="user:alice", period="month"):
        """What each node has used of it: {node: (up, down)}."""
        found = {}
        for name in self.ask("KEYS", f"sluice:quota:{period}:*:{key}"):
            fields = self.ask("HGETALL", name)
            found.update({node: tuple(map(int, value.split())) for node, value in zip(fields[::2], fields[1::2])})
        return found

    def total(self, key="user:alice"):
        return sum(map(sum, self.sums(key).values()))


@pytest.fixture
def redis(tmp_path):
    started = []

    def start_redis(*options, **more):
        folder = tmp_path / f"redis{len(started)}"
        folder.mkdir()
        started.append(Redis(folder, *options, **more))
        return started[-1]

    yield start_redis
    for one in started:
        one.kill()


@pytest.fixture
def box(ruled, tmp_path):
    """box(name, port, *options): a sluice of the fleet with a folder of its own: (proxy, api)."""
    def start_box(name, port, *options, url="redis://127.0.0.1:{}/0"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        proxy, api = ruled(None, "--state-dir", folder, "--usage", url.format(port), *options)
        proxy.check_descriptors = False  # one may be its connection to Redis, which comes and goes
        return proxy, api

    return start_box


def used_of(api, user="alice"):
    answer = api.get(f"/limits/user:{user}")
    return answer.json()["used"]["quota"] if answer.status == 200 else 0


def use(proxy, target, octets, user=b"alice"):
    """Moves so many octets down, and none up."""
    client = as_user(proxy, target, user)
    assert client.read(octets) == bytes(octets)
    assert client.shut().read_all() == b""
    client.close()


def test_boxes_share_a_quota(redis, box, origin):
    """3 MB at one box leave 2 of 5 MB at the other; then nobody lets the user in."""
    server = redis()
    (first, first_api), (second, second_api) = box("a", server.port, *QUOTA), box("b", server.port, *QUOTA)
    use(first, origin(pour(3 * MB)), 3 * MB)
    assert process.wait_until(lambda: server.total() == 3 * MB)
    client = as_user(second, origin(pour(8 * MB, behind=1)))
    assert process.wait_until(lambda: used_of(second_api) == 3 * MB)
    assert len(read_until_cut(client.send(b"x"))) == 2 * MB - 1
    assert process.wait_until(lambda: server.total() == 5 * MB and used_of(first_api) == 5 * MB, 30)
    for proxy in first, second:
        assert ask_as(proxy, origin(), b"alice").read(9) == wire.SOCKS4_REJECTED
    as_user(first, origin(), b"bob").close()
    assert process.wait_until(lambda: metric(first_api, 'sluice_sessions{state="established"}') == 0)
    assert len(server.sums()) == 2 and set(server.sums().values()) == {(0, 3 * MB), (1, 2 * MB - 1)}
    assert 0 < server.ask("TTL", server.ask("KEYS", "*:user:alice")[0]) < 40 * 86400


def test_boxes_use_up_a_quota_at_the_same_time(redis, box, origin):
    """Both at full speed, at 600 kB/s: it is used up in whole, what was beyond it counts to the octet, and nobody gets any more. How much that may be says test_usage_fleet."""
    server = redis()
    options = ("--limit", "user: quota-down=3MB/month down=600kB/s")
    boxes, got = [box(name, server.port, *options) for name in "ab"], {}
    clients = [as_user(proxy, origin(pour(20 * MB))) for proxy, _ in boxes]
    readers = [threading.Thread(target=lambda i=i: got.update({i: len(read_until_cut(clients[i]))})) for i in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    moved = sum(got.values())
    assert 3 * MB <= moved < 20 * MB and min(got.values()) > 0, got
    for proxy, api in boxes:
        assert process.wait_until(lambda: api.get("/limits/user:alice").json()["used"] == {"quota-down": moved}, 30)
        assert ask_as(proxy, origin(), b"alice").read(9) == wire.SOCKS4_REJECTED
    assert server.total() == moved and sorted(down for _, down in server.sums().values()) == sorted(got.values())


def test_periods_by_themselves(redis, box, origin):
    server = redis()
    options = ("--limit", "user: quota=5MB/month quota-down=4MB/day", "--limit", "total: quota-up=1GB")
    (first, _), (second, second_api) = box("a", server.port, *options), box("b", server.port, *options)
    use(first, origin(pour(3 * MB)), 3 * MB)
    client = as_user(second, origin(pour(8 * MB, behind=1)))
    assert process.wait_until(lambda: second_api.get("/limits/user:alice").json()["used"] == {"quota": 3 * MB, "quota-down": 3 * MB})
    assert len(read_until_cut(client.send(b"x"))) == MB
    assert process.wait_until(lambda: sum(map(sum, server.sums("total", "ever").values())) == 4 * MB + 1)
    assert server.ask("TTL", server.ask("KEYS", "sluice:quota:ever:*")[0]) == -1


def test_without_redis_boxes_go_on_and_deliver_once(redis, box, origin):
    """Killed under load, and empty when it is back: all sums are there again, once; what it had lost is said."""
    server = redis()
    options = ("--limit", "user: quota=1GB/month")
    boxes = [box(name, server.port, *options) for name in "ab"]
    target = origin(pour(100000))
    for proxy, _ in boxes:
        use(proxy, target, 100000)
    assert process.wait_until(lambda: all(used_of(api) == 200000 for _, api in boxes), 30)
    server.kill()
    for _ in range(5):
        for proxy, api in boxes:
            use(proxy, target, 100000)
    for proxy, api in boxes:
        assert process.wait_until(lambda: metric(api, "sluice_usage_redis_up") == 0)
        assert used_of(api) == 700000  # its own 600000, and the last that it knew of the other one
        assert process.wait_until(lambda: "go on with the last sums of the other boxes" in proxy.log())
    server.start()
    assert process.wait_until(lambda: server.total() == 1200000, 30)
    for proxy, api in boxes:
        assert process.wait_until(lambda: used_of(api) == 1200000, 30)
        assert metric(api, "sluice_usage_redis_up") == 1 and proxy.says("quotas are shared again")
        assert metric(api, "sluice_usage_redis_lost_total") >= 1 and proxy.says("it had lost sums of this box")
        assert 1 <= len(re.findall("go on with the last sums", proxy.log())) <= 4  # one of a kind
    assert server.total() == 1200000


def test_a_kill_in_between_neither_loses_nor_doubles(redis, box, origin):
    """What Redis knows and the file does not comes back from it."""
    server = redis()
    options = ("--limit", "user: quota=1GB/month")
    target = origin(pour(100000))
    for turn in range(1, 4):
        proxy, api = box("a", server.port, *options)
        as_user(proxy, origin()).close()
        if turn > 1:
            assert process.wait_until(lambda: used_of(api) == (turn - 1) * 100000), used_of(api)
            assert metric(api, "sluice_usage_redis_recovered_bytes_total") <= (turn - 1) * 100000
        use(proxy, target, 100000)
        assert process.wait_until(lambda: server.total() == turn * 100000)
        kill(proxy)  # mostly before ten seconds are over
    proxy, api = box("a", server.port, *options)
    as_user(proxy, origin()).close()
    assert process.wait_until(lambda: used_of(api) == 300000)
    rows = api.get("/usage?key=user:alice&from=0&by=month").json()["usage"]
    assert [row["down"] for row in rows] == [300000]
    stop(proxy)
    proxy, api = box("a", server.port, *options)
    as_user(proxy, origin()).close()
    assert process.wait_until(lambda: metric(api, "sluice_usage_redis_up") == 1 and used_of(api) == 300000)
    assert metric(api, "sluice_usage_redis_recovered_bytes_total") == 0 and server.total() == 300000
    assert list(server.sums().values()) == [(0, 300000)]


def test_a_stop_tells_the_last_octets(redis, box, origin):
    server = redis()
    proxy, _ = box("a", server.port, *QUOTA)
    use(proxy, origin(pour(1000)), 1000)
    assert process.wait_until(lambda: server.total() == 1000)
    use(proxy, origin(pour(2000)), 2000)
    stop(proxy)
    assert server.total() == 3000


class Between:
    """Passes commands on to the server; `deal` has the replies: what it returns is sent to the client, None: cut."""

    def __init__(self, port):
        self.target, self.deal, self.connections, self.open = port, lambda data: data, 0, True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.open:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            with client, socket.create_connection(("127.0.0.1", self.target)) as server:
                def back():
                    while data := server.recv(65536):
                        data = self.deal(data)
                        if data is None:
                            break
                        client.sendall(data)
                    client.shutdown(socket.SHUT_RDWR)

                other = threading.Thread(target=lambda: suppress(back), daemon=True)
                other.start()
                while data := client.recv(65536):
                    server.sendall(data)
        except OSError:
            pass

    def close(self):
        self.open = False
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def suppress(function):
    try:
        function()
    except OSError:
        pass


def test_commands_whose_reply_is_lost_or_late_count_once(redis, box, origin):
    """The server carries them out; the reply is cut, or held back beyond all patience, and then comes after all."""
    server = redis()
    between = Between(server.port)
    proxy, api = box("a", between.port, "--limit", "user: quota=1GB/month")
    target = origin(pour(100000))
    use(proxy, target, 100000)
    assert process.wait_until(lambda: server.total() == 100000)
    sent = 1

    def late(data):
        time.sleep(2.5)
        return data

    for deal in lambda data: None, late, lambda data: data[:1], lambda data: b"", lambda data: None:
        failures, connections = metric(api, "sluice_usage_redis_failures_total"), between.connections
        between.deal = deal
        use(proxy, target, 100000)
        sent += 1
        assert process.wait_until(lambda: metric(api, "sluice_usage_redis_failures_total") > failures, 30)
        between.deal = lambda data: data
        assert process.wait_until(lambda: server.total() == sent * 100000 and metric(api, "sluice_usage_redis_up") == 1, 30)
        assert between.connections > connections  # nothing is read of the one before
    assert used_of(api) == sent * 100000 and "another box writes" not in proxy.log()
    between.close()


@pytest.mark.parametrize("reply", [b"+OK\r\n" * 3, b"*2000000000\r\n", b"$1999999999\r\n" + b"x" * 3000000, b"*4\r\n:-1\r\n:0\r\n:0\r\n:0\r\n", b"HTTP/1.1 400\r\n\r\n",
                                   b"*4\r\n:1\r\n:1\r\n:1\r\n+a\r\n", b"-ERR no\r\n", b"*-1\r\n", b"*1\r\n" * 20 + b":1\r\n", b":99999999999999999999999\r\n"],
                         ids=["out of step", "many", "long", "negative", "other", "text", "error", "nil", "deep", "large"])
def test_a_server_that_is_none(box, origin, reply):
    """Whatever it answers: traffic goes on, and it is said once a minute for each thing that is wrong."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                suppress(lambda: connection.recv(4096) and connection.sendall(reply) or connection.recv(4096))

    threading.Thread(target=serve, daemon=True).start()
    proxy, api = box("a", listener.getsockname()[1], *QUOTA)
    use(proxy, origin(pour(1000)), 1000)
    assert process.wait_until(lambda: metric(api, "sluice_usage_redis_failures_total") >= 2, 30)
    use(proxy, origin(pour(1000)), 1000)
    assert process.wait_until(lambda: used_of(api) == 2000) and metric(api, "sluice_usage_redis_up") == 0
    assert proxy.says("go on with the last sums")
    assert 1 <= len(re.findall("go on with the last sums", proxy.log())) <= 4
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_it_starts_without_redis_and_a_silent_one_holds_up_nothing(box, origin):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in process.free_port(), silent.getsockname()[1]:
            proxy, api = box(f"at{port}", port, *QUOTA)
            use(proxy, origin(pour(1000)), 1000)
            assert process.wait_until(lambda: metric(api, "sluice_usage_redis_failures_total") >= 1, 30)
            assert api.get("/usage").json()["usage"][0]["down"] == 1000
            stop(proxy)


def test_passwords(redis, box, origin):
    """Of the default user, and of one by name; never in the log."""
    server = redis("--requirepass", "sec/ret")
    proxy, api = box("a", server.port, *QUOTA, url="redis://:sec%2Fret@127.0.0.1:{}/3")
    assert process.wait_until(lambda: metric(api, "sluice_usage_redis_up") == 1)
    wrong, wrong_api = box("b", server.port, *QUOTA, url="redis://default:other@127.0.0.1:{}")
    assert process.wait_until(lambda: "the server refuses: WRONGPASS" in wrong.log())
    none, _ = box("c", server.port, *QUOTA)
    assert process.wait_until(lambda: "the server refuses: NOAUTH" in none.log())
    use(wrong, origin(pour(10)), 10)
    assert metric(wrong_api, "sluice_usage_redis_up") == 0
    named, named_api = box("d", server.port, *QUOTA, url="redis://default:sec%2Fret@127.0.0.1:{}")
    assert process.wait_until(lambda: metric(named_api, "sluice_usage_redis_up") == 1)
    for one in proxy, wrong, named:
        assert "sec" not in one.log() and "other@" not in one.log()


def test_a_server_that_throws_keys_away_is_spoken_of(redis, box):
    server = redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    proxy, api = box("a", server.port, *QUOTA)
    assert process.wait_until(lambda: "its maxmemory-policy is allkeys-lru" in proxy.log())
    assert metric(api, "sluice_usage_redis_up") == 1


def test_a_copy_of_another_box_is_spoken_of(redis, box, origin, tmp_path):
    server = redis()
    proxy, api = box("a", server.port, *QUOTA)
    use(proxy, origin(pour(1000)), 1000)
    stop(proxy)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "usage.db").write_bytes((tmp_path / "a" / "usage.db").read_bytes())
    (first, _), (second, _) = box("a", server.port, *QUOTA), box("b", server.port, *QUOTA)
    for proxy in first, second:
        use(proxy, origin(pour(10)), 10)
    kept = [as_user(first, origin()), as_user(second, origin())]
    for _ in range(3):
        use(first, origin(pour(10000)), 10000)
    assert process.wait_until(lambda: "another box writes as this one does" in second.log(), 30)
    assert kept


def test_tls(redis, box, origin, tmp_path):
    openssl = require("openssl", "openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run([openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=redis.test",
                    "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    server = redis("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no", tls=True)
    proxy, api = box("a", server.port, *QUOTA, url="rediss://127.0.0.1:{}/0?ca=" + str(certificate))
    use(proxy, origin(pour(1000)), 1000)
    assert process.wait_until(lambda: metric(api, "sluice_usage_redis_up") == 1), proxy.log()
    stranger, stranger_api = box("b", server.port, *QUOTA, url="rediss://127.0.0.1:{}")
    assert process.wait_until(lambda: "its certificate is not trusted" in stranger.log() or "no certificate to trust" in stranger.log())
    other, _ = box("c", server.port, *QUOTA, url="rediss://localhost:{}/0?ca=" + str(certificate))
    assert process.wait_until(lambda: "its certificate is not trusted, or is another host's" in other.log())
    assert metric(stranger_api, "sluice_usage_redis_up") == 0
    assert process.wait_until(lambda: used_of(api) == 1000)


@pytest.mark.parametrize("words, says", [
    (["--usage", "redis://127.0.0.1"], "give --state-dir"),
    (["--usage", "redis://127.0.0.1:0"], "port 0"),
    (["--usage", "redis://127.0.0.1/x"], "no number of a database"),
    (["--usage", "redis://127.0.0.1/1000001"], "so high a number"),
    (["--usage", "redis://127.0.0.1/?ca=x"], "of rediss:// alone"),
    (["--usage", "rediss://127.0.0.1/?ca=/none.pem", "--state-dir", "/tmp"], "give a file of certificates"),
    (["--usage", "redis://a%zz@h"], "two hex digits"),
    (["--usage", "redis://"], "host is missing"),
])
def test_texts_that_make_no_sense(words, says):
    code, _, err = process.run("-l", "127.0.0.1:0", *words)
    assert code == 1 and says in err, err
