"""Groups of upstreams: who is chosen, who is to blame, what checks find, and what the operator says."""
import json
import signal

import pytest

import origins
import process
import scripts
import wire

TEXT = b"through a member"
REFUSED = wire.socks5_failure(5)


def rows(api, name="pool"):
    """What GET /upstreams says of each member of a group."""
    return {row["member"]: row for row in api.get(f"/upstreams?name={name}").json()["upstreams"][0]["members"]}


def row(api, port, name="pool"):
    return rows(api, name)[f"127.0.0.1:{port}"]


def order(api, port, state, name="pool"):
    return api.ask("PUT", f"/upstreams/{name}/127.0.0.1:{port}", json.dumps({"state": state}))


def passes(proxy, target, times=1):
    for _ in range(times):
        with wire.through_socks5(proxy.address, "127.0.0.1", target.port) as client:
            client.send(TEXT)
            assert client.read(len(TEXT)) == TEXT


def reply_of(proxy, host, port):
    with wire.greet(wire.Client(proxy.address)) as client:
        client.send(wire.socks5(host, port))
        return wire.read_socks5_reply(client)[0]


def status_through(proxy, target, path="/"):
    """The status of a plain HTTP request."""
    authority = wire.authority("127.0.0.1", target)
    with wire.Client(proxy.address) as client:
        client.send(b"GET http://" + authority + path.encode() + b" HTTP/1.1\r\nHost: " + authority + b"\r\nConnection: close\r\n\r\n")
        return int(client.read_all().split(b" ")[1])


def proxies(*ports, terms=""):
    return "pool=" + ",".join(f"socks5://127.0.0.1:{port}" for port in ports) + terms


def checked(started):
    """Those sockets come and go: what is left of them test_checks_come_once... looks at."""
    started[0].check_descriptors = False
    return started


def answering(*lines):
    """A proxy that reads so many octets and says that, line by line, and then waits for the end."""
    def handler(_origin, connection):
        for size, answer in lines:
            while size > 0:
                part = connection.recv(size)
                if not part:
                    return None
                size -= len(part)
            connection.sendall(answer)
        while connection.recv(4096):
            pass
        return None

    return handler


# --- choosing, and what sessions meet ---

def test_members_take_turns_and_one_that_is_dead_is_left_out(ruled, sluice, origin):
    """Nobody is refused for it: another member is tried."""
    target, dead = origin(), process.free_port("127.0.0.1")
    members = [sluice(), sluice()]
    proxy, api = ruled(None, "--upstream", proxies(members[0].port, dead, members[1].port, terms=",eject=3600"), "-x", "group:pool")
    passes(proxy, target, 12)
    gone = row(api, dead)
    assert gone["state"] == "out" and gone["failed"] == 3 and gone["ejected"] == 1 and gone["last_failure"] == "refused"
    assert gone["out_seconds"] > 0 and gone["url"] == f"socks5://127.0.0.1:{dead}"
    good = [row(api, member.port) for member in members]
    assert [one["state"] for one in good] == ["up", "up"] and sum(one["connected"] for one in good) == 12
    assert all(one["connected"] >= 4 and one["failed"] == 0 for one in good)
    assert process.wait_until(lambda: all(one["sessions"] == 0 for one in rows(api).values()))
    assert proxy.says(f"group:pool: 127.0.0.1:{dead} is left out for 3600000 ms: connection refused")
    metrics = api.get("/metrics").text
    assert f'sluice_group_state{{group="pool",member="127.0.0.1:{dead}",state="out"}} 1' in metrics
    assert f'sluice_group_failures_total{{group="pool",member="127.0.0.1:{dead}"}} 3' in metrics
    assert order(api, dead, "up").json()["passive"] == "in"


def test_each_failed_member_is_blamed_once(ruled, origin):
    """One that cannot be reached and one that says nothing; the third one serves. With the last gone, too, the client is told."""
    dead, silent = process.free_port("127.0.0.1"), origin(origins.hold)
    good = origin(answering((3, b"\5\0"), (10, b"\5\0\0\1" + bytes(6))))
    proxy, api = ruled(None, "--upstream", proxies(dead, silent.port, terms=f",socks5://127.0.0.1:{good.port},backup=yes,timeout=0.3"),
                       "-x", "group:pool")
    assert reply_of(proxy, "192.0.2.7", 80) == 0
    assert [row(api, port)["failed"] for port in (dead, silent.port, good.port)] == [1, 1, 0]
    assert row(api, silent.port)["last_failure"] == "connect_timeout"
    good.close()
    assert reply_of(proxy, "192.0.2.7", 80) in (1, 5, 6)
    assert [row(api, port)["failed"] for port in (dead, silent.port)] == [2, 2]


@pytest.mark.parametrize("said", [b"\5\5\0\1" + bytes(6), b"\5\1\0\1" + bytes(6), b"\5\4\0\1" + bytes(6)], ids=["refused", "general", "host"])
def test_a_member_is_not_to_blame_for_the_target(ruled, origin, said):
    """Clients choose targets: else they could take every member out."""
    members = [origin(answering((3, b"\5\0"), (10, said))) for _ in range(2)]
    proxy, api = ruled(None, "--upstream", proxies(*(member.port for member in members), terms=",fails=1"), "-x", "group:pool")
    for _ in range(3):
        assert reply_of(proxy, "192.0.2.7", 80) != 0
    assert sum(one["chosen"] for one in rows(api).values()) == 3  # nor is another one asked
    assert all(one["failed"] == 0 and one["state"] == "up" for one in rows(api).values())


@pytest.mark.parametrize("lines, label", [(((3, b"HTTP/1.1 400 Bad Request\r\n"),), "proxy_protocol"), (((3, b"\5\xff"),), "proxy_auth"),
                                          (((3, b"\5\0"), (10, b"\5\0\0\x09" + bytes(6))), "proxy_protocol")])
def test_a_member_that_does_not_speak_its_protocol_is(ruled, sluice, origin, lines, label):
    target, broken, good = origin(), origin(answering(*lines)), sluice()
    proxy, api = ruled(None, "--upstream", proxies(broken.port, good.port, terms=",fails=1,eject=3600"), "-x", "group:pool")
    passes(proxy, target, 4)
    assert row(api, broken.port)["failed"] == 1 and row(api, broken.port)["last_failure"] == label
    assert row(api, broken.port)["state"] == "out" and row(api, good.port)["connected"] == 4


def test_one_session_tries_it_again(ruled, sluice, origin):
    """And as soon as that one has succeeded, it takes its turns."""
    target, good = origin(), sluice()
    back = process.free_port("127.0.0.1")
    proxy, api = ruled(None, "--upstream", proxies(good.port, back, terms=",fails=1,eject=0.2"), "-x", "group:pool")
    passes(proxy, target, 2)
    assert row(api, back)["ejected"] == 1
    late = origin(answering((3, b"\5\0"), (10, b"\5\0\0\1" + bytes(6))), port=back)
    assert process.wait_until(lambda: row(api, back)["state"] == "trial")
    assert [reply_of(proxy, "127.0.0.1", target.port) for _ in range(4)] == [0] * 4
    assert row(api, back)["state"] == "up" and row(api, back)["connected"] >= 1 and len(late.connections) >= 1
    assert proxy.says(f"group:pool: 127.0.0.1:{back} is in use again")


def test_a_member_has_no_more_connections_than_it_may(ruled, sluice, origin):
    target, member = origin(), sluice()
    proxy, api = ruled(None, "--workers", "2", "--upstream", proxies(member.port, terms=",max=2"), "-x", "group:pool")
    held = [wire.through_socks5(proxy.address, "127.0.0.1", target.port) for _ in range(2)]
    assert reply_of(proxy, "127.0.0.1", target.port) == 1
    assert row(api, member.port)["sessions"] == 2
    held.pop().close()
    assert process.wait_until(lambda: row(api, member.port)["sessions"] == 1)
    passes(proxy, target)
    held.pop().close()


# --- checks ---

def test_a_wrong_password_takes_a_member_down(ruled, origin):
    """Which a bare connection would never tell. The one that lets us in is up, and gets all."""
    def locked(answer):
        return origin(answering((3, b"\5\2"), (9, answer)))

    wrong, right = locked(b"\1\1"), origin(answering((3, b"\5\2"), (9, b"\1\0"), (10, b"\5\0\0\1" + bytes(6))))
    members = ",".join(f"socks5://joe:pass@127.0.0.1:{one.port}" for one in (wrong, right))
    proxy, api = checked(ruled(None, "--upstream", f"pool={members},check=socks5,interval=0.1,rise=1,fall=1", "-x", "group:pool"))
    assert process.wait_until(lambda: row(api, wrong.port)["state"] == "down" and row(api, right.port)["state"] == "up")
    assert row(api, wrong.port)["last_failure"] == "proxy_auth"
    assert [reply_of(proxy, "192.0.2.7", 80) for _ in range(4)] == [0] * 4
    assert row(api, wrong.port)["chosen"] == 0 and row(api, right.port)["chosen"] == 4
    assert proxy.says(f"group:pool: 127.0.0.1:{wrong.port} is down: proxy authentication failed")
    assert "pass@" not in proxy.log() and "pass@" not in api.get("/upstreams").text


def test_checks_come_once_whatever_the_number_of_workers(ruled, origin):
    """Each connection is one check, and no two are under way together."""
    member = origin(answering((3, b"\5\0")))
    proxy, api = checked(ruled(None, "--workers", "4", "--upstream", proxies(member.port, terms=",check=socks5,interval=0.1"), "-x", "group:pool"))
    member.wait("results", 1)
    sockets = proxy.sockets()
    member.wait("results", 6)
    checks = row(api, member.port)
    assert checks["checks_passed"] <= len(member.connections) <= row(api, member.port)["checks_passed"] + 1
    assert checks["checks_failed"] == 0 and checks["sessions"] == 0 and checks["chosen"] == 0
    assert process.wait_until(lambda: proxy.sockets() <= sockets)  # one check has four at most, and five have come since


def test_a_check_with_an_endless_answer_ends(ruled, origin):
    """While sessions fail as well. When the member has recovered it is up, whatever was held against it."""
    modes = {"now": "endless"}

    def server(origin_, connection):
        if modes["now"] != "endless":
            return origins.pages(origin_, connection)
        origins.read_http_head(connection)
        connection.settimeout(0.05)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not origin_.closing and modes["now"] == "endless":
            connection.sendall(b"X")  # never a whole head
            try:
                if not connection.recv(1):
                    return None
            except TimeoutError:
                pass
        return None

    member = origin(server)
    proxy, api = checked(ruled(
        "return setmetatable({}, {__index = function() return function() return 'group:pool' end end})",
        "--upstream", f"pool=127.0.0.1:{member.port},check=http,interval=0.1,check-timeout=0.3,rise=2,fall=1,fails=1,eject=3600"))
    assert process.wait_until(lambda: row(api, member.port)["checks_failed"] >= 2)
    assert row(api, member.port)["state"] == "down" and row(api, member.port)["last_failure"] == "connect_timeout"
    assert reply_of(proxy, "192.0.2.7", 80) == 1  # nobody is left, and nobody is tried
    modes["now"] = "pages"
    assert process.wait_until(lambda: row(api, member.port)["state"] == "up")
    assert status_through(proxy, 80) == 200
    assert proxy.says(f"group:pool: 127.0.0.1:{member.port} is up")


def test_a_reload_keeps_what_is_known(sluice, ruled, origin, tmp_path):
    """A dead member gets no connection, a new port is a new member, and one that the operator has drained stays so."""
    target, good, dead, drained = origin(), sluice(), process.free_port("127.0.0.1"), sluice()
    settings = tmp_path / "settings.lua"

    def write(*ports):
        settings.write_text("return {upstream = '%s', proxy = 'group:pool'}" % proxies(*ports, terms=",check=tcp,interval=0.1,fall=1"))

    write(good.port, dead, drained.port)
    proxy, api = checked(ruled(None, "-c", str(settings)))
    assert process.wait_until(lambda: [row(api, port)["state"] for port in (good.port, dead, drained.port)] == ["up", "down", "up"])
    assert order(api, drained.port, "drain").status == 200
    passes(proxy, target, 3)
    served = row(api, good.port)["connected"]
    moved = process.free_port("127.0.0.1")
    write(good.port, dead, drained.port, moved)
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: len(rows(api)) == 4)
    passes(proxy, target, 3)
    assert row(api, dead)["chosen"] == 0 and row(api, dead)["state"] == "down" and row(api, moved)["chosen"] == 0
    assert row(api, drained.port)["state"] == "drained" and row(api, drained.port)["chosen"] == 0
    assert row(api, good.port)["connected"] == served + 3
    write(good.port)
    proxy.signal(signal.SIGHUP)
    assert process.wait_until(lambda: len(rows(api)) == 1)
    passes(proxy, target)


# --- the operator ---

def test_the_operator_has_the_last_word(ruled, sluice, origin):
    target = origin()
    members = [sluice(), sluice()]
    proxy, api = ruled(None, "--upstream", proxies(*(member.port for member in members), terms=",policy=least"), "-x", "group:pool")
    held = wire.through_socks5(proxy.address, "127.0.0.1", target.port)
    busy = next(member for member in members if row(api, member.port)["sessions"] == 1)
    free = next(member for member in members if member is not busy)
    assert order(api, busy.port, "drain").json()["state"] == "drained"
    passes(proxy, target, 3)
    assert row(api, free.port)["chosen"] == 3
    held.send(TEXT)
    assert held.read(len(TEXT)) == TEXT  # what it has is left alone
    assert order(api, free.port, "down").json()["state"] == "ordered_down"
    assert reply_of(proxy, "127.0.0.1", target.port) == 1
    assert 'sluice_failures_total{reason="no_upstream"} 1' in api.get("/metrics").text
    assert order(api, busy.port, "up").json()["state"] == "up"
    passes(proxy, target)
    held.close()
    assert order(api, 1, "up").status == 404 and order(api, busy.port, "up", "nobody").status == 404
    for body in ("", "{}", '{"state": "half"}', '{"state": "up", "more": 1}', "[]"):
        assert api.ask("PUT", f"/upstreams/pool/127.0.0.1:{busy.port}", body).status == 400
    assert api.get("/upstreams?name=nobody").status == 404
    page = api.get("/upstreams?limit=1").json()
    assert page["next"] is None and [(one["name"], one["kind"], one["policy"]) for one in page["upstreams"]] == [("pool", "proxies", "least")]


# --- rulesets ---

DEFINES = """
local target = "%s"
sluice.upstreams.define("web", {members = {{target, weight = 2}}, policy = "hash", check = {type = "tcp", interval = 0.1}})
sluice.upstreams.define("hops", {members = {"socks5://%s"}, fails = 2})
ruleset = {}
function ruleset.resolve(addr)
    if addr == "web.test:80" then return "group:web" end
    if addr == "hops.test:80" then return target, "group:hops" end
    if addr == "both.test:80" then return "group:web", "group:hops" end
    if addr == "wrong.test:80" then return "group:hops" end
    return "group:nobody"
end
ruleset.route = ruleset.resolve
return ruleset
"""


def test_rulesets_define_groups_and_name_them(ruled, sluice, origin):
    target, member = origin(origins.pages), sluice()
    proxy, api = checked(ruled(DEFINES % (f"127.0.0.1:{target.port}", member.url)))
    assert process.wait_until(lambda: row(api, target.port, "web")["state"] == "up")

    def ask(host):
        with wire.Client(proxy.address) as client:
            client.send(b"GET http://%s/x HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (host, host))
            return int(client.read_all().split(b" ")[1])

    assert [ask(host) for host in (b"web.test", b"hops.test")] == [200, 200]
    assert [ask(host) for host in (b"both.test", b"wrong.test", b"other.test")] == [403, 403, 403]
    assert proxy.says("a decision has one group at most") and proxy.says("there is no group nobody")
    assert proxy.says("group hops has proxies, and stands in the place of an address")
    assert row(api, target.port, "web")["connected"] == 1 and row(api, member.port, "hops")["connected"] == 1
    groups = {one["name"]: one for one in api.get("/upstreams").json()["upstreams"]}
    assert groups["web"]["defined_by"] == "script" and groups["web"]["kind"] == "targets" and groups["web"]["policy"] == "hash"
    assert groups["web"]["members"][0]["weight"] == 2
    assert api.call("return sluice.upstreams.get('hops')[1].state, sluice.upstreams.get('none')") == 'return true,"up",nil'
    api.call(f"sluice.upstreams.order('hops', '{member.url}', 'down')")
    assert ask(b"hops.test") == 503
    api.update(DEFINES % (f"127.0.0.1:{target.port}", member.url))  # defined again: what is known of members stays
    assert row(api, member.port, "hops")["state"] == "ordered_down" and ask(b"web.test") == 200
    assert "true" in api.call("return sluice.upstreams.remove('web')")
    assert ask(b"web.test") == 403


@pytest.mark.parametrize("code, expected", [
    ("define('a b', {members = {'h:1'}})", "name of a group"), ("define('p', {})", "members is no table"),
    ("define('p', {members = {}})", "needs a member"), ("define('p', {members = {'h'}})", "neither a proxy's URI"),
    ("define('p', {members = {7}})", "a member is a string"), ("define('p', {members = {{'h:1', policy = 'hash'}}})", "no term of a member"),
    ("define('p', {members = {'h:1'}, weight = 2})", "a term of a member"), ("define('p', {members = {'h:1'}, check = {type = 'ping'}})", "check: give"),
    ("define('p', {members = {'h:1'}, policy = {}})", "neither a number"), ("define('pool', {members = {'h:1'}})", "the settings (--upstream) have"),
    ("remove('pool')", "the settings"), ("order('pool', '127.0.0.1:1', 'sideways')", "invalid option")])
def test_wrong_definitions_are_errors(lua_pool, code, expected):
    text = lua_pool.call(f"local ok, why = pcall(function() sluice.upstreams.{code} end) return tostring(why)")
    assert expected in text, text


@pytest.fixture(scope="module")
def lua_pool(tmp_path_factory):
    """An API in front of a ruleset and a group of the settings."""
    folder = tmp_path_factory.mktemp("groups")
    (folder / "rules.lua").write_text("return {}")
    port = process.free_port()
    one = process.Sluice(str(folder), "--api", f"127.0.0.1:{port}", "-r", str(folder / "rules.lua"), "--upstream", "pool=127.0.0.1:1")
    yield scripts.Api(("127.0.0.1", port))
    one.finish()


def test_plain_http_keeps_connections_by_member(ruled, origin):
    """Requests take turns, and each member's own connection is the one that is used again."""
    def server(origin_, connection):
        while True:
            if not origins.read_http_head(connection):
                return None
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + origin_.letter)

    members = [origin(server), origin(server)]
    for member, letter in zip(members, (b"aa", b"bb")):
        member.letter = letter
    proxy, api = ruled("return setmetatable({}, {__index = function() return function() return 'group:pool' end end})",
                       "--workers", "1", "--upstream", "pool=" + ",".join(f"127.0.0.1:{one.port}" for one in members))
    with wire.Client(proxy.address) as client:
        bodies = []
        for _ in range(6):
            client.send(b"GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n")
            client.read_head()
            bodies.append(client.read(2))
    assert bodies == [bodies[0], bodies[1]] * 3 and {*bodies} == {b"aa", b"bb"}
    assert [len(one.connections) for one in members] == [1, 1]
    assert [row(api, one.port)["chosen"] for one in members] == [3, 3]


# --- options ---

@pytest.mark.parametrize("words, expected", [
    (("-x", "group:pool"), "there is no such group, give --upstream pool="),
    (("-x", "group:pool", "--upstream", "pool=h:80"), "its members are no proxies"),
    (("-x", "group:a,group:b", "--upstream", "a=socks5://h", "--upstream", "b=socks5://i"), "a chain has one group at most"),
    (("--upstream", "a=socks5://h", "--upstream", "a=socks5://i"), "there are two groups of that name"),
    (("--upstream", "a=socks5://joe:secret@h,colour=red"), "\"a\": unknown term"),
    (("--upstream", "a=socks5://127.0.0.1:1080"), "so that connections would run in a circle")])
def test_wrong_groups_are_refused_at_the_start(words, expected):
    status, _, error = process.run("-l", "127.0.0.1:1080", *words, "--check")
    assert status == 1 and expected in error and "secret" not in error, error
