"""Names: answers, silence, several addresses of which some are dead."""
import os
import select
import signal
import threading
import time

import pytest

import fakedns
import namespaces
import origins
import process
import scripts
import wire


def connect(proxy, name, port, way="socks5"):
    with wire.WAYS[way](proxy.address, name, port) as client:
        client.send(b"hello")
        assert client.read(5) == b"hello"


def ask(proxy, name, port):
    """The whole answer to a SOCKS5 request for a name."""
    with wire.greet(wire.Client(proxy.address, timeout=30)) as client:
        client.send(wire.socks5(name, port))
        return client.read_all()


def test_both_families(sluice, origin, dns):
    server = dns()
    server.add("four.example", "127.0.0.1")
    server.add("six.example", "::1")
    proxy = sluice("--nameserver", server.text)
    connect(proxy, "four.example", origin().port)
    connect(proxy, "six.example", origin(host="::1").port)
    connect(proxy, "FOUR.Example", origin().port, "http")


def test_ipv6_goes_first(sluice, origin, dns):
    port = process.free_port("127.0.0.1", "::1")
    server, six, four = dns(), origin(host="::1", port=port), origin(port=port)
    server.add("both.example", "127.0.0.1", "::1")
    proxy = sluice("--nameserver", server.text)
    server.hold()
    client = wire.greet(wire.Client(proxy.address)).send(wire.socks5(b"both.example", port))
    assert process.wait_until(lambda: len(server.queries) == 2)
    proxy.stop()  # it gets both answers at once, with less than the 50 ms between them that the second one may have
    server.release()
    proxy.signal(signal.SIGCONT)
    assert wire.read_socks5_reply(client)[0] == 0
    assert six.wait("connections")
    assert not four.connections


@pytest.mark.parametrize("option, host, other", [("-4", "127.0.0.1", "::1"), ("-6", "::1", "127.0.0.1")])
def test_strict_family(sluice, origin, dns, option, host, other):
    server, target = dns(), origin(host=host)
    server.add("both.example", "127.0.0.1", "::1")
    server.add("other.example", other)
    proxy = sluice(option, "--nameserver", server.text)
    connect(proxy, "both.example", target.port)
    assert ask(proxy, "other.example", target.port) == wire.socks5_failure(4)
    asked = {kind for name, kind in server.queries}
    assert asked == {fakedns.A if option == "-4" else fakedns.AAAA}


def test_positive_answers_are_cached(sluice, origin, dns):
    server, target = dns(), origin()
    server.add("name.example", "127.0.0.1")
    proxy = sluice("--nameserver", server.text, "--workers", "2")
    for _ in range(10):
        connect(proxy, "name.example", target.port)
        connect(proxy, "NAME.example", target.port)
    assert server.count("name.example", fakedns.A) == 1


def test_time_to_live_is_kept(sluice, origin, dns):
    server, target = dns(), origin()
    server.ttl = 1
    server.add("short.example", "127.0.0.1")
    proxy = sluice("--nameserver", server.text)
    connect(proxy, "short.example", target.port)
    time.sleep(1.3)
    connect(proxy, "short.example", target.port)
    assert server.count("short.example", fakedns.A) == 2


def test_negative_answers_are_forgotten_soon(sluice, origin, dns):
    server, target = dns(), origin()
    proxy = sluice("--nameserver", server.text)
    for _ in range(5):
        assert ask(proxy, "late.example", target.port) == wire.socks5_failure(4)
    assert server.count("late.example", fakedns.A) == 1
    server.add("late.example", "127.0.0.1")
    time.sleep(5.5)
    connect(proxy, "late.example", target.port)


def test_equal_questions_are_asked_once(sluice, origin, dns):
    server, target = dns(), origin()
    server.add("name.example", "127.0.0.1")
    proxy = sluice("--nameserver", server.text)
    clients = [wire.Client(proxy.address) for _ in range(50)]
    for client in clients:
        client.send(wire.socks4a("name.example", target.port))
    for client in clients:
        assert client.read(8) == wire.SOCKS4_GRANTED
        client.close()
    assert server.count("name.example", fakedns.A) <= 2  # the first answer may come between two of them


def test_silence(sluice, origin, dns):
    """A resolver that never answers costs some ten seconds, and nobody but those who ask."""
    server, target = dns(), origin()
    server.silent.add("silent.example")
    server.add("other.example", "127.0.0.1")
    proxy = sluice("--nameserver", server.text)
    start = time.monotonic()
    five = wire.Client(proxy.address, timeout=30).send(b"\5\1\0" + wire.socks5("silent.example", 80))
    four = wire.Client(proxy.address, timeout=30).send(wire.socks4a("silent.example", 80))
    http = wire.Client(proxy.address, timeout=30).send(wire.http_connect("silent.example", 80))
    connect(proxy, "other.example", target.port)
    connect(proxy, "127.0.0.1", target.port)
    assert five.read(2) == b"\5\0" and not select.select([one.socket for one in (five, four, http)], [], [], 0)[0], "they have waited"
    assert five.read_all() == wire.socks5_failure(4)
    assert four.read_all() == wire.SOCKS4_REJECTED
    assert wire.status_of(http.read_all()) == (504, "Gateway Timeout")
    assert 5 < time.monotonic() - start < 30
    for client in (five, four, http):
        client.close()


@pytest.mark.parametrize("kind", [fakedns.A, fakedns.AAAA])
def test_one_family_is_never_answered(sluice, origin, dns, kind):
    """RFC 8305 section 3: the other one is dialled long before the resolver gives up, which takes nine seconds."""
    server, target = dns(), origin(host="::1" if kind == fakedns.A else "127.0.0.1")
    names = [f"half{i}.example" for i in range(5)]
    for name in names:
        server.add(name, "127.0.0.1", "::1")
        server.silent.add((name, kind))
    proxy = sluice("--nameserver", server.text)
    for way in ("socks5", "http"):
        assert connects_within(proxy, target, 4, names, way)


def test_names_are_counted_once(sluice, origin, dns, tmp_path):
    """Of ten look-ups of a name one is a query, nine are not; a name of /etc/hosts never is."""
    server, target, port = dns(), origin(), process.free_port()
    server.add("name.example", "127.0.0.1")
    proxy = sluice("-4", "--nameserver", server.text, "--api", f"127.0.0.1:{port}")
    for _ in range(10):
        connect(proxy, "name.example", target.port)
        connect(proxy, "localhost", target.port)
    counts = scripts.Api(("127.0.0.1", port)).get("/stats?format=json").json()["dns"]
    assert counts["queries"] == 1 and counts["local"] >= 1 and counts["cache_hits"] + counts["local"] == 19
    assert counts["mismatched"] == counts["failures"] == 0


def sockets_but_udp(proxy):
    """Without those of the resolver: each question has one of its own."""
    with open(f"/proc/{proxy.pid}/net/udp", encoding="ascii") as table:
        udp = {f"socket:[{line.split()[9]}]" for line in table.readlines()[1:]}
    count = 0
    for number in os.listdir(f"/proc/{proxy.pid}/fd"):
        try:
            name = os.readlink(f"/proc/{proxy.pid}/fd/{number}")
        except FileNotFoundError:
            continue
        count += name.startswith("socket:") and name not in udp
    return count


def test_client_that_leaves_while_its_name_is_sought(sluice, dns):
    server = dns()
    server.silent.add("*")
    proxy = sluice("--nameserver", server.text)
    clients = [wire.Client(proxy.address).send(wire.socks4a(f"n{i}.example", 80)) for i in range(100)]
    time.sleep(0.5)
    for client in clients:
        client.reset()
    assert process.wait_until(lambda: sockets_but_udp(proxy) <= proxy.sockets_at_start)
    connect_refused = ask(proxy, "127.0.0.1", process.free_port())
    assert connect_refused == wire.socks5_failure(5)
    assert proxy.flat(15)


def test_second_name_server(sluice, origin, dns):
    dead, server, target = dns(), dns(), origin()
    dead.silent.add("*")
    server.add("name.example", "127.0.0.1")
    proxy = sluice("--nameserver", f"{dead.text},{server.text}")
    connect(proxy, "name.example", target.port)


def test_a_changed_resolv_conf(sluice, origin, namespace, tmp_path):
    """It is seen with a look-up soon, and at SIGHUP also where its size, time and inode are what they were."""
    if not namespaces.can_mount():
        pytest.skip("no mounts of one's own here")
    net, conf = namespace(), tmp_path / "resolv.conf"
    servers = [net.call(fakedns.NameServer, f"127.0.0.{i}", 53) for i in range(1, 4)]
    target = net.call(origins.Origin, origins.echo)
    names = [f"name{i}.example" for i in range(1000)]
    for server in servers:
        for name in names:
            server.add(name, "127.0.0.1")

    def turn_to(i):
        conf.write_text(f"nameserver 127.0.0.{i + 1}\n")

    def look_up(name):
        net.call(connect, proxy, name, target.port)
        return [server.count(name) for server in servers]

    def moved(i):
        """Names that nobody has asked for yet, until one of them goes to that server."""
        return process.wait_until(lambda: look_up(names.pop())[i] == 1, 5, 0.1)

    turn_to(0)
    mount = namespaces.with_mounts(f"mount --bind {conf} /etc/resolv.conf")
    proxy = sluice(prefix=(*net.prefix, *mount))
    assert look_up("name0.example") == [1, 0, 0]
    turn_to(1)
    assert moved(1) and not servers[2].queries
    before = conf.stat()
    turn_to(2)
    os.utime(conf, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert conf.stat().st_size == before.st_size
    known = names.pop()
    assert look_up(known) == look_up(known) == [0, 1, 0], "it has no way to know"
    proxy.signal(signal.SIGHUP)
    assert moved(2)
    assert look_up(known) == [0, 1, 1], "what was known before is asked again"
    for one in [*servers, target]:
        net.call(one.close)


# --- several addresses (RFC 8305) ---

def connects_within(proxy, target, seconds, names=("some.example",) * 20, way="socks5"):
    """Whether that happens once in some attempts: of a busy machine each may get no time for a while."""
    for name in names:
        start = time.monotonic()
        connect(proxy, name, target.port, way)
        if time.monotonic() - start < seconds:
            return True
    return False


def test_refused_address_is_followed_by_the_next_at_once(sluice, origin, dns):
    port = process.free_port("127.0.0.1", "127.0.0.2", "127.0.0.3")
    server, target = dns(), origin(host="127.0.0.3", port=port)
    server.add("some.example", "127.0.0.1", "127.0.0.2", "127.0.0.3")
    proxy = sluice("--nameserver", server.text)
    assert connects_within(proxy, target, 0.2), "it has waited for a stagger"


@pytest.mark.parametrize("dead, alive", [("127.0.0.2", "127.0.0.1"), ("::1", "127.0.0.1")])
def test_silent_address_costs_a_stagger(sluice, origin, dns, blackhole, dead, alive):
    port = process.free_port(dead, alive)
    server, target = dns(), origin(host=alive, port=port)
    blackhole(host=dead, port=port)
    server.add("some.example", dead, alive)
    proxy = sluice("--nameserver", server.text)
    assert connects_within(proxy, target, 0.8), "it has waited for the kernel"
    assert proxy.flat(), "the attempt that lost is still there"


def test_many_silent_addresses_and_one_that_answers(sluice, origin, dns, blackhole):
    hosts = [f"127.0.0.{i}" for i in range(2, 9)]
    port = process.free_port(*hosts)
    server, target = dns(), origin(host=hosts[-1], port=port)
    for host in hosts[:-1]:
        blackhole(host=host, port=port)
    server.add("some.example", *hosts)
    proxy = sluice("--nameserver", server.text)
    assert connects_within(proxy, target, 3)
    assert proxy.flat()


def test_all_addresses_are_dead(sluice, dns):
    server = dns()
    server.add("dead.example", "127.0.0.1", "127.0.0.2", "::1")
    proxy = sluice("--nameserver", server.text)
    assert ask(proxy, "dead.example", process.free_port("127.0.0.1", "127.0.0.2", "::1")) == wire.socks5_failure(5)


def test_blocked_addresses_are_passed_over(sluice, origin, dns):
    server, target = dns(), origin()
    server.add("some.example", "224.0.0.1", "0.0.0.0", "127.0.0.1")
    proxy = sluice("--nameserver", server.text)
    connect(proxy, "some.example", target.port)


def test_hostile_answers_harm_nobody(sluice, origin, dns):
    """A name server may be anybody: short, foreign and random answers."""
    server, target = dns(), origin()
    good = server._answer
    server.add("good.example", "127.0.0.1")

    def hostile(query):
        name, _ = fakedns.read_name(query, 12)
        if name == "good.example":
            return good(query)
        server.queries.append((name, 0))
        return query[:2] + os.urandom(len(server.queries) % 60)

    server._answer = hostile
    proxy = sluice("--nameserver", server.text, "-t", "5")
    threads = [threading.Thread(target=ask, args=(proxy, f"bad{i}.example", 80)) for i in range(30)]
    for thread in threads:
        thread.start()
    connect(proxy, "good.example", target.port)
    for thread in threads:
        thread.join()
    assert proxy.alive()
