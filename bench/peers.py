"""The proxies: ours, the floor, and the peers of peers.tsv whose program is here."""
import dataclasses
import pathlib
import shlex

from processes import find_program, first_line

HERE = pathlib.Path(__file__).resolve().parent
FLOOR = "floor"


@dataclasses.dataclass
class Proxy:
    name: str
    mode: str  # what it does: forward, socks5, users (socks5 with user and password), udp (socks5 with datagrams),
    #            http (plain), chain (socks5 through two hops)
    template: str  # in peers/, or -
    command: list
    version: str
    note: str


def read_peers(path):
    """Peers of the table whose program is here, by (name, mode), and the names of those that are not."""
    peers, missing = {}, {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, mode, template, command, version, note = line.split("\t")
        words = shlex.split(command)
        program = find_program(words[0])
        if program:
            words[0] = program
            peers[name, mode] = Proxy(name, mode, template, words, first_line(shlex.split(version)), note)
        else:
            missing[name] = words[0]
    return peers, missing


def by_key(proxies):
    return {(proxy.name, proxy.mode): proxy for proxy in proxies}


def sluice_proxies(binary, extra):
    version = first_line([binary, "--version"])
    common = [binary, "--loglevel", "2", "-l", "{address}:{port}", *extra]
    one, two = ["--workers", "1"], ["--workers", "2"]

    def sluice(name, mode, note, *options, template="-"):
        return Proxy(name, mode, template, [*common, *options], version, note)

    forward = ["-f", "{target_address}:{target_port}"]
    rules = ["-r", "{conf}"]
    return by_key([
        sluice("sluice", "forward", "one worker", *one, *forward),
        sluice("sluice", "socks5", "one worker", *one),
        sluice("sluice", "http", "one worker", *one),
        sluice("sluice", "udp", "one worker", *one, "--enable-socks5-udp"),
        sluice("sluice", "chain", "one worker, two hops", *one, "-x", "socks5://{hop1},socks5://{hop2}"),
        sluice("sluice-two", "socks5", "two workers", *two),
        sluice("sluice-two", "forward", "two workers", *two, *forward),
        sluice("sluice-nobody", "forward", "one worker, -u nobody", *one, "-u", "nobody", *forward),
        sluice("sluice-logged", "socks5", "with an access log", *one, "--access-log", "{dir}/access.log"),
        sluice("sluice-unread", "socks5", "with an access log that nobody reads", *one, "--access-log", "unix:{unread}"),
        sluice("sluice-limited-4", "forward", "one worker, all flows share 4 Gbit/s", *one, *forward, "--limit", "total: down=4Gbit/s"),
        sluice("sluice-limited-1", "forward", "one worker, all flows share 1 Gbit/s", *one, *forward, "--limit", "total: down=1Gbit/s"),
        sluice("sluice-unreached", "forward", "one worker, all flows share 100 Gbit/s", *one, *forward, "--limit", "total: down=100Gbit/s"),
        sluice("sluice-limits", "socks5", "one worker, three limits of each connection that refuse none", *one,
               "--limit", "source: connections=1000000 down=100Gbit/s", "--limit", "listener: connections=1000000 rate=1000000/s",
               "--limit", "total: connections=1000000 quota=1000TiB"),
        sluice("sluice", "users", "one worker; user and password are read, and nobody judges them", *one),
        sluice("sluice-users", "users", "one worker, `--users`", *one, "--users", "{conf}", template="users"),
        sluice("sluice-ruleset", "socks5", "with pass-through.lua", *one, *rules, template="pass-through.lua"),
        sluice("sluice-cached", "socks5", "with cached.lua", *one, *rules, template="cached.lua"),
        sluice("sluice-million", "socks5", "with million.lua", *one, *rules, template="million.lua"),
    ])


def floor_proxies(program):
    """The floor has three ways to move octets, and a row takes the one that is its least. Plain HTTP goes to one origin, so
    that it needs not look at it; a name always means the target."""
    listen, target = ["--listen", "{address}:{port}"], ["--target", "{target_address}:{target_port}"]

    def floor(name, mode, note, *options):
        return Proxy(name, mode, "-", [program, *listen, *options], "of this commit", note)

    return by_key([
        floor(FLOOR, "forward", "copies", *target),
        floor("floor-splice", "forward", "splices", *target, "--splice"),
        floor("floor-bulk", "forward", "splices, 256 KiB at a time", *target, "--splice", "--gather"),
        floor(FLOOR, "socks5", "copies", *target, "--socks5"),
        floor(FLOOR, "udp", "datagrams", "--socks5"),
        floor(FLOOR, "http", "forwards to the one origin, without a look", *target),
    ])
