"""Options in combination. Every two values of two options stand together in some row of a table, which is made here and is the same in
each run: a row starts, serves one request, and its dump, given back as a -c script, yields the same dump. Two values that cannot stand
together are in CLASHES, each with the line that says so."""
import itertools
import os
import pwd
import re
import shutil
import tempfile

import pytest

import origins
import process
import wire

RULES = "return { resolve = function(a) return a end, route = function(a) return a end, route6 = function(a) return a end }"
# {name} is filled in for each run: ports that are free, paths, a name server, a hop.
OPTIONS = {
    "listener": {"auto": "-l {listen}", "http": "-l {listen} --http", "forward": "-l {listen} -f {target}", "unix": "-l unix:{folder}/proxy",
                 "forward-unix": "-l {listen} -f unix:{folder}/target", "forward-open": "-l {listen} -f {open}",
                 "several": "-l {listen} -l {other} -f {target} --http {third}", "tproxy": "-l {listen} --tproxy"},
    "bind": {"off": "", "on": "--enable-socks5-bind"},
    "udp": {"off": "", "on": "--enable-socks5-udp"},
    "listening": {"": "", "no-fastopen": "--no-fastopen", "reuseport": "--reuseport"},
    "proxy": {"none": "", "socks5": "-x socks5://{hop}", "http": "-x http://us%65r:p%22ss@{hop}",
              "group": "-x group:pool --upstream pool=socks5://{hop},weight=2,max=9"},
    "family": {"any": "", "4": "-4", "6": "-6"},
    "nameserver": {"none": "", "one": "--nameserver {nameserver}"},
    "netdev": {"none": "", "lo": "-i lo"},
    "source": {"any": "", "some": "--source 127.0.0.5,::1 --source by=source"},
    "mark": {"none": "", "some": "--mark 0x5"},
    "block": {"default": "", "nothing": "--block-outbound=", "local": "--block-outbound local,multicast", "global": "--block-outbound global"},
    "self": {"default": "", "allowed": "--allow-self"},
    "dialling": {"": "", "fastopen": "--fastopen-connect"},
    "script": {"none": "", "ruleset": "-r {folder}/rules.lua", "config": "-c {folder}/empty.lua", "config-rules": "-c {folder}/rules-config.lua",
               "config-names": "-c {folder}/names-config.lua"},
    "auth": {"off": "", "on": "--auth-required"},
    "lua": {"": "", "budget": "--lua-budget 1000", "memory": "--memlimit 64", "traceback": "--traceback"},
    "beside": {"none": "", "script": "--script {folder}/script.lua"},
    "api": {"none": "", "loopback": "--api {api}", "unix": "--api unix:{folder}/api", "any": "--api 0.0.0.0:{api_port}"},
    "token": {"none": "", "file": "--api-token-file {folder}/tokens"},
    "timeout": {"": "", "short": "-t 5.5", "long": "-t 86400"},
    "idle": {"": "", "never": "--idle-timeout 0", "soon": "--idle-timeout 30.25 --half-close-timeout 0"},
    "sessions": {"": "", "few": "-m 20"},
    "startups": {"": "", "some": "--max-startups 5:50:15", "many": "--max-startups 5:50:100"},
    "buffer": {"": "", "small": "--socket-buffer 64K"},
    "workers": {"auto": "", "1": "--workers 1", "3": "--workers 3"},
    "relay": {"auto": "", "splice": "--relay splice", "copy": "--relay copy", "pipe": "--pipe"},
    "log": {"": "", "loud": "--loglevel 8", "silent": "--loglevel 0", "stdout": "--log stdout", "discard": "--log discard"},
    "drain": {"": "", "short": "--drain 0.5"},
    "user": {"": "", "nobody": "-u nobody:"},
}
RULED = ["ruleset", "config-rules", "config-names"]
UNRULED = ["none", "config"]
FORWARDS = ["forward", "forward-unix", "forward-open", "several"]
# (option, values, another option, values, what is said)
CLASHES = [
    ("proxy", ["http", "group"], "bind", ["on"], r"--enable-socks5-bind cannot go through --proxy (http://[^ ]+|group:pool): give socks5:// there, or leave one of them out"),
    ("proxy", ["http", "group"], "udp", ["on"], r"--enable-socks5-udp cannot go through --proxy (http://[^ ]+|group:pool): give socks5:// there, or leave one of them out"),
    ("proxy", ["socks5", "http", "group"], "listener", ["forward-unix"], r"no proxy can connect to a Unix socket of this machine, leave --proxy out"),
    ("script", UNRULED, "auth", ["on"], r"authentication requires a ruleset"),
    ("script", UNRULED, "listener", ["forward-open"], r"a target that is left to a ruleset needs one, give -r"),
    ("auth", ["on"], "listener", FORWARDS + ["tproxy"], r"--auth-required: forwarded and transparent clients cannot authenticate, leave it out"),
    ("api", ["none"], "token", ["file"], r"--api-token-file: there is no API that would ask for a token, give --api, or leave it out"),
    ("api", ["any"], "token", ["none"], r"--api 0.0.0.0:\d+: whoever reaches this address could run scripts here; give --api-token-file"),
    ("sessions", ["few"], "startups", ["many"], r"--max-startups: full is out of range \(5 - 20\), it must not exceed --max-sessions"),
]
WARNINGS = re.compile(r"^[INDV] |--fastopen-connect: some networks drop|listener .* whoever reaches it may use the proxy")


def clashing(row):
    """The lines that a row must be refused with; none: it is good."""
    return [words for one, values, other, others, words in CLASHES if row.get(one) in values and row.get(other) in others]


def pairs_of(row):
    return set(itertools.combinations(sorted(row.items()), 2))


def all_pairs():
    for one, other in itertools.combinations(sorted(OPTIONS), 2):
        for value, its in itertools.product(OPTIONS[one], OPTIONS[other]):
            yield ((one, value), (other, its))


def complete(row, missing):
    """The row with a value for each option: that which stands with most of the others for the first time, and clashes with none."""
    expected = clashing(row)
    for name in sorted(set(OPTIONS) - set(row), key=lambda name: (name not in ("script", "api", "listener"), name)):
        fits = [value for value in OPTIONS[name] if clashing({**row, name: value}) == expected and can_be_completed({**row, name: value}, expected)]
        if not fits:
            return None
        gain = {value: sum(tuple(sorted([(name, value), item])) in missing for item in row.items()) for value in fits}
        row = {**row, name: max(fits, key=gain.get)}
    return row


def can_be_completed(row, expected):
    """Whether each option that is open still has a value that clashes with nothing."""
    return all(any(clashing({**row, name: value}) == expected for value in OPTIONS[name]) for name in OPTIONS if name not in row)


def make_rows():
    """(rows that are good, rows with two values that clash): all pairs are in the one or the other."""
    missing, good, bad = set(all_pairs()), [], []
    for pair in sorted(missing):
        if pair not in missing:
            continue
        row = complete(dict(pair), missing)
        if clashing(dict(pair)):
            bad.append(row)
            missing.discard(pair)
        elif row:
            good.append(row)
            missing -= pairs_of(row)
    return good, bad, missing


GOOD, BAD, LEFT = make_rows()
ROOT = os.geteuid() == 0


class World:
    """What the words of a row refer to."""

    def __init__(self, folder, target, server, hop):
        self.folder, self.target, self.ports = folder, target, [process.free_port() for _ in range(4)]
        listen, other, third, api = (f"127.0.0.1:{port}" for port in self.ports)
        self.names = {"listen": listen, "other": other, "third": third, "target": f"127.0.0.1:{target.port}", "open": "127.0.0.1:0",
                      "folder": folder, "hop": hop, "nameserver": server.text, "api": api, "api_port": self.ports[3]}

    def words(self, row):
        return [word.format(**self.names) for name in OPTIONS for word in OPTIONS[name][row[name]].split()]


@pytest.fixture
def world(sluice, origin, dns):
    """A folder that any user may read, and what a request may need."""
    folder = tempfile.mkdtemp(prefix="sluice-options-")
    os.chmod(folder, 0o755)
    target = origin(origins.echo, host="::")
    origin(origins.echo, path=f"{folder}/target")
    for name, text in [("rules.lua", RULES), ("empty.lua", "return {}"), ("rules-config.lua", f"return {{ ruleset = (function() {RULES} end)() }}"),
                       ("names-config.lua", f"return {{ ruleset = '{folder}/rules.lua' }}"), ("script.lua", "await.sleep(600)"),
                       ("tokens", "a-token-of-more-than-sixteen-octets\n")]:
        with open(f"{folder}/{name}", "w", encoding="ascii") as file:
            file.write(text)
    os.chmod(f"{folder}/tokens", 0o600)
    os.chmod(f"{folder}/target", 0o777)
    server = dns()
    server.add("target.example", "127.0.0.1", "::1")
    yield World(folder, target, server, sluice().url)
    shutil.rmtree(folder)


def lines_of(*texts):
    return [line for text in texts for line in text.splitlines() if line and not WARNINGS.search(line)]


def check(words):
    """(exit status, what it says besides warnings)."""
    code, out, err = process.run(*words, "--check")
    return code, lines_of(out, err)


def dump(words):
    code, out, err = process.run(*words, "--dump-config")
    return code, lines_of(out, err)


def test_table():
    """All pairs are in it: there is none for which a third option would have to clash."""
    together = {pair for row in GOOD for pair in pairs_of(row)}
    apart = {pair for pair in all_pairs() if clashing(dict(pair))}
    assert LEFT == set(all_pairs()) - together - apart
    assert not LEFT
    assert not any(clashing(row) for row in GOOD) and all(len(clashing(row)) == 1 for row in BAD)


@pytest.mark.parametrize("row", BAD, ids=lambda row: "-".join(sorted(f"{name}={value}" for name, value in row.items() if any(
    clashing({name: value, one: its}) for one, its in row.items()))))
def test_two_that_clash(world, row):
    code, lines = check(world.words(row))
    assert code == 1 and len(lines) == 1 and re.search(clashing(row)[0], lines[0]), lines
    code, lines = dump(world.words(row))
    assert code == 1 and len(lines) == 1 and re.search(clashing(row)[0], lines[0]), lines


def through(world, row, address):
    """One request in the way that the listener is for."""
    port, secret = world.target.port, (b"user", b"secret") if row["auth"] == "on" else ()
    host = b"target.example" if row["nameserver"] == "one" and row["proxy"] == "none" else "127.0.0.1"
    client = wire.Client(address)
    if row["listener"] == "http":
        client.send(wire.http_connect("127.0.0.1", port, wire.basic(*secret) if secret else b""))
        assert client.read_head() == wire.HTTP_ESTABLISHED
    elif row["listener"] in ("auto", "unix", "several"):
        wire.greet(client, *secret).send(wire.socks5(host, port))
        assert wire.read_socks5_reply(client)[0] == 0
    return client


def serve(world, row, proxy):
    address = f"{world.folder}/proxy" if row["listener"] == "unix" else ("127.0.0.1", world.ports[0])
    if row["listener"] == "tproxy":  # without a firewall's rule the target is the listener itself
        assert wire.Client(address).ends_with() in ("end", "reset")
    elif row["listener"] == "forward-open":  # its ruleset leaves the port as it is, and there is none
        assert wire.Client(address).ends_with() in ("end", "reset")
    else:
        with through(world, row, address) as client:
            client.send(b"through")
            assert client.read(7) == b"through"
    assert proxy.alive()


def listens(proxy, row, world):
    """The log may be silent: somebody has to knock."""
    try:
        wire.Client(f"{world.folder}/proxy" if row["listener"] == "unix" else ("127.0.0.1", world.ports[0])).close()
        return True
    except (ConnectionRefusedError, FileNotFoundError):
        assert proxy.alive(), proxy.log()
        return False


@pytest.mark.parametrize("row", GOOD, ids=map(str, range(len(GOOD))))
def test_row(sluice, world, row):
    words = world.words(row)
    if row["user"] == "nobody" and ROOT:
        os.chown(f"{world.folder}/tokens", pwd.getpwnam("nobody").pw_uid, -1)
    assert check(words) == (0, ["configuration is valid"])
    code, lines = dump(words)
    assert code == 0 and lines[0] == "return {" and lines[-1] == "}", lines
    again = [*(["--log", row["log"]] if row["log"] in ("stdout", "discard") else []), "-c", f"{world.folder}/dump.lua"]
    with open(again[-1], "w", encoding="ascii") as file:
        file.write("\n".join(lines))
    lost = [words for words in clashing({**row, "script": "config"}) if row["script"] == "config-rules"]
    if lost:  # a table is not in a dump
        code, lines = dump(again)
        assert code == 1 and re.search(lost[0], lines[0]), lines
    else:
        assert dump(again) == (0, lines)
    if not ROOT and (row["listener"] == "tproxy" or row["user"] == "nobody"):
        return
    proxy = sluice(*words, listen=None, ready=False)
    proxy.check_descriptors = False
    assert process.wait_until(lambda: listens(proxy, row, world), 15)
    serve(world, row, proxy)
