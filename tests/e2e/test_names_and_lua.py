"""Names, and answers that are ready, do not wait for Lua: a script that computes delays only what asks it to decide.

A script here computes until a file appears, which the test makes when it has seen what must not wait: if that waited
for the script, it would never come."""
import os
import signal
import time

import pytest

import process
import wire

BUDGET = ("--lua-budget", "60000")  # milliseconds of CPU: the scripts here may compute as long as they like


class Burner:
    """A piece of Lua that computes from `begin()` to `end()`, on the coordinator's thread."""

    def __init__(self, folder):
        self.files = {name: folder / f"burn-{name}" for name in ("go", "burning", "stop")}

    def lua(self):
        """Computes until the file `stop` is there, a minute at most; says that it does."""
        return f"""
            local function there(path) local f = io.open(path) if f then f:close() end return f ~= nil end
            local function burn()
                io.open('{self.files["burning"]}', 'w'):close()
                local last = os.time() + 60
                while not there('{self.files["stop"]}') and os.time() < last do end
            end
        """

    def script(self):
        """A script of its own that waits for begin()."""
        return self.lua() + f"while not there('{self.files['go']}') do await.sleep(0.01) end burn()"

    def begin(self):
        self.files["go"].touch()
        self.await_burning()

    def await_burning(self):
        assert process.wait_until(self.files["burning"].exists)

    def end(self):
        self.files["stop"].touch()


@pytest.fixture
def burner(tmp_path):
    burner = Burner(tmp_path)
    yield burner
    burner.end()


def echo(address, name, port, timeout=10):
    with wire.greet(wire.Client(address, timeout=timeout * process.SLOW)) as client:
        client.send(wire.socks5(name, port) + b"hello")
        return client.read(10)[:2] + client.read(5)


ECHOED = b"\5\0hello"


@pytest.mark.parametrize("family", ["-4", None])
def test_a_name_is_resolved_while_a_script_computes(sluice, origin, dns, burner, tmp_path, family):
    """Of a client that no ruleset is asked about."""
    server, target = dns(), origin()
    server.add("name.example", "127.0.0.1")
    (tmp_path / "burn.lua").write_text(burner.script())
    options = [family] if family else []
    proxy = sluice("--nameserver", server.text, "--script", tmp_path / "burn.lua", *BUDGET, *options)
    burner.begin()
    assert echo(proxy.address, "name.example", target.port) == ECHOED
    assert echo(proxy.address, "no.example", target.port)[:2] == b"\5\4"
    assert not burner.files["stop"].exists()
    burner.end()


def test_a_remembered_verdict_and_its_name(ruled, origin, dns, burner, tmp_path):
    server, target = dns(), origin()
    server.ttl = 1
    server.add("name.example", "127.0.0.1")
    (tmp_path / "burn.lua").write_text(burner.script())
    proxy, _ = ruled("return { resolve = function(a) sluice.cache(3600) return a end }", "--nameserver", server.text,
                     "--workers", "1", "--script", tmp_path / "burn.lua", *BUDGET)
    assert echo(proxy.address, "name.example", target.port) == ECHOED
    time.sleep(1.2)  # the verdict holds, the address does not
    burner.begin()
    before = server.count("name.example", 1)
    assert echo(proxy.address, "name.example", target.port) == ECHOED
    assert server.count("name.example", 1) == before + 1
    burner.end()


def test_a_verdict_that_is_ready_leaves_before_the_next_question_is_put(ruled, origin, burner):
    """Two questions wait for one turn of the coordinator: the answer to the first does not wait for the second."""
    target = origin()
    proxy, _ = ruled(burner.lua() + f"""
        local n = 0
        local function pause(path) io.open(path, 'w'):close() local t = os.clock() + 2
            while not there(path .. '-on') and os.clock() < t do end end
        return {{ route = function(a)
            n = n + 1
            if n == 1 then pause('{burner.files["go"]}') end
            if n == 3 then burn() end
            return '127.0.0.1:{target.port}'
        end }}""", "--workers", "1", *BUDGET)
    clients = []
    for number in range(3):  # the second and the third ask while the first one's question is being decided
        clients.append(wire.greet(wire.Client(proxy.address, timeout=10 * process.SLOW)))
        clients[-1].send(wire.socks5("192.0.2.1", number + 1) + b"hello")
        if number == 0:
            assert process.wait_until(burner.files["go"].exists)
        else:
            time.sleep(0.1)
    time.sleep(0.4)  # by now their sessions look at the clock no more: only the answer wakes the worker
    (burner.files["go"].parent / "burn-go-on").touch()
    burner.await_burning()
    for client in clients[:2]:
        assert client.read(10)[:2] == b"\5\0" and client.read(5) == b"hello"
    assert not burner.files["stop"].exists()
    burner.end()
    assert clients[2].read(10)[:2] == b"\5\0"
    for client in clients:
        client.close()


# --- answers are never delivered within the call that asks ---

def test_a_cached_name_does_not_run_others(sluice, dns, tmp_path):
    """Scripts that compute behind each cached name, every time within their budget, do so on their own: another one,
    which only sleeps and asks for the same name, is not charged for it."""
    server = dns()
    server.add("name.example", "127.0.0.1")
    (tmp_path / "sleeper.lua").write_text(f"""
        local function work() for _ = 1, 20000 do end end  -- a little: then the clock is looked at
        for i = 1, 8 do await.sleep(0.001) work() await.resolve('name.example') work() end
        io.open('{tmp_path}/done', 'w'):close()
        await.sleep(60)""")
    (tmp_path / "burner.lua").write_text("""
        for _ = 1, 3 do
            neosocksd.async(function() end, function()
                while true do
                    await.resolve('name.example')
                    local enough = os.clock() + 0.08
                    while os.clock() < enough do end
                end
            end)
        end
        await.sleep(60)""")
    proxy = sluice("--nameserver", server.text, "--lua-budget", "150", "--script", tmp_path / "burner.lua",
                   "--script", tmp_path / "sleeper.lua")
    # It computes for two seconds, of which a busy machine gives a small part to anybody.
    assert process.wait_until(lambda: (tmp_path / "done").exists() or "budget" in proxy.log(), 300), proxy.log()
    assert "budget" not in proxy.log(), proxy.log()
    proxy.sockets_at_start = proxy.sockets()  # when it was counted, the first question's may have been open


# --- the end ---

@pytest.mark.parametrize("drain", [None, "1"])
def test_stops_while_names_are_sought(sluice, dns, tmp_path, drain):
    """Workers, then the resolver, then their rings; a dozen times with questions of clients and of scripts open."""
    server = dns()
    server.silent.add("*")
    (tmp_path / "asks.lua").write_text("""
        for i = 1, 50 do
            neosocksd.async(function() end, function()
                while true do await.resolve('s' .. i .. '.example') end
            end)
        end
        await.sleep(60)""")
    options = ["--drain", drain] if drain else []
    for round_number in range(12 if not drain else 3):
        proxy = sluice("--nameserver", server.text, "--workers", "2", "--script", tmp_path / "asks.lua", *options)
        clients = [wire.Client(proxy.address).send(wire.socks4a(f"n{i % 10}.example", 80)) for i in range(40)]
        assert process.wait_until(lambda: server.queries)
        time.sleep(0.01 * round_number)
        start = time.monotonic()
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
        assert time.monotonic() - start < 6 * process.SLOW  # a name would be given up after ten seconds
        for client in clients:
            client.close()
        server.queries.clear()
