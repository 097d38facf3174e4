"""--usage: accounts by key and hour that survive the process, and quotas that go on where they were."""
import csv
import datetime
import io
import os
import re
import signal
import sqlite3
import subprocess
import time

import pytest

import process
import wire
from test_keys import pour, read_until_cut
from test_process import find_daemon

MB = 1000000


def used(api, key):
    """(up, down, connections, refused) in all that the accounts have of it, written or not."""
    rows = api.get(f"/usage?key={key}&from=0&by=month").json()["usage"]
    return tuple(sum(row[name] for row in rows) for name in ("up", "down", "connections", "refused"))


def kill(proxy):
    proxy.expected_exit = -signal.SIGKILL
    proxy.signal(signal.SIGKILL)
    proxy.wait()


def stop(proxy):
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0


def ask_as(proxy, target, user):
    return wire.Client(proxy.address).send(wire.socks4("127.0.0.1", target.port, user))


def as_user(proxy, target, user=b"alice"):
    client = ask_as(proxy, target, user)
    assert client.read(8) == wire.SOCKS4_GRANTED
    return client


def metric(api, name):
    return float(re.search(rf"^{name} (\S+)$", api.get("/metrics").text, re.MULTILINE).group(1))


def wait_until_written(api):
    """What was asked for once is in memory, and written when the next second has begun, at the latest by then."""
    assert process.wait_until(lambda: api.get("/usage?key=total").status == 200 and metric(api, "sluice_usage_rows_waiting") == 0, 30, 0.2)


def rows_of(path):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        return {key: row for key, *row in database.execute(
            "SELECT key, sum(up), sum(down), sum(connections), sum(refused) FROM usage GROUP BY key")}


def start(ruled, path, *options):
    return ruled(None, "--usage", f"sqlite:{path}", *options)


# --- quotas go on ---

def test_a_quota_goes_on_behind_a_kill(ruled, origin, tmp_path):
    """Killed at 3 of 5 MB: after the restart the user is cut at 5, not at 8. So do quotas of single keys, which are put before the accounts are read."""
    options = ("--limit", "user: quota=5MB/month", "--limit", "total: quota=100MB/day", "--limit", "user:carol: quota=1MB")
    proxy, api = start(ruled, tmp_path / "usage.db", *options)
    target = origin(pour(3 * MB, behind=1000))
    client = as_user(proxy, target).send(b"x" * 1000)
    assert client.read(3 * MB) == bytes(3 * MB)
    process.becomes(lambda: used(api, "user:alice"), (1000, 3 * MB, 1, 0))
    wait_until_written(api)
    kill(proxy)
    proxy, api = start(ruled, tmp_path / "usage.db", *options)
    assert api.get("/limits/total").json()["used"] == {"quota": 3 * MB + 1000}
    assert api.get("/limits/user:carol").json()["used"] == {"quota": 0}
    target = origin(pour(8 * MB, behind=1000))
    client = as_user(proxy, target).send(b"x" * 1000)
    assert len(read_until_cut(client)) == 2 * MB - 2000
    process.becomes(lambda: api.get("/limits/user:alice").json()["used"], {"quota": 5 * MB})
    client = ask_as(proxy, target, b"alice")
    assert client.read(9) == wire.SOCKS4_REJECTED
    process.becomes(lambda: used(api, "user:alice"), (2000, 5 * MB - 2000, 2, 1))
    wait_until_written(api)
    kill(proxy)
    proxy, api = start(ruled, tmp_path / "usage.db", *options)  # refused from the first one on
    assert ask_as(proxy, target, b"alice").read(9) == wire.SOCKS4_REJECTED
    as_user(proxy, target, b"bob")


def test_what_was_used_is_written_within_seconds_without_being_asked(ruled, origin, tmp_path):
    path = tmp_path / "usage.db"
    proxy, _ = start(ruled, path, "--limit", "user: connections=9")
    client = as_user(proxy, origin()).send(b"x" * 5000)
    assert client.read(5000) == b"x" * 5000
    assert process.wait_until(lambda: rows_of(path).get("user:alice") == [5000, 5000, 1, 0], 30, 0.2), rows_of(path)
    kill(proxy)
    assert rows_of(path)["user:alice"] == [5000, 5000, 1, 0]


def test_a_stop_writes_everything(ruled, origin, tmp_path):
    path = tmp_path / "usage.db"
    proxy, _ = start(ruled, path, "--limit", "user: connections=1", "--limit", "total: connections=100")
    target = origin()
    client = as_user(proxy, target).send(b"x" * 7000)
    assert client.read(7000) == b"x" * 7000
    assert ask_as(proxy, target, b"alice").read(9) == wire.SOCKS4_REJECTED
    stop(proxy)
    assert rows_of(path) == {"user:alice": [7000, 7000, 1, 1], "total": [7000, 7000, 2, 0]}  # the second one came as far as its user


def test_a_daemon_opens_the_database_behind_its_fork(origin, tmp_path):
    """Its own are the locks that SQLite has on the file: a process does not inherit them, and one that has lost them corrupts the database."""
    path, port, target = tmp_path / "usage.db", process.free_port(), origin()
    words = ("-d", "--usage", f"sqlite:{path}", "--limit", "user: connections=9")
    code, _, err = process.run(*words, "-l", f"127.0.0.1:{port}")
    pid = find_daemon(port)
    try:
        assert code == 0 and pid, err
        locks = [line.split() for line in open("/proc/locks", encoding="ascii")]
        assert any(words[1] == "POSIX" and words[4] == str(pid) for words in locks), locks
        with wire.Client(("127.0.0.1", port)) as client:
            client.send(wire.socks4("127.0.0.1", target.port, b"alice") + b"x" * 100)
            assert client.read(108)[8:] == b"x" * 100
        assert process.run(*words, "-l", f"127.0.0.1:{process.free_port()}")[0] == 1  # the parent hears of a database that is taken
    finally:
        if pid:
            os.kill(pid, signal.SIGTERM)
    assert process.wait_until(lambda: rows_of(path).get("user:alice") == [100, 100, 1, 0], 30)


def test_a_ruleset_s_quota_goes_on(ruled, origin, tmp_path):
    """Whose terms come with the first request, when the accounts have been read long ago."""
    script = """return {route = function(addr)
        sluice.limit("gold", {quota = "3000B/day"})
        return addr
    end}"""
    target = origin()
    for left in 3000, 1000:
        proxy, api = ruled(script, "--usage", f"sqlite:{tmp_path}/usage.db")
        client = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
        if left == 3000:
            assert client.send(b"x" * 1000).read(1000) == b"x" * 1000
            process.becomes(lambda: used(api, "gold"), (1000, 1000, 1, 0))
            wait_until_written(api)
            kill(proxy)
        else:
            client.send(b"x" * 5000)
            assert len(read_until_cut(client)) <= 1000
            process.becomes(lambda: api.get("/limits/gold").json()["used"], {"quota": 3000})


def test_a_quota_counts_what_was_used_before_it_was_set(ruled, origin, tmp_path):
    """The day's use, also when the quota of the day comes later: now as behind a restart."""
    proxy, api = start(ruled, tmp_path / "usage.db", "--limit", "user: connections=9")
    client = as_user(proxy, origin()).send(b"x" * 5000)
    assert client.read(5000) == b"x" * 5000
    process.becomes(lambda: used(api, "user:alice"), (5000, 5000, 1, 0))
    for terms in '{"quota": "1GB/day"}', '{"quota": "1GB/hour"}', '{"quota": "1GB/month"}', '{"quota": "1GB"}':
        answer = api.ask("PUT", "/limits/user:alice", terms).json()
        assert answer["used"] == {"quota": 10000}, terms
        process.becomes(lambda: used(api, "user:alice"), (5000, 5000, 1, 0))
    assert api.ask("PUT", "/limits/user", '{"quota-up": "1GB/week"}').status == 200
    assert api.ask("DELETE", "/limits/user:alice").status == 204
    assert api.get("/limits/user:alice").json()["used"] == {"quota-up": 5000}
    api.ask("PUT", "/limits/user:alice", '{"quota": "10001B/week"}')
    client.send(b"y" * 10)
    assert len(read_until_cut(client)) <= 1


def test_keys_with_quotas_come_first_where_there_are_many(ruled, origin, tmp_path):
    """A database with 30,000 keys that were used later than alice, of which the ledger has room for 26,000 at most: her quota goes on, and that of a name.
    A key that was left out is read when it comes."""
    path = tmp_path / "usage.db"
    script = """return {route = function(addr)
        sluice.limit("gold", {quota = "3000B/month"})
        return addr
    end}"""
    options = ("--usage", f"sqlite:{path}", "--limit-keys", "1000", "--limit", "user: quota=5MB/month", "--limit", "source: connections=100")
    proxy, _ = ruled(script, *options)
    stop(proxy)
    month = int(datetime.datetime.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
    last = int(time.time()) // 3600 * 3600 + 7200
    rows = [("user:alice", month, 0, 4 * MB), ("gold", month, 2000, 0), ("source:127.0.0.1", month, 5, 7)]
    rows += [(f"source:10.{i >> 16}.{i >> 8 & 255}.{i & 255}", last, 1, 1) for i in range(30000)]
    with sqlite3.connect(path) as database:
        database.executemany("INSERT INTO usage VALUES (?, ?, ?, ?, 1, 0)", rows)
        database.executemany("INSERT INTO total SELECT ?1, ?3, ?4, ?2", rows)
    proxy, api = ruled(script, *options)
    assert "quotas of those that were used least" not in proxy.log()
    assert 1000 < metric(api, "sluice_usage_keys") < 30000
    target = origin()
    client = as_user(proxy, target).send(b"x" * 100)
    assert client.read(100) == b"x" * 100
    process.becomes(lambda: api.get("/limits/user:alice").json()["used"], {"quota": 4 * MB + 200})
    process.becomes(lambda: api.get("/limits/gold").json()["used"], {"quota": 2200})
    process.becomes(lambda: used(api, "source:127.0.0.1"), (105, 107, 2, 0))  # it has pushed out another one
    assert metric(api, "sluice_usage_evicted_total") >= 1 and metric(api, "sluice_usage_merged_total") == 0
    answer = api.ask("PUT", "/limits/source:127.0.0.1", '{"quota": "1GB/month"}').json()
    assert answer["used"] == {"quota": 212}
    client.close()
    stop(proxy)
    rows = [(f"user:u{i}", last, 1, 1) for i in range(30000)]  # all of these have used something of a quota
    with sqlite3.connect(path) as database:
        database.executemany("INSERT INTO usage VALUES (?, ?, ?, ?, 1, 0)", rows)
        database.executemany("INSERT INTO total SELECT ?1, ?3, ?4, ?2", rows)
    proxy, api = ruled(script, *options)
    assert proxy.says("quotas of those that were used least")
    client = as_user(proxy, target, b"bob").send(b"x")
    assert client.read(1) == b"x"
    assert process.wait_until(lambda: api.get("/usage?key=user").json()["usage"] and metric(api, "sluice_usage_merged_total") >= 1)
    assert process.wait_until(lambda: "more keys are in use than there is room for" in proxy.log(), 30)
    client.close()


# --- asking ---

def test_questions_cost_the_disk_one_write_a_second(ruled, origin, tmp_path):
    """However many there are, and however much has moved between two of them: each answer has all of it."""
    proxy, api = start(ruled, tmp_path / "usage.db", "--limit", "user: connections=9")
    client = as_user(proxy, origin())
    begin, before = time.monotonic(), metric(api, "sluice_usage_writes_total")
    for i in range(1, 101):
        assert client.send(b"x" * 10).read(10) == b"x" * 10
        process.becomes(lambda: used(api, "user:alice"), (10 * i, 10 * i, 1, 0))
    writes, seconds = metric(api, "sluice_usage_writes_total") - before, time.monotonic() - begin
    assert writes <= seconds + 2, (writes, seconds)  # and one at the end of an hour
    wait_until_written(api)
    assert rows_of(tmp_path / "usage.db")["user:alice"] == [1000, 1000, 1, 0]


def test_by_hour_day_and_month_as_json_and_csv(ruled, tmp_path, monkeypatch):
    """Of a database of a year in a zone with summer time; days of 23 and 25 hours begin at midnight."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    path = tmp_path / "usage.db"
    proxy, _ = start(ruled, path)
    stop(proxy)
    begin, hours = int(datetime.datetime(2025, 1, 1).timestamp()), 8760
    with sqlite3.connect(path) as database:
        for key in "user:alice", "user:b,%22":
            database.executemany("INSERT INTO usage VALUES (?, ?, 1, 2, 3, 4)",
                                 [(key, begin + 3600 * i) for i in range(hours)])
    proxy, api = start(ruled, path)
    months = api.get("/usage?key=user:alice&from=2025-01-01&to=2026-01-01&by=month").json()
    assert months["next"] is None
    assert [row["time"] for row in months["usage"]][:4] == [
        "2025-01-01T00:00:00+01:00", "2025-02-01T00:00:00+01:00", "2025-03-01T00:00:00+01:00", "2025-04-01T00:00:00+02:00"]
    assert [row["up"] for row in months["usage"]] == [24 * days for days in (31, 28)] + [31 * 24 - 1] + [
        24 * days for days in (30, 31, 30, 31, 31, 30)] + [31 * 24 + 1] + [24 * days for days in (30, 31)]
    days = api.get("/usage?key=user:alice&from=2025-03-29&to=2025-04-01&by=day").json()["usage"]
    assert [(row["time"], row["down"]) for row in days] == [
        ("2025-03-29T00:00:00+01:00", 48), ("2025-03-30T00:00:00+01:00", 46), ("2025-03-31T00:00:00+02:00", 48)]
    one = api.get(f"/usage?key=user:alice&from=2025-06-01T10:00:00Z&to=2025-06-01T13:00:00%2b01:00&by=hour").json()["usage"]
    assert one == [{"key": "user:alice", "time": f"2025-06-01T{hour}:00:00+02:00", "up": 1, "down": 2, "connections": 3,
                    "refused": 4} for hour in (12, 13)]
    text = api.get("/usage?from=2025-01-01&by=month&format=csv")
    assert text.headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(text.text)))
    assert len(table) == 24 and table[23]["key"] == "user:b,%22" and table[23]["time"] == "2025-12-01T00:00:00+01:00"
    assert sum(int(row["refused"]) for row in table) == 2 * 4 * hours
    rows, cursor = [], ""  # in pages of five
    while cursor is not None:
        page = api.get(f"/usage?from=2025-01-01&by=month&limit=5{cursor and '&cursor=' + cursor}").json()
        assert len(page["usage"]) <= 5
        rows, cursor = rows + page["usage"], page["next"]
    assert len(rows) == 24 and rows[:12] == months["usage"]


@pytest.mark.parametrize("query", ["by=week", "from=yesterday", "from=2025-13-01", "from=2025-01-01T25:00:00Z", "to=", "key=a%20b", "limit=0", "limit=10001",
                                   "format=xml", "cursor=x", "from=2025-01-01T00:00:00", "from=12345678901234567890", "from=-5"])
def test_questions_that_make_no_sense(ruled, tmp_path, query):
    _, api = start(ruled, tmp_path / "usage.db")
    answer = api.get("/usage?" + query)
    assert answer.status == 400 and "give" in answer.text or "key" in query, answer.text
    assert api.get("/usage").json() == {"usage": [], "next": None}


def test_without_accounts_there_is_nothing_to_ask(ruled):
    _, api = ruled(None)
    answer = api.get("/usage")
    assert answer.status == 404 and "--usage" in answer.text
    assert "sluice_usage" not in api.get("/metrics").text


# --- what can be wrong with the file ---

def test_the_state_directory_has_the_default(ruled, origin, tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    proxy, api = ruled(None, "--state-dir", folder, "--limit", "user: connections=3")
    client = as_user(proxy, origin()).send(b"x")
    assert client.read(1) == b"x"
    process.becomes(lambda: used(api, "user:alice"), (1, 1, 1, 0))
    stop(proxy)
    assert rows_of(folder / "usage.db") == {"user:alice": [1, 1, 1, 0]}


@pytest.mark.parametrize("what", ["folder", "garbage", "later", "directory", "held"])
def test_a_file_that_cannot_be_used_is_said_at_the_start(ruled, tmp_path, what):
    path = tmp_path / "usage.db"
    says = {"folder": "see that the folder exists", "garbage": "it is no database, or a damaged one", "later": "a later version of sluice",
            "directory": "see that the folder exists", "held": "another process of sluice"}
    if what == "folder":
        path = tmp_path / "missing" / "usage.db"
    elif what == "garbage":
        path.write_bytes(b"no database" * 1000)
    elif what == "later":
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 99")
    elif what == "directory":
        path.mkdir()
    else:
        start(ruled, path)
    code, _, err = process.run("-l", "127.0.0.1:0", "--usage", f"sqlite:{path}")
    lines = [line for line in err.splitlines() if line.startswith("E ")]
    assert code == 1 and len(lines) == 1, err
    assert f"--usage sqlite:{path}: " in lines[0] and says[what] in lines[0]


@pytest.mark.parametrize("words, says", [
    (["--usage", "nowhere"], "give sqlite:PATH"),
    (["--usage", "sqlite:"], "give --state-dir, or sqlite:PATH"),
    (["--usage", "mysql://x"], "give sqlite:PATH"),
    (["--usage", "sqlite:" + "x" * 1025], "longer than 1024"),
    (["--state-dir", "x" * 1025], "longer than 1024"),
])
def test_texts_that_make_no_sense(words, says):
    code, _, err = process.run("-l", "127.0.0.1:0", *words)
    assert code == 1 and says in err, err


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_stops_nothing_and_what_was_used_is_written_later(ruled, origin, small_disk):
    proxy, api = start(ruled, small_disk / "usage.db", "--limit", "user: quota=1GB/month")
    target = origin()
    with open(small_disk / "filler", "wb", buffering=0) as filler:
        with pytest.raises(OSError):
            while True:
                filler.write(bytes(4096))
    moved, users = 0, 0
    while metric(api, "sluice_usage_write_failures_total") == 0:  # until the log has no room either
        for _ in range(200):
            client = as_user(proxy, target, b"a-long-name-of-a-user-%d" % users).send(b"x" * 100)
            assert client.read(100) == b"x" * 100
            client.close()
            moved, users = moved + 100, users + 1
        api.get("/usage?key=total")
        assert users < 50000
    for _ in range(3):
        client = as_user(proxy, target).send(b"x" * 100)
        assert client.read(100) == b"x" * 100
        client.close()
        api.get("/usage?key=total")
    assert metric(api, "sluice_usage_rows_waiting") >= 1
    process.becomes(lambda: api.get("/limits/user:alice").json()["used"], {"quota": 600})
    assert proxy.says("usage cannot be written")
    lines = [line for line in proxy.log().splitlines() if "usage cannot be written" in line]
    assert len(lines) == 1 and "make room on that disk" in lines[0], lines
    (small_disk / "filler").unlink()
    assert process.wait_until(lambda: "usage is written again, nothing is missing" in proxy.log(), 30, 0.2)
    stop(proxy)
    rows = rows_of(small_disk / "usage.db")
    assert rows["user:alice"] == [300, 300, 3, 0]
    assert sum(row[0] for row in rows.values()) == moved + 300 and len(rows) == users + 1


@pytest.mark.parametrize("relay, size", [("splice", (200 if process.SANITIZED else 1000) * MB), ("copy", 200 * MB)], ids=["splice", "copy"])
def test_octets_count_while_they_move_and_what_is_not_delivered_does_not(ruled, origin, tmp_path, relay, size):
    """Asked again and again while they move, accounts are never more than one move behind or ahead. In the end the client resets."""
    def delivered():
        return int(re.search(r'^sluice_bytes_total{direction="down"} (\d+)$', api.get("/metrics").text, re.MULTILINE).group(1))

    proxy, api = start(ruled, tmp_path / "usage.db", "--relay", relay, "--workers", "1", "--limit", "user: quota=10GB/month")
    client, quantum = as_user(proxy, origin(pour(size))), 1 << 20  # what a pipe holds
    for read in range(20 * MB, size - 100 * MB, 20 * MB):
        assert len(client.read(20 * MB)) == 20 * MB
        octets, after = used(api, "user:alice")[1], delivered()
        assert read - quantum <= octets <= after + quantum
    client.reset()
    assert process.wait_until(lambda: api.get("/limits/user:alice").json()["connections"] == 0)
    assert process.wait_until(lambda: used(api, "user:alice")[:2] == (0, delivered())), (used(api, "user:alice"), delivered())
    assert read <= delivered() < size  # some of it was under way
    process.becomes(lambda: api.get("/limits/user:alice").json()["used"], {"quota": delivered()})


def test_others_read_and_write_while_it_works(ruled, origin, tmp_path):
    """A reader holds up check-points, and a writer the transactions: the log's size shows, nothing is lost, and it shrinks."""
    path = tmp_path / "usage.db"
    proxy, api = start(ruled, path, "--limit", "user: connections=1000")
    target = origin()
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM usage").fetchone()
    writer = sqlite3.connect(path, isolation_level=None, timeout=30)
    writer.execute("CREATE TABLE other (data BLOB)")
    for _ in range(12):
        writer.execute("INSERT INTO other VALUES (zeroblob(1000000))")
    for i in range(50):
        client = as_user(proxy, target, b"user%d" % i).send(b"x" * 100)
        assert client.read(100) == b"x" * 100
        client.close()
    process.becomes(lambda: used(api, "user:user49"), (100, 100, 1, 0))
    assert metric(api, "sluice_usage_wal_bytes") > 12 * MB
    reader.execute("COMMIT")
    as_user(proxy, target, b"last").close()
    assert process.wait_until(lambda: used(api, "user:last")[2] == 1)
    wait_until_written(api)
    assert process.wait_until(lambda: used(api, "user:last") and metric(api, "sluice_usage_wal_bytes") < 8 * MB)
    writer.execute("BEGIN IMMEDIATE")  # nobody else can write now
    client = as_user(proxy, target, b"late").send(b"x" * 100)
    assert client.read(100) == b"x" * 100
    before = metric(api, "sluice_usage_write_failures_total")
    assert process.wait_until(lambda: used(api, "user:late") and metric(api, "sluice_usage_write_failures_total") > before, 30, 0.2)
    assert metric(api, "sluice_usage_rows_waiting") >= 1
    writer.execute("COMMIT")
    assert process.wait_until(lambda: used(api, "user:late") == (100, 100, 1, 0), 30, 0.2)
    assert proxy.says("usage is written again, nothing is missing", 30)
    stop(proxy)
    assert sum(row[2] for row in rows_of(path).values()) == 52
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
